"""How Sphinx makes a site of these pages: sphinx-build -W --keep-going -n docs SOME/FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from esc_ensemble import __version__  # noqa: E402 - found by the line above

project = "esc_ensemble"
author = "the authors of esc_ensemble"
version = release = __version__
project_copyright = f"{author}; MIT licence"
extensions = [
    "myst_parser",
    "cyclopts.sphinx_ext",
    "sphinxarg.ext",  # of the commands that need no cyclopts
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
nitpicky = True
# Only our own names can be resolved here: other projects' inventories would have to be fetched.
nitpick_ignore_regex = [("py:.*", r"(?!esc_ensemble\.).*")]
nitpick_ignore = [
    ("py:class", "esc_ensemble.report.evidence.Evidence"),  # known to users as what `load` gives
    ("py:class", "esc_ensemble.report.shell.Written"),
]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3  # for links to `page.md#a-heading`, as GitHub makes them

smartquotes = False  # flags keep their two dashes
default_role = "literal"  # docstrings are written with single backticks
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "esc_ensemble"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_logo = html_favicon = "_static/logo.svg"
html_copy_source = False
html_show_sourcelink = False
linkcheck_timeout = 20
linkcheck_retries = 2


def _turn_to_site(app: Sphinx, page: str, source: list[str]) -> None:  # noqa: ARG001 - Sphinx's shape
    """Links to the results lead to the file on GitHub, and to their page on the site."""
    source[0] = source[0].replace("](../benchmarks/RESULTS.md", "](results.md")


def setup(app: Sphinx) -> None:
    """Is called by Sphinx."""
    app.connect("source-read", _turn_to_site)

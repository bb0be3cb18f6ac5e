"""What the documentation shows is there, and works as it stands."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cyclopts
import numpy as np
import pytest
import soundfile
from markdown_it import MarkdownIt

from esc_ensemble.__main__ import OWN_COMMAND_LINES
from esc_ensemble.cli import app
from esc_ensemble.errors import EscError
from esc_ensemble.infer import Classifier
from esc_ensemble.logits import read_run
from tests.conftest import Exported, Made

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def code_blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def walked(synthetic_dir: Path, shared_cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all of foreign-members.md was typed, from top to bottom, on a set named my-data."""
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "my-data").symlink_to(synthetic_dir)
    (folder / "my-test").symlink_to(synthetic_dir / "audio")
    (folder / "esc-ens").write_text(f'#!/bin/sh\nexec {sys.executable} -m esc_ensemble "$@"\n')
    (folder / "esc-ens").chmod(0o755)
    # No shared cache of other tests: the variable is set for each test, not for this fixture.
    environment = os.environ | {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(DOCS.parent),
        "ESC_ENSEMBLE_CACHE": str(shared_cache_dir),
    }
    blocks = code_blocks((DOCS / "foreign-members.md").read_text(encoding="utf-8"))
    assert [language for language, _ in blocks] == ["sh", "python", "python", "sh", "python", "sh"]
    for language, code in blocks:
        command = ["sh", "-e", "-c", code] if language == "sh" else [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return folder


def test_the_documented_members_blend_with_a_baseline(walked: Path) -> None:
    blend = json.loads((walked / "submissions" / "mix" / "blend.json").read_text())
    assert [member["run"] for member in blend["members"]] == ["mfcc", "shares", "forest"]


def test_the_documented_members_hold_what_they_say(walked: Path) -> None:
    shares, forest, mfcc = (read_run(walked / "runs" / name) for name in ("shares", "forest", "mfcc"))
    for run in (shares, forest):
        assert run.class_names == mfcc.class_names
        by_id = np.argsort(run.clip_ids)
        np.testing.assert_array_equal(run.labels[by_id], mfcc.labels[np.argsort(mfcc.clip_ids)])
        np.testing.assert_array_equal(run.sources[by_id], mfcc.sources[np.argsort(mfcc.clip_ids)])
    np.testing.assert_allclose(np.exp(shares.logits).sum(axis=2), 1.0, rtol=1e-6)
    assert (forest.logits[0].argmax(axis=1) == forest.labels).mean() > 0.5  # ten classes: it has learned


def test_the_documented_member_is_predicted(walked: Path) -> None:
    with np.load(walked / "submissions" / "alone" / "test.npz") as arrays:
        assert arrays["members"].tolist() == ["shares"]
        np.testing.assert_allclose(arrays["probabilities"], 0.1, atol=1e-5)  # all classes are equally frequent
    lines = (walked / "submissions" / "alone" / "submission.csv").read_text().splitlines()
    assert len(lines) == 1 + 100


def test_the_numpy_example_is_numpy_alone_and_short() -> None:
    code = code_blocks((DOCS / "foreign-members.md").read_text(encoding="utf-8"))[1][1]
    imported = re.findall(r"^(?:import|from) (\w+)", code, flags=re.MULTILINE)
    assert set(imported) <= {"csv", "json", "pathlib", "numpy"}
    assert len([line for line in code.splitlines() if line.strip()]) <= 30


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as a site; whatever Sphinx warns of, broken links between pages among it, is a failure."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-n", "-d", str(out / "trees"), str(DOCS)]
    done = subprocess.run([*command, str(out / "html")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / "html"


def test_the_site_has_every_page_and_every_command(site: Path) -> None:
    assert {path.stem for path in PAGES[1:]} <= {path.stem for path in site.glob("*.html")}
    commands = re.sub(r"<[^>]+>", "", (site / "commands.html").read_text(encoding="utf-8"))
    for words in _command_names(app, ()):
        assert " ".join(("esc-ens", *words)) in commands, words
    assert "--train.epochs" in commands
    assert "--max-megabytes" in commands


def _command_names(group: cyclopts.App, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name in group:
        if not name.startswith("-"):
            yield (*words, name)
            if group[name].default_command is None:
                yield from _command_names(group[name], (*words, name))


def test_links_of_the_readme_and_of_pages_lead_to_files() -> None:
    for page in PAGES:
        for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
            for child in token.children or ():
                link = str(child.attrs.get("href", ""))
                if link and "://" not in link and not link.startswith("#"):
                    assert (page.parent / link.partition("#")[0]).exists(), f"{page.name}: {link}"


def shown_commands() -> list[tuple[str, tuple[str, ...]]]:
    """Page and words of every `esc-ens` command in a block of shell."""
    found = []
    for page in PAGES:
        blocks = code_blocks(page.read_text(encoding="utf-8"))
        for line in "\n".join(code for language, code in blocks if language == "sh").replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if not set(word) <= set(";&|<>"):
                    words.append(word)
                    continue
                if words and Path(words[0]).name == "esc-ens":
                    found.append((page.name, tuple(words[1:])))
                words = []
    return found


def test_every_command_shown_is_one() -> None:
    commands = shown_commands()
    assert len(commands) >= 45
    for page, words in commands:
        try:
            if words[0] in OWN_COMMAND_LINES:
                importlib.import_module(OWN_COMMAND_LINES[words[0]]).parser().parse_args(words[1:])
            else:
                app.parse_args(words, exit_on_error=False, print_error=False)
        except (cyclopts.CycloptsError, EscError) as error:
            pytest.fail(f"{page}: esc-ens {' '.join(words)}: {error}")


def python_blocks(page: str) -> list[str]:
    return [code for language, code in code_blocks((DOCS / page).read_text(encoding="utf-8")) if language == "python"]


def test_the_file_alone_hears_as_the_deployment_page_shows(
    exported: Exported, synthetic_dir: Path, tmp_path: Path
) -> None:
    classifier = Classifier(exported.onnx)
    clip = next((synthetic_dir / "audio").iterdir())
    (tmp_path / "exports").mkdir()
    shutil.copy(exported.onnx, tmp_path / "exports" / "mix.onnx")
    soundfile.write(tmp_path / "dog.wav", classifier.read(clip), classifier.sample_rate, subtype="FLOAT")
    (code,) = python_blocks("deployment.md")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    name, probability = done.stdout.split()
    (expected,) = classifier.predict([clip])
    best, p = expected.top(1)[0]
    assert name == best
    assert float(probability) == pytest.approx(p, abs=1e-4)


def test_a_logits_file_is_read_as_its_page_shows(made: Made, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").symlink_to(made.runs[0].resolve())
    (code,) = python_blocks("logits-file.md")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{made.runs[0].name} is right on ")

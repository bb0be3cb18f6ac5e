"""Python processes that lack what small installations lack."""

from __future__ import annotations

ONLY_INFER = """
import sys
allowed = {"esc_ensemble", "numpy", "soundfile", "_soundfile", "_soundfile_data", "soxr", "onnxruntime", "cffi"}
allowed |= {"_cffi_backend"}
allowed |= {"flatbuffers", "packaging", "google", "typing_extensions", "pycparser", "sympy", "mpmath", "coloredlogs"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from esc_ensemble.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
"""Runs `esc-ens` with the flags that follow, where but for the `infer` extra nothing can be imported."""

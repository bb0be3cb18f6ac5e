from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from esc_ensemble.__main__ import main
from esc_ensemble.serve import command


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "the following arguments are required: model"),
        (["m.onnx", "--prot", "80"], 'unknown flag "--prot". Did you mean "--port"?'),
        (["m.onnx", "--port", "70000"], "must be at most 65535 (found 70000)"),
        (["m.onnx", "--port", "0", "--max-megabytes", "0"], "must be a number above 0 (found 0)"),
        (["m.onnx", "--port", "0", "--timeout", "nan"], "must be a number above 0 (found nan)"),
        (["m.onnx", "--port", "0", "--queue", "-1"], "must be at least 0 (found -1)"),
        (["m.onnx", "--port", "0", "--host", "no.such.host.invalid"], "which is no address of this machine"),
        (["m.onnx", "--port", "0", "--host", "a" * 99], "which is no address of this machine"),
        (["m.onnx", "--port", "0"], "Model m.onnx does not exist"),
        (["broken.onnx", "--port", "0"], "broken.onnx cannot be read as an ONNX model"),
    ],
)
def test_what_cannot_be_served_is_said(
    flags: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.onnx").write_bytes(b"\x08\x01no model")
    assert main(["serve", *flags]) == 2
    found = capsys.readouterr()
    assert found.err.startswith("esc-ens: ") and text in found.err
    assert "Traceback" not in found.err and found.out == ""


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "uvicorn" else find_spec(name))
    assert main(["serve", "m.onnx"]) == 2
    assert 'uvicorn is not installed. Install what serving needs: pip install "esc_ensemble[serve]"' in (
        capsys.readouterr().err
    )


def test_help_needs_no_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert main(["serve", "--help"]) == 0
    assert "--max-concurrent" in capsys.readouterr().out

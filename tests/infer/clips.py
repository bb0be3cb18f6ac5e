"""Files to hear, and files that nobody can."""

from __future__ import annotations

from pathlib import Path

import onnx

from esc_ensemble.infer import METADATA_KEY
from tests.conftest import Exported


def with_metadata(exported: Exported, path: Path, text: str | None) -> Path:
    model = onnx.load(exported.onnx)
    onnx.helper.set_model_props(model, {} if text is None else {METADATA_KEY: text})
    onnx.save(model, path)
    return path


def spoil(clips: Path) -> list[Path]:
    whole = next(path for path in sorted(clips.rglob("*")) if path.suffix == ".wav")
    bad = [clips / "cut.wav", clips / "text.wav", clips / "empty.wav"]
    bad[0].write_bytes(whole.read_bytes()[:-2000])
    bad[1].write_text("this is a text\n" * 50)
    bad[2].write_bytes(b"")
    return bad

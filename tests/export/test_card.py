from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from esc_ensemble.export.card import write_card
from esc_ensemble.export.evaluate import Accuracy
from esc_ensemble.export.parity import Parity
from esc_ensemble.export.pipeline import Exported as File
from esc_ensemble.infer import METADATA_KEY
from tests.conftest import Exported


@pytest.fixture
def file(exported: Exported, tmp_path: Path) -> File:
    metadata = json.loads({p.key: p.value for p in onnx.load(exported.onnx).metadata_props}[METADATA_KEY])
    (tmp_path / "mix.onnx").write_bytes(b"x")
    accuracy = Accuracy(200, top1=0.945, blend_top1=0.95, log_loss=0.2, blend_log_loss=0.2)
    return File(tmp_path / "mix.onnx", "onnx", "fp32", 12.34, Parity(16, 2e-6, True), accuracy, 56.7, 0.01134, metadata)


def other(file: File, name: str, **over: object) -> File:
    values = {**vars(file), "path": file.path.with_name(name), **over}
    values["path"].write_bytes(b"x")
    return File(**values)


def test_a_card_says_what_goes_in_what_comes_out_and_how_good_it_is(file: File) -> None:
    card = file.path.with_suffix(".md")
    write_card(card, [file], "ESC-50")
    text = card.read_text(encoding="utf-8")
    assert "| `mix.onnx` | fp32 | 12.3 | 56.7 | 0.0113 | 2.0e-06 | 0.9450 (0.9500), 200 clips |" in text
    assert "mono at **8000 Hz**" in text
    assert (
        "fitted to 1 s as in training, silence at both ends cut (60 dB below the peak): shorter ones are repeated"
        in text
    )
    assert 'Classifier("mix.onnx")' in text
    assert "| one | " in text and "| two | " in text
    assert "not for commercial use" in text
    assert "in-sample" not in text
    assert all(f"`{name}`" in text for name in file.metadata["class_names"])


def test_a_card_covers_all_files_that_are_there(file: File) -> None:
    card = file.path.with_suffix(".md")
    write_card(card, [file], "")
    write_card(card, [other(file, "mix.int8.onnx", precision="int8", megabytes=4.0)], "")
    write_card(card, [other(file, "mix.pt2", format="pt2", accuracy=None)], "")
    rows = [line.split("|")[1].strip() for line in card.read_text().splitlines() if line.startswith("| `mix")]
    assert rows == ["`mix.onnx`", "`mix.int8.onnx`", "`mix.pt2`"]
    assert "Mind the data's licence" in card.read_text()

    file.path.unlink()  # what is gone is not told of any more
    write_card(card, [other(file, "mix.pt2", format="pt2", accuracy=None)], "")
    assert "| `mix.onnx`" not in card.read_text()
    assert "| `mix.int8.onnx`" in card.read_text()


@pytest.mark.parametrize("spoil", ["members", "text"])
def test_lines_of_another_blend_or_of_a_damaged_card_are_dropped(file: File, spoil: str) -> None:
    card = file.path.with_suffix(".md")
    write_card(card, [file], "")
    if spoil == "text":
        card.write_text(card.read_text().replace('"entries": [', '"entries": {'))
        changed = file.metadata
    else:
        changed = {**file.metadata, "members": [{**member, "weight": 0.5} for member in file.metadata["members"]]}
        changed["members"][0]["config_hash"] = "another"
    write_card(card, [other(file, "mix.int8.onnx", precision="int8", metadata=changed)], "")
    assert "| `mix.onnx`" not in card.read_text()


def test_names_cannot_break_out_of_the_hidden_comment(file: File) -> None:
    nasty = {**file.metadata, "members": [{**member, "run": "a --> b | c"} for member in file.metadata["members"]]}
    card = file.path.with_suffix(".md")
    write_card(card, [other(file, "mix.onnx", metadata=nasty)], "")
    text = card.read_text()
    assert text.rstrip().endswith("-->")
    assert text.partition("<!-- files: ")[2].count("-->") == 1
    write_card(card, [other(file, "mix.int8.onnx", metadata=nasty)], "")
    assert "| `mix.onnx`" in card.read_text()

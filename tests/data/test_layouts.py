"""Every layout that people have, read by the command, the baseline and the Kaggle kernel alike."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest

from esc_ensemble.__main__ import main
from esc_ensemble.config import DataConfig
from esc_ensemble.data.audio import decode
from esc_ensemble.data.cache import build_cache
from esc_ensemble.data.catalog import Catalog, load_catalog
from esc_ensemble.data.discovery import find_datasets
from esc_ensemble.data.locate import locate_clips
from esc_ensemble.data.rows import ReadOptions
from esc_ensemble.errors import DataError
from esc_ensemble.logits import read_run
from tests.data import layouts
from tests.data.layouts import LABELS, LAYOUTS, WITHOUT_FOLDS, wav, write_table

Capture = pytest.CaptureFixture[str]
SHORT = DataConfig(sample_rate=8000, clip_seconds=0.2)

# Classes, folds with their numbers of clips, and recordings, written down by hand.
FIVE = dict.fromkeys(range(1, 6), 6)
EXPECTED: dict[str, tuple[int, dict[int, int], int]] = {
    "official_esc50": (3, FIVE, 16),
    "kaggle_esc50": (3, FIVE, 16),
    "official_urbansound": (2, {1: 4, 2: 4, 3: 4}, 5),
    "kaggle_urbansound": (2, {1: 4, 2: 4, 3: 4}, 5),
    "split_folders": (3, {1: 18, 2: 6, 3: 6}, 30),
    "fold_folders": (3, {1: 9, 2: 9, 3: 9}, 27),
    "audiofolder": (3, {1: 18, 3: 6}, 24),
    "audiofolder_json": (3, {1: 18, 2: 6, 3: 6}, 30),
    "speech_commands": (3, {1: 18, 2: 3, 3: 3}, 8),
    "recording_folders": (3, {1: 12, 2: 12, 3: 12, 4: 9, 5: 9}, 18),
    "class_folders": (3, {1: 8, 2: 8, 3: 8, 4: 6, 5: 6}, 18),
    "competition_table": (3, {1: 6, 2: 3, 3: 3, 4: 3, 5: 3}, 6),
    "parquet": (3, FIVE, 16),
}


def flags(name: str) -> list[str]:
    return ["--n-folds", "5"] if name in WITHOUT_FOLDS else []


def options(name: str) -> ReadOptions:
    return ReadOptions(n_folds=5) if name in WITHOUT_FOLDS else ReadOptions()


def facts(catalog: Catalog) -> list[tuple[str, str, int, str]]:
    return [(clip.clip_id, catalog.class_name(clip), clip.fold, clip.source) for clip in catalog.clips]


def message(path: Path, **given: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_catalog(path, ReadOptions(**given))
    return str(caught.value)


@pytest.mark.parametrize("name", LAYOUTS)
def test_command_baseline_and_kernel_read_the_same(name: str, tmp_path: Path, capsys: Capture) -> None:
    data = LAYOUTS[name](tmp_path / "input" / "data")
    n_classes, sizes, n_sources = EXPECTED[name]
    catalog = load_catalog(data, options(name))
    assert len(catalog.class_names) == n_classes
    assert Counter(catalog.folds.tolist()) == sizes
    assert len(set(catalog.sources.tolist())) == n_sources

    assert main(["data", "info", str(data), *flags(name), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["class_names"] == list(catalog.class_names)
    assert info["fingerprint"] == catalog.fingerprint
    assert {int(fold): sum(n[fold] for n in info["clips"].values()) for fold in map(str, sizes)} == sizes

    told = ["baseline", "--data", str(data), *flags(name), "--runs", str(tmp_path / "runs"), "--run", "m"]
    assert (
        main(
            [
                *told,
                "--data.sample-rate",
                "8000",
                "--frontend.n-fft",
                "512",
                "--data.clip-seconds",
                "0.2",
                "--shift-seconds",
                "0",
            ]
        )
        == 0
    )
    run = read_run(tmp_path / "runs" / "m")
    fold_of = {clip.clip_id: clip.fold for clip in catalog.clips}
    assert set(run.fold_numbers) == set(catalog.test_folds)
    assert all(fold_of[clip_id] == fold for clip_id, fold in zip(run.clip_ids, run.fold_of_clip, strict=True))
    source_of = {clip.clip_id: clip.source for clip in catalog.clips}
    assert [source_of[clip_id] for clip_id in run.clip_ids] == run.sources.tolist()
    assert run.class_names == catalog.class_names

    assert facts(kernel_catalog(tmp_path)) == facts(catalog)


def kernel_catalog(place: Path) -> Catalog:
    """What the kernel trains on, with a competition's test clips beside the data."""
    import kaggle_kernel as kernel  # noqa: PLC0415
    from esc_ensemble.kaggle import train  # noqa: PLC0415 - loads torch
    from esc_ensemble.kaggle.budget import Clock  # noqa: PLC0415

    wav(place / "input" / "comp" / "test" / "0.wav")
    (place / "input" / "comp" / "sample_submission.csv").write_text("id,label\n0.wav,bark\n")
    inputs = kernel.find_inputs([place / "input"], place / "out")
    test = [path for path in inputs.audio if path.parent.name == "test" and path.name == "0.wav"]
    job = train.Job(
        inputs=tuple(inputs.tops), clips=dict(enumerate(test)), work=place / "work", scratch=place / "scratch"
    )
    return train._Session(job, Clock.of(60.0), lambda *_: None, lambda _: None)._load()


def test_named_splits_select_and_test_by_their_parts(tmp_path: Path) -> None:
    catalog = load_catalog(layouts.split_folders(tmp_path))
    assert catalog.fold_names == {1: "train", 2: "validation", 3: "test"}
    assert (catalog.test_folds, catalog.selection_fold) == ((3,), 2)
    two = load_catalog(layouts.audiofolder(tmp_path / "two"))
    assert (two.test_folds, two.selection_fold) == ((3,), None)


def test_copies_are_passed_over_and_chosen_by_a_flag(tmp_path: Path, capsys: Capture) -> None:
    data = layouts.kaggle_esc50(tmp_path / "k")
    first = load_catalog(data)
    assert {clip.path.parent for clip in first.clips} == {data / "audio" / "audio"}
    said = capsys.readouterr().err
    assert said.count("Copies of the clips are passed over") == 1
    assert "30 in audio/audio/16000" in said
    for chosen in ("16000", "audio/audio/16000", str(data / "audio" / "audio" / "16000")):
        low = load_catalog(data, ReadOptions(audio=chosen))
        assert {clip.path.parent.name for clip in low.clips} == {"16000"}
        assert facts(low) == facts(first)
    assert "44100" in message(data, audio="48000")


def test_copies_side_by_side_are_not_guessed(tmp_path: Path) -> None:
    rows = [{"filename": f"{n}.wav", "class": "ab"[n % 2], "fold": 1 + n // 2 % 2} for n in range(8)]
    for row in rows:
        for folder in ("loud", "quiet"):
            wav(tmp_path / folder / str(row["filename"]))
    write_table(tmp_path / "t.csv", rows)
    text = message(tmp_path)
    assert 'clip "0.wav" could be in loud and quiet' in text
    assert "--audio" in text
    assert {clip.path.parent.name for clip in load_catalog(tmp_path, ReadOptions(audio="quiet")).clips} == {"quiet"}


@pytest.mark.parametrize("others", [("bus", "car"), ("bus", "fold3")])
def test_class_folders_called_like_parts_are_refused_with_the_flag(tmp_path: Path, others: tuple[str, str]) -> None:
    for label in ("train", *others):
        for number in range(5):
            wav(tmp_path / label / f"{label}{number}x.wav")
    assert "--folders classes" in message(tmp_path)
    assert load_catalog(tmp_path, ReadOptions(folders="classes")).class_names == tuple(sorted(("train", *others)))


def test_fold_folders_without_a_table_are_no_classes(tmp_path: Path) -> None:
    for row in layouts.urbansound_rows():
        wav(tmp_path / f"fold{row['fold']}" / str(row["slice_file_name"]))
    text = message(tmp_path)
    assert "table that says the classes is missing" in text
    assert "--folders classes" in text
    assert load_catalog(tmp_path, ReadOptions(folders="classes")).class_names == ("fold1", "fold2", "fold3")


def test_a_table_that_describes_nothing_here_is_not_passed_over(tmp_path: Path) -> None:
    layouts.class_folders(tmp_path)
    (tmp_path / "labels.csv").write_text("clip,species\na.wav,owl\n")
    text = message(tmp_path)
    assert "labels.csv" in text
    assert "--table none" in text
    assert load_catalog(tmp_path, ReadOptions(table="none")).class_names == LABELS


@pytest.mark.parametrize("place", ["", "docs"])
@pytest.mark.parametrize(
    "table", ["id,class\n{classes}", "label,Danish\n{classes}", "a,b\n71,82\n73,84\n", "speaker,age\ns1,30\ns2,40\n"]
)
def test_tables_about_classes_or_something_else_are_passed_over(
    tmp_path: Path, place: str, table: str, capsys: Capture
) -> None:
    for label in LABELS:
        for number in range(6):
            wav(tmp_path / label / f"{number}.wav", label, number)
    named = table.startswith("id")
    lines = "".join(f"{number},{label}\n" if named else f"{label},{number}\n" for number, label in enumerate(LABELS))
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "classes.csv").write_text(table.format(classes=lines))
    catalog = load_catalog(tmp_path)
    assert (catalog.class_names, len(catalog.clips)) == (LABELS, 18)
    assert "classes.csv" in capsys.readouterr().err


def test_a_table_of_recordings_is_not_passed_over(tmp_path: Path) -> None:
    for recording in ("rec1", "rec2", "rec3"):
        for number in range(6):
            wav(tmp_path / recording / f"{number}.wav", recording, number)
    (tmp_path / "labels.csv").write_text("recording,species\nrec1,owl\nrec2,frog\nrec3,owl\n")
    assert "does not describe the clips" in message(tmp_path)


def test_a_table_whose_names_are_written_otherwise_is_told_so(tmp_path: Path) -> None:
    for number in range(4):
        wav(tmp_path / "audio" / f"0000{number}.wav")
    (tmp_path / "train.csv").write_text("id,label\n0,owl\n1,frog\n2,owl\n3,frog\n")
    assert 'has "0" in its column "id"' in message(tmp_path, n_folds=2)
    assert "called as 0000" in message(tmp_path, n_folds=2)
    for site in ("north", "south"):  # folders that could be classes make it no less a table of clips
        wav(tmp_path / site / f"1{site}.wav")
    assert 'has "0" in its column "id"' in message(tmp_path, n_folds=2)


@pytest.mark.parametrize("other", [{"bird": "a"}, {"bird": "b"}, {}])
def test_columns_that_say_classes_otherwise_are_noted(tmp_path: Path, other: dict[str, str], capsys: Capture) -> None:
    rows = []
    for number, label in enumerate(LABELS * 4):
        wav(tmp_path / f"{number}.wav")
        rows.append({"file": f"{number}.wav", "category": label, "label": other.get("bird", label), "fold": number % 2})
    write_table(tmp_path / "t.csv", rows)
    load_catalog(tmp_path)
    assert ('column "category" says the classes; not used: label' in capsys.readouterr().err) == bool(other)


def test_of_several_tables_one_has_to_be_named(tmp_path: Path) -> None:
    layouts.competition_table(tmp_path)
    (tmp_path / "noisy.csv").write_text((tmp_path / "train.csv").read_text())
    assert "--table NAME" in message(tmp_path, n_folds=3)
    assert len(load_catalog(tmp_path, ReadOptions(n_folds=3, table="noisy.csv")).clips) == 18


def test_test_clips_without_class_folders_are_left_out(tmp_path: Path, capsys: Capture) -> None:
    for label in LABELS:
        for number in range(6):
            wav(tmp_path / "train" / label / f"{label}{number}x.wav")
    wav(tmp_path / "test" / "7.wav")
    catalog = load_catalog(tmp_path)
    assert catalog.class_names == LABELS
    assert len(catalog.fold_numbers) == 5  # one part is no split: folds are made
    assert "left out" in capsys.readouterr().err


def test_folders_in_underscores_are_left_out_and_said(tmp_path: Path, capsys: Capture) -> None:
    data = layouts.speech_commands(tmp_path)
    for number in range(4):
        wav(data / "_silence_" / f"{number}x.wav", wave=np.zeros(800))
    (data / "validation_list.txt").unlink()
    (data / "testing_list.txt").unlink()
    assert load_catalog(data).class_names == ("_silence_", "no", "off", "yes")
    assert "_background_noise_" in capsys.readouterr().err
    assert "_background_noise_" in load_catalog(data, ReadOptions(folders="classes", rare_classes="train")).class_names


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        (("filename", "category"), ("{}.wav", "{}")),
        (("FName", "Class"), ("{}", "{}")),
        (("file_name", "label"), ("audio\\{}.wav", "{}")),
        (("file", "labels"), ("./{}.WAV", "{}")),
        (("path", "target"), ("/home/someone/clips/{}.wav", "{}")),
        (("slice_file_name", "primary_label"), ("{}.wav", "{}")),
        (("id", "label"), ("{}", "{}")),
        (("Clip ID", "label"), ("{}", "{}")),
        (("audio", "class"), ("somewhere/else/{}.ogg", "{}")),
    ],
)
@pytest.mark.parametrize(
    "how",
    [("utf-8", ",", "t.csv"), ("utf-8-sig", ";", "t.csv"), ("utf-16", "\t", "t.tsv"), ("cp1252", ";", "t.csv")],
)
def test_columns_and_encodings_that_people_use(
    tmp_path: Path, header: tuple[str, str], cells: tuple[str, str], how: tuple[str, str, str]
) -> None:
    encoding, separator, name = how
    rows: list[dict[str, object]] = []
    for label in ("grün", "café"):
        for number in range(4):
            stem = f"{label}_{number}"
            wav(tmp_path / "clips" / "deep" / f"{stem}.wav")
            values = [cell.format(value) for cell, value in zip(cells, (stem, label), strict=True)]
            rows.append({**dict(zip(header, values, strict=True)), "fold": 1 + number % 2, "group": f"g{number}"})
    write_table(tmp_path / name, rows, encoding=encoding, separator=separator)
    for place in (tmp_path, tmp_path / name):
        catalog = load_catalog(place)
        assert catalog.class_names == ("café", "grün")
        assert {clip.path.parent.name for clip in catalog.clips} == {"deep"}
        assert catalog.sources.tolist() == [f"g{number}" for number in range(4)] * 2
        assert catalog.clips[0].metadata == {}


def test_other_columns_are_carried(tmp_path: Path) -> None:
    catalog = load_catalog(layouts.official_urbansound(tmp_path))
    assert [clip.metadata["salience"] for clip in catalog.clips[:2]] == ["1", "2"]
    assert catalog.clips[0].metadata["start"] == "0.0"


@pytest.mark.parametrize(("table", "files"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_match_across_unicode_forms(tmp_path: Path, table: Any, files: Any) -> None:
    rows: list[dict[str, object]] = []
    for label in ("grün", "한글"):
        for number in range(4):
            wav(tmp_path / "audio" / normalize(files, f"{label}{number}.wav"))
            name = normalize(table, f"{label}{number}.wav")
            rows.append({"filename": name, "category": label, "fold": number % 2})
    write_table(tmp_path / "clips.csv", rows)
    catalog = load_catalog(tmp_path)
    assert all(clip.path.is_file() for clip in catalog.clips)
    wanted = [normalize("NFC" if table == "NFD" else "NFD", str(row["filename"])) for row in rows]
    assert len(locate_clips(tmp_path / "audio", wanted)) == 8


def test_labels_that_look_alike_are_warned_of(tmp_path: Path, capsys: Capture) -> None:
    labels = [
        normalize("NFC", "café"),
        normalize("NFD", "café"),
        "rain",
        "rain\u200b",
        "wind\u00a0chime",
        "wind chime",
        "Wind Chime",
        "bell",
    ]
    rows: list[dict[str, object]] = []
    for kind, label in enumerate(labels):
        for number in range(2):
            wav(tmp_path / f"{kind}_{number}x.wav")
            rows.append({"filename": f"{kind}_{number}x.wav", "category": label, "fold": number})
    write_table(tmp_path / "clips.csv", rows)
    assert len(load_catalog(tmp_path).class_names) == 8
    said = capsys.readouterr().err
    assert said.count("look alike") == 3
    assert "'rain\\u200b'" in said
    assert "bell" not in said


@pytest.mark.parametrize("separator", [";", ",", ", "])
def test_cells_of_several_labels_are_refused_with_the_flag(tmp_path: Path, separator: str) -> None:
    labels = ["bark", "rain", f"bark{separator}rain"]
    rows: list[dict[str, object]] = []
    for kind, label in enumerate(labels):
        for number in range(2):
            wav(tmp_path / f"{kind}_{number}x.wav")
            rows.append({"filename": f"{kind}_{number}x.wav", "labels": label, "fold": number})
    write_table(tmp_path / "clips.csv", rows)
    text = message(tmp_path)
    assert f"bark{separator}rain" in text
    assert "--whole-labels" in text
    assert len(load_catalog(tmp_path, ReadOptions(whole_labels=True)).class_names) == 3


def test_a_name_is_a_number_only_if_written_as_one(tmp_path: Path) -> None:
    for label in ("10", "9", "007"):
        for number in range(6):
            wav(tmp_path / label / f"{number}x.wav", label, number)
    catalog = load_catalog(tmp_path)
    assert catalog.class_names == ("007", "10", "9")
    assert catalog.class_numbers == ()


def test_pieces_with_the_same_names_are_known_by_their_folders(tmp_path: Path) -> None:
    """A table of pieces whose bare names repeat: the folders are the recordings."""
    rows = []
    for label in LABELS:
        for recording in range(5):
            for piece in range(3):
                rows.append({"filename": f"{label[0]}{recording}/{piece:05d}.wav", "label": label})
                wav(tmp_path / str(rows[-1]["filename"]))
    write_table(tmp_path / "t.csv", rows)
    catalog = load_catalog(tmp_path, ReadOptions(n_folds=5))
    assert len(set(catalog.sources.tolist())) == 15
    folds_of_folder = {(clip.clip_id.split("/")[0], clip.fold) for clip in catalog.clips}
    assert len(folds_of_folder) == 15


def test_what_is_a_recording_can_be_decided(tmp_path: Path) -> None:
    for label in LABELS:
        for shard in range(2):
            for number in range(5):
                wav(tmp_path / label / f"part{shard}" / f"{label}{shard}{number}x.wav")
    text = message(tmp_path)
    assert "2 sources cannot make 5 folds" in text
    assert "--sources files" in text
    assert len(set(load_catalog(tmp_path, ReadOptions(sources="files")).sources.tolist())) == 30
    assert len(set(load_catalog(tmp_path, ReadOptions(sources="names")).sources.tolist())) == 30


def test_hidden_files_links_and_other_kinds(tmp_path: Path, capsys: Capture) -> None:
    data = layouts.class_folders(tmp_path / "data")
    (data / "bark" / "._bark0x-0.wav").write_bytes(b"\0\5\x16\7")
    wav(data / "bark" / ".ipynb_checkpoints" / "bark0x-0-checkpoint.wav")
    wav(data / "__MACOSX" / "bark" / "x.wav")
    (data / "bark" / "notes.txt").write_text("x")
    for number in range(6):
        wav(tmp_path / "store" / f"linked{number}x.wav")
    (data / "rain" / "day1").symlink_to(tmp_path / "store")
    (data / "rain" / "circle").symlink_to(data)
    for ending, kind in (("au", "AU"), ("caf", "CAF"), ("w64", "W64"), ("aifc", "AIFF"), ("oga", "OGG")):
        wav(data / "siren" / f"{ending}x.{ending}", format=kind)
    catalog = load_catalog(data)
    names = Counter(catalog.class_name(clip) for clip in catalog.clips)
    assert names == {"bark": 12, "rain": 18, "siren": 17}
    said = capsys.readouterr().err
    assert "1 file of other kinds (.txt 1)" in said
    assert "3 hidden" in said
    build_cache(catalog, SHORT)


def test_dead_links_and_pointers_are_named_and_can_be_skipped(tmp_path: Path, capsys: Capture) -> None:
    data = layouts.class_folders(tmp_path)
    (data / "bark" / "gone.wav").symlink_to("/nowhere/.git/annex/objects/x.wav")
    (data / "rain" / "pointer.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (data / "siren" / "annex.wav").write_text("/annex/objects/SHA256E-s1--0.wav\n")
    (data / "siren" / "empty.wav").write_bytes(b"")
    text = message(data)
    for wanted in ("git annex get", "git lfs pull", "pointer of git-annex", "is empty", "--skip-bad"):
        assert wanted in text, wanted
    catalog = load_catalog(data, ReadOptions(skip_bad=True))
    assert len(catalog.clips) == 36
    assert len(catalog.skipped) == 4
    with pytest.raises(DataError, match="git lfs pull"):
        decode(data / "rain" / "pointer.wav", 8000)
    with pytest.raises(DataError, match="git annex get"):
        decode(data / "bark" / "gone.wav", 8000)


@pytest.mark.parametrize("rare", [1, 3])
def test_rare_classes_can_be_left_out_or_always_trained_on(tmp_path: Path, rare: int, capsys: Capture) -> None:
    data = layouts.class_folders(tmp_path)
    for piece in range(rare):  # one clip, or one recording
        wav(data / "wolf" / "rec1" / f"{piece}.wav")
    text = message(data)
    assert f"({rare} clip" in text
    assert "--rare-classes drop" in text
    dropped = load_catalog(data, ReadOptions(rare_classes="drop"))
    assert dropped.class_names == LABELS
    assert len(dropped.clips) == 36
    trained = load_catalog(data, ReadOptions(rare_classes="train"))
    assert trained.class_names == (*LABELS, "wolf")
    assert trained.fold_numbers == (1, 2, 3, 4, 5)
    assert main(["data", "info", str(data), "--rare-classes", "train"]) == 0
    assert "always trained" in capsys.readouterr().out


def test_silence_is_no_evidence_of_a_copy(tmp_path: Path, capsys: Capture) -> None:
    data = layouts.class_folders(tmp_path / "data")
    for number in range(8):
        wav(data / "_silence_" / f"s{number}x.wav", wave=np.zeros(1600 + 10 * number))
        wav(data / "hum" / f"h{number}x.wav", wave=np.full(1600, 0.25))
    _, catalog = build_cache(load_catalog(data), SHORT, cache_dir=tmp_path / "cache")
    assert len(catalog.clips) == 52
    assert "16 clips are digital silence" in capsys.readouterr().err


def test_parquet_is_decoded_from_memory_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = layouts.parquet(tmp_path / "p", n_shards=3)
    catalog = load_catalog(data)
    assert [clip.clip_id for clip in catalog.clips] == [row["filename"] for row in layouts.esc50_rows()]
    cache, _ = build_cache(catalog, SHORT, cache_dir=tmp_path / "cache")
    for place, clip in enumerate(catalog.clips):
        wave = layouts.sound(clip.clip_id)
        np.testing.assert_allclose(cache.waveforms[place] / 32768, wave[:1600], atol=2e-4)
        np.testing.assert_array_equal(decode(clip.path, 8000), decode(clip.path, 8000))
    monkeypatch.setattr("esc_ensemble.data.decoding.FEW_CLIPS", 1)
    again, _ = build_cache(catalog, SHORT, cache_dir=tmp_path / "parallel", n_workers=2)
    np.testing.assert_array_equal(cache.waveforms, again.waveforms)
    assert locate_clips(data, ["1-100-B-0.wav"])["1-100-B-0.wav"].parent.suffix == ".parquet"
    shard = next((data / "data").iterdir())
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    assert "Parquet" in message(data)


def test_parquet_with_class_labels_of_hugging_face(tmp_path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet as pq  # noqa: PLC0415

    for split, n in (("train", 4), ("test", 2)):
        clips = [f"{split}{number}.wav" for number in range(2 * n)]
        audio = [{"bytes": layouts.encoded(Path(clip)), "path": clip} for clip in clips]
        features = {"label": {"names": ["rain", "bark"], "_type": "ClassLabel"}, "audio": {"_type": "Audio"}}
        table = pa.table({"audio": audio, "label": [number % 2 for number in range(2 * n)]})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    catalog = load_catalog(tmp_path)
    assert catalog.class_names == ("bark", "rain")
    assert all(catalog.class_name(clip) == ("rain", "bark")[int(clip.clip_id[-5]) % 2] for clip in catalog.clips)
    assert catalog.fold_names == {1: "train", 3: "test"}
    assert {clip.clip_id for clip in catalog.clips if clip.fold == 3} == {f"test{n}.wav" for n in range(4)}


def test_a_data_set_of_the_hub_is_read_from_its_cache_without_a_network(
    no_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="hf:someone/none cannot be fetched"):
        load_catalog(Path("hf:someone/none"))
    with pytest.raises(DataError, match="write it as hf:ashraq/esc50"):
        load_catalog(Path("hf:none"))
    stored = no_network / "hub" / "datasets--someone--esc50"
    layouts.parquet(stored / "snapshots" / "0123abc")
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("0123abc")
    catalog = load_catalog(Path("hf:someone/esc50"))
    assert len(catalog.clips) == 30
    assert catalog.name == "esc50"


def test_discovery_prefers_tables_and_passes_test_clips_over(tmp_path: Path) -> None:
    esc = layouts.official_esc50(tmp_path / "esc")
    table = layouts.competition_table(tmp_path / "comp" / "data") / "train.csv"
    test = wav(tmp_path / "comp" / "test" / "7.wav")
    write_table(tmp_path / "comp" / "sample_submission.csv", [{"id": "7.wav", "label": "bark"}])
    (tmp_path / "comp" / "notes.csv").write_text("id,text\n1,x\n")
    classes = layouts.class_folders(tmp_path / "classes")
    recordings = layouts.recording_folders(tmp_path / "recordings")
    found = find_datasets([tmp_path], [test])
    assert found[:3] == [esc, table.parent, table]
    assert found.index(classes) < len(found)
    assert found.index(recordings) < found.index(recordings / "bark")
    assert tmp_path / "comp" not in found
    assert find_datasets([tmp_path], [test], "classes") == [classes]


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_a_table_finds_audio_of_another_folder(tmp_path: Path, ending: str) -> None:
    """As in a competition whose table and audio are attached as two data sets."""
    rows = [
        {"id": f"{label}-{n}", "fold": 1 + n % 2, "target": n // 4, "label": label}
        for label in LABELS
        for n in range(4)
    ]
    for row in rows:
        wav(tmp_path / "audio" / "train" / f"{row['id']}.{ending}")
        wav(tmp_path / "audio" / "test" / f"{row['id']}.{ending}", "test", row["id"])
    gone = [
        *rows,
        {"id": "gone", "fold": 1, "target": 0, "label": "bark"},
        {"id": "bark-0x", "fold": 1, "target": 0, "label": ""},
    ]
    for row in gone:
        row["target"] = LABELS.index(str(row["label"])) if row["label"] else 0
    table = write_table(tmp_path / "table" / "train.csv", gone)
    test = frozenset((tmp_path / "audio" / "test").iterdir())
    catalog = load_catalog(table, ReadOptions(skip_bad=True, search=(tmp_path,), leave_out=test))
    assert [clip.clip_id for clip in catalog.clips] == [row["id"] for row in rows]
    assert {clip.path.parent.name for clip in catalog.clips} == {"train"}
    assert len(catalog.skipped) == 2


def test_repeated_rows_are_left_out_by_the_flag(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"filename": f"{label}{n}x.wav", "class": label, "fold": 1 + n % 2} for label in LABELS for n in range(4)
    ]
    for row in rows:
        wav(tmp_path / str(row["filename"]))
    contradiction = {"filename": "rain0x.wav", "class": "siren", "fold": 1}
    write_table(tmp_path / "t.csv", [*rows, rows[0], rows[0], contradiction])
    text = message(tmp_path)
    assert 'clip "bark0x.wav" is listed 3 times' in text
    catalog = load_catalog(tmp_path, ReadOptions(skip_bad=True))
    assert len(catalog.clips) == 11
    assert "rain0x.wav" not in catalog.clip_ids
    assert len(catalog.skipped) == 3


# --- what a hostile user tried


MARKS = (
    *("{r}_{n}", "{r}-{n:03d}", "{r}_part{n}", "{r}_chunk{n:03d}", "{r} ({n})", "{r}.{n}", "{r} {n}", "{r}_{n}s"),
    *("{r}_{n}.0_{n}.5", "{r}_{n}0_{n}9", "{r}-00-1{n}", "{r}_aug{n}", "{n:03d}_{r}", "{r}_seg{n}_{n}0_{n}5"),
    *("{r}_start{n}_end{n}5", "{r}_{n}_3_5", "{r}_{n}of3", "{r}_{l}", "{r}_ch{n}", "{r}_mic{n}", "{r} copy {n}"),
    *(
        "{r}[{n}]",
        "{r}#{n}",
        "{r}~{n}",
        "{r}@{n}-9",
        "{r},{n}",
        "{r}+{n}s",
        "{r}-00m{n}0s",
        "{r}_2_{n}6k",
        "aug{n}_{r}",
    ),
    *("{r}_{n}.9x", "{r}_{w}", "{r}_part_{w}", "{r} - {w}"),
)


@pytest.mark.parametrize("mark", MARKS)
def test_pieces_are_known_by_the_marks_in_their_names(tmp_path: Path, mark: str) -> None:
    for label in LABELS:
        for recording in range(6):
            for piece, (letter, word) in enumerate(zip("LRC", ("One", "Two", "Copy"), strict=True)):
                cut = {"n": piece, "l": letter, "w": word}
                wav(tmp_path / label / f"{mark.format(r=f'{label}rec{recording}x', **cut)}.wav")
    folds: dict[str, set[int]] = {}
    for clip in load_catalog(tmp_path).clips:
        folds.setdefault(re.findall(r"[a-z]+rec\dx", clip.clip_id)[-1], set()).add(clip.fold)
    assert len(folds) == 18
    assert all(len(found) == 1 for found in folds.values()), mark


@pytest.mark.parametrize("how", ["named", "bare", "other folder names", "parquet"])
def test_recordings_are_folders_for_tables_too(tmp_path: Path, how: str) -> None:
    rows: list[dict[str, object]] = []
    for label in LABELS:
        for recording in range(6):
            for piece in range(3):
                folder = f"{'c_' * (how == 'other folder names')}{label}/" * (how != "bare") + f"{label[0]}r{recording}"
                name = f"{label[0]}r{recording}x{piece}p.wav"
                path = tmp_path / "clips" / folder / name
                wav(path)
                rows.append({"filename": name if how == "bare" else f"clips/{folder}/{name}", "label": label.upper()})
    if how == "parquet":
        import pyarrow as pa  # noqa: PLC0415
        from pyarrow import parquet as pq  # noqa: PLC0415

        paths = [f"/x/{row['filename']}" for row in rows]
        audio = [{"bytes": layouts.encoded(Path(path)), "path": path} for path in paths]
        pq.write_table(pa.table({"audio": audio, "label": [row["label"] for row in rows]}), tmp_path / "t.parquet")
    else:
        write_table(tmp_path / "t.csv", rows)
    catalog = load_catalog(tmp_path / ("t.parquet" if how == "parquet" else "t.csv"), ReadOptions(n_folds=5))
    assert len(set(catalog.sources.tolist())) == 18
    assert len(set(zip(catalog.sources.tolist(), catalog.folds.tolist(), strict=True))) == 18


def test_marks_of_pieces_in_published_folds_are_a_suspicion_or_recordings(tmp_path: Path, capsys: Capture) -> None:
    for label in LABELS:
        for recording in range(4):
            for piece in range(2):
                wav(tmp_path / "apart" / f"fold{1 + recording % 2}" / label / f"{label}r{recording}_{piece}.wav")
                wav(tmp_path / "across" / f"fold{1 + piece}" / label / f"{label}r{recording}_{piece}.wav")
    assert len(set(load_catalog(tmp_path / "apart").sources.tolist())) == 12
    assert "suggest" not in capsys.readouterr().err
    across = load_catalog(tmp_path / "across")
    assert not across.shared_recordings  # a guess takes no clip out of training
    assert '12 recordings with clips in several folds, such as "barkr0"' in capsys.readouterr().err


def test_a_clip_in_another_folder_is_another_clip(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    for part in ("train", "test"):
        for label in LABELS:
            for number in range(4):
                wav(tmp_path / part / label / f"{number:03d}.wav")
                rows += [{"filename": f"{part}/{label}/{number:03d}.wav", "class": label, "split": part}]
    write_table(tmp_path / "t.csv", rows)
    (tmp_path / "train" / "rain" / "003.wav").unlink()
    assert "train/rain/003.wav does not exist" in message(tmp_path)


@pytest.mark.parametrize(
    ("tops", "inner", "named"),
    [
        (("16000", "44100"), LABELS, "copies"),
        (("wavs", "wavs_16k"), LABELS, "copies"),
        (("16000", "bark", "rain"), (), "copies"),
        (("16000",), LABELS, "such as"),
        (("audio", "extra"), LABELS, "copies"),
        *(((f"{name}1", f"{name}2", f"{name}3"), LABELS, "--folders folds") for name in ("", "cv", "part_", "Session")),
        (("fold_a", "fold_b"), LABELS, "--folders folds"),
        (("indoor", "outdoor"), LABELS, "one of them alone"),
        (("train-clean", "dev-clean", "test-other"), LABELS, "--folders splits"),
        (("train_16k", "test_16k"), LABELS, "--folders splits"),
        (("train", "test_private", "test_public"), LABELS, "--folders splits"),
        (("fold1", "fold2"), ("train", "test"), "give one of these"),
    ],
)
def test_folders_that_are_no_classes_are_refused(
    tmp_path: Path, tops: tuple[str, ...], inner: tuple[str, ...], named: str
) -> None:
    for top in tops:
        for folder in inner or ("",):
            for number in range(6):
                wav(tmp_path / top / folder / f"{number}{top}x.wav")
    text = message(tmp_path)
    assert named in text
    assert "--folders" in text


@pytest.mark.parametrize("names", [("training_set", "test_set"), ("train_audio", "val_audio"), ("Training", "Eval")])
def test_parts_of_a_split_have_many_names(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        for label in LABELS:
            for number in range(3):
                wav(tmp_path / name / label / f"{number}{name}x.wav")
    catalog = load_catalog(tmp_path)
    assert catalog.class_names == LABELS
    assert next(iter(catalog.fold_names.values())) == "train"


def test_numbered_folders_can_be_folds(tmp_path: Path) -> None:
    for fold in "123":
        for label in LABELS:
            for number in range(2):
                wav(tmp_path / fold / label / f"{label}{fold}{number}x.wav")
    catalog = load_catalog(tmp_path, ReadOptions(folders="folds"))
    assert (catalog.class_names, catalog.fold_numbers) == (LABELS, (1, 2, 3))


@pytest.mark.parametrize(
    ("told", "tops", "folds"),
    [
        ("folds", ("cv3", "cv5", "cv10"), (3, 5, 10)),
        ("folds", ("fold_a", "fold_b"), (1, 2)),
        ("folds", ("fold2", "fold5", "extra"), (2, 5, 6)),
        ("splits", ("train-clean", "train-other", "test-clean"), (1, 3)),
        ("splits", ("train_16k", "holdout_16k"), (1, 3)),
    ],
)
def test_folders_of_any_name_are_what_the_flag_says(
    tmp_path: Path, told: Any, tops: tuple[str, ...], folds: tuple[int, ...], capsys: Capture
) -> None:
    for top in tops:
        for label in LABELS:
            for number in range(3):
                wav(tmp_path / top / label / f"{label}{top}{number}x.wav")
    catalog = load_catalog(tmp_path, ReadOptions(folders=told))
    assert (catalog.class_names, catalog.fold_numbers) == (LABELS, folds)
    if told == "folds":
        said = capsys.readouterr().err
        assert all(f"{fold} is {top}" in said for fold, top in zip(folds, tops, strict=True))
    else:
        assert "cv1 in" in message_of_odd_part(tmp_path)


def message_of_odd_part(folder: Path) -> str:
    wav(folder / "cv1" / LABELS[0] / "0x.wav")
    return message(folder, folders="splits")


@pytest.mark.parametrize("around", ["genres", "archive/Data", "audio/genres"])
def test_a_folder_around_the_classes_is_named(tmp_path: Path, around: str) -> None:
    layouts.class_folders(tmp_path / around)
    assert f"{tmp_path / around} are the classes" in message(tmp_path)
    official_root = layouts.official_esc50(tmp_path / "x" / "archive" / "ESC-50-master")
    assert f"is not a dataset, but {official_root} is" in message(tmp_path / "x")


def test_a_copy_of_the_data_set_inside_it_is_no_class(tmp_path: Path) -> None:
    layouts.class_folders(tmp_path)
    layouts.class_folders(tmp_path / "all of it")
    assert f"{tmp_path / 'all of it'} holds folders called like the classes beside it" in message(tmp_path)


@pytest.mark.parametrize(("names", "noted"), [(("Actor_01", "Actor_02"), True), (("01", "02"), True), ("01", False)])
def test_folders_that_differ_in_a_number_are_noted(
    tmp_path: Path, names: Sequence[str], noted: bool, capsys: Capture
) -> None:
    for name in names:
        for number in range(6):
            wav(tmp_path / name / f"{number}{name}x.wav")
    load_catalog(tmp_path)
    assert ("if these are speakers or recordings" in capsys.readouterr().err) == noted


def test_tables_of_parts_and_in_folders_of_their_own(tmp_path: Path) -> None:
    for part in ("train", "test"):
        rows = []
        for label in LABELS:
            for number in range(4):
                wav(tmp_path / "parts" / part / f"{label}{number}{part}x.wav")
                rows.append({"file": f"{part}/{label}{number}{part}x.wav", "label": label})
        write_table(tmp_path / "parts" / f"{part}.csv", rows)
    assert load_catalog(tmp_path / "parts").fold_names == {1: "train", 3: "test"}
    layouts.class_folders(tmp_path / "apart")
    named = [{"path": f"../{path.relative_to(tmp_path / 'apart')}", "label": path.parent.name, "fold": n % 3}
             for n, path in enumerate(sorted((tmp_path / "apart").rglob("*.wav")))]  # fmt: skip
    write_table(tmp_path / "apart" / "Annotations" / "labels.csv", named)
    assert load_catalog(tmp_path / "apart").fold_numbers == (0, 1, 2)
    (tmp_path / "above").mkdir()
    (tmp_path / "parts").rename(tmp_path / "above" / "parts")
    assert f"{tmp_path / 'above' / 'parts'} is. Give that folder" in message(tmp_path / "above")


def test_dead_folders_empty_ones_and_pipes(tmp_path: Path, capsys: Capture) -> None:
    data = layouts.class_folders(tmp_path)
    os.mkfifo(data / "bark" / "pipe.wav")
    (data / "self").symlink_to(data)
    (data / "scripts").mkdir()
    (data / "scripts" / "make.py").write_text("")
    assert load_catalog(data).class_names == LABELS
    assert "1 that are no files" in capsys.readouterr().err
    (data / "sea").symlink_to("/nowhere/sea")
    (data / "wolf").mkdir()
    text = message(data)
    assert "sea is a link to /nowhere/sea" in text
    assert 'class folder "wolf" holds no audio' in text
    assert load_catalog(data, ReadOptions(skip_bad=True)).class_names == LABELS


def test_names_that_are_no_text_are_named_and_left_out(tmp_path: Path) -> None:
    data = layouts.class_folders(tmp_path)
    wav(tmp_path / "x.wav").rename(Path(os.fsdecode(os.fsencode(data / "bark") + b"/\xff\xfe.wav")))
    assert "cannot be printed" in message(data)
    assert len(load_catalog(data, ReadOptions(skip_bad=True)).clips) == 36


@pytest.mark.parametrize("stored", ["/x/{label}/000.wav", "audio.wav", None])
def test_audio_in_parquet_gets_names_of_its_own(tmp_path: Path, stored: str | None) -> None:
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet as pq  # noqa: PLC0415

    labels = [label for label in LABELS for _ in range(2)]
    audio = [
        {"bytes": layouts.encoded(Path(f"{number}")), "path": stored and stored.format(label=label + str(number))}
        for number, label in enumerate(labels)
    ]
    columns = {"picture": [b"png"] * 6, "audio": audio, "label": labels, "fold": [0, 1] * 3}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    wav(tmp_path / "loose.wav")
    catalog = load_catalog(tmp_path)
    assert len(set(catalog.clip_ids.tolist())) == 6
    np.testing.assert_allclose(decode(catalog.clips[5].path, 8000), layouts.sound("5"), atol=2e-4)


def test_a_kernel_finds_parquet_beside_test_clips(tmp_path: Path) -> None:
    layouts.parquet(tmp_path / "input" / "comp")  # comp/data/*.parquet, comp/test/0.wav
    assert len(kernel_catalog(tmp_path).clips) == 30


def test_unlabelled_test_rows_and_columns_of_splits(tmp_path: Path, capsys: Capture) -> None:
    rows: list[dict[str, object]] = []
    for part, n in (("train", 4), ("val", 2), ("test", 2)):
        for label in LABELS:
            for number in range(n):
                wav(tmp_path / f"{label}{number}{part}x.wav")
                named = "" if part == "test" else label
                rows.append({"filename": f"{label}{number}{part}x.wav", "label": named, "subset": part})
    write_table(tmp_path / "t.csv", rows)
    catalog = load_catalog(tmp_path)
    assert catalog.fold_names == {1: "train", 2: "validation"}
    said = capsys.readouterr().err
    assert "6 clips of the test part without a class: left out" in said
    assert 'column "subset" is read as a split' in said

"""Published folds are taken as they are, and recordings that two folds share leak into no score."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from esc_ensemble.__main__ import main
from esc_ensemble.baseline.run import fit_run
from esc_ensemble.config import BaselineConfig, DataConfig
from esc_ensemble.data.audits import describe_shared
from esc_ensemble.data.cache import build_cache
from esc_ensemble.data.catalog import Catalog, load_catalog
from esc_ensemble.data.clips import ALWAYS_TRAINED
from esc_ensemble.data.rows import ReadOptions
from esc_ensemble.data.splits import describe_protocol, folds_to_test, split_fold
from esc_ensemble.errors import ConfigError, DataError
from esc_ensemble.settings import build
from tests.data import layouts
from tests.data.layouts import LABELS, wav, write_table

# As the official tables have them: recording -> folds.
ESC50_SHARED: dict[str, tuple[int, ...]] = {"131943": (2, 3), "134049": (2, 3), "209698": (4, 5), "234879": (4, 5)}
URBANSOUND_SHARED: dict[str, tuple[int, ...]] = {
    "106905": (1, 8),
    "132016": (1, 4),
    "176638": (1, 4),
    "180937": (1, 9),
    "77751": (2, 7),
}
ONE_SHIFT = {"shift_seconds": [0.0]}
TINY = build(
    BaselineConfig,
    {**ONE_SHIFT, "data": {"sample_rate": 8000, "clip_seconds": 0.2}, "frontend": {"n_fft": 512}},
    "tiny baseline",
)


def stand_in(table: Path, into: Path, place: str) -> Path:
    """An official table with empty stand-ins for its audio, which reading a catalog does not decode."""
    target = into / place.split("/", maxsplit=1)[0] / table.name
    target.parent.mkdir(parents=True)
    shutil.copyfile(table, target)
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            clip = into / (
                f"audio/fold{row['fold']}/{row['slice_file_name']}" if "fsID" in row else f"audio/{row['filename']}"
            )
            clip.parent.mkdir(parents=True, exist_ok=True)
            clip.write_bytes(b"x")
    return into


@pytest.fixture(scope="module")
def tables_dir() -> Path:
    folder = os.environ.get("ESC_TABLES_DIR")
    if not folder:
        pytest.skip("ESC_TABLES_DIR is not set: it names a folder with the official esc50.csv and UrbanSound8K.csv")
    return Path(folder)


@pytest.fixture(scope="module", params=["esc50", "urbansound8k"])
def official(
    request: pytest.FixtureRequest, tables_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, tuple[int, ...]], int, int]]:
    into = tmp_path_factory.mktemp(request.param)
    if request.param == "esc50":
        yield stand_in(tables_dir / "esc50.csv", into, "meta/"), ESC50_SHARED, 2000, 9
    else:
        yield stand_in(tables_dir / "UrbanSound8K.csv", into, "metadata/"), URBANSOUND_SHARED, 8732, 152
    shutil.rmtree(into)


Official = tuple[Path, dict[str, tuple[int, ...]], int, int]


def shared_names(catalog: Catalog) -> dict[str, tuple[int, ...]]:
    first = {number: clip.source for number, clip in zip(catalog.recordings.tolist(), catalog.clips, strict=True)}
    return {first[number]: folds for number, folds in catalog.shared_recordings.items()}


def test_official_tables_are_read_whole_and_what_folds_share_is_named(
    official: Official, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, shared, n_clips, n_shared = official
    start = time.monotonic()
    assert main(["data", "info", str(folder)]) == 0
    assert time.monotonic() - start < 30  # a second or two; a guard against costs that grow with the square
    printed = capsys.readouterr().out
    assert f"{n_clips} clips" in printed
    assert f"{len(shared)} recordings with {n_shared} clips in several folds" in printed
    assert all(f"\n{name}: fold {folds[0]} (" in printed for name, folds in shared.items())
    assert shared_names(load_catalog(folder)) == shared


def test_shared_clips_are_in_no_training_of_the_fold_that_tests_their_partner(official: Official) -> None:
    folder, _, n_clips, n_shared = official
    catalog = load_catalog(folder)
    left_out: list[int] = []
    for fold in catalog.fold_numbers:
        split = split_fold(catalog, fold, DataConfig(), 0)
        assert not np.isin(catalog.sources[split.train], catalog.sources[split.test]).any()
        assert len(split.train) + len(split.left_out) + len(split.test) == n_clips
        left_out += split.left_out.tolist()
        keep = split_fold(catalog, fold, DataConfig(shared_recordings="keep"), 0)
        assert len(keep.train) == n_clips - len(keep.test)  # the protocol of the literature
        for data in (
            DataConfig(selection_fraction=0.15),
            DataConfig(selection_fraction=0.15, shared_recordings="keep"),
        ):
            selected = split_fold(catalog, fold, data, 0)
            others = selected.test if data.shared_recordings == "keep" else np.append(selected.test, selected.train)
            assert not np.isin(catalog.sources[selected.selection], catalog.sources[others]).any()
    assert len(left_out) == len(set(left_out)) == n_shared  # each is left out of one training, and only of that


def test_every_fold_of_a_fixed_split_is_clean(official: Official) -> None:
    catalog = load_catalog(official[0])
    last, before = catalog.fold_numbers[-1], catalog.fold_numbers[-2]
    data = DataConfig(selection_fold=before)
    split = split_fold(catalog, last, data, 0)
    assert set(catalog.folds[split.selection].tolist()) == {before}
    assert set(catalog.folds[split.train].tolist()) == set(catalog.fold_numbers) - {before, last}
    parts = [set(catalog.sources[part].tolist()) for part in (split.train, split.selection, split.test)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert folds_to_test(catalog, data, (last,)) == (last,)
    assert before not in folds_to_test(catalog, data)
    assert describe_protocol(catalog, data, "").startswith(f"selection on fold {before}")
    with pytest.raises(DataError, match="held out as test"):
        split_fold(catalog, before, data, 0)


def page_texts_of(blend: Path) -> dict[str, object]:
    from esc_ensemble.report import evidence, recordings, texts  # noqa: PLC0415 - takes a while to load

    found = evidence.load(blend)
    return texts.page_texts(found, recordings.Recordings({}), recordings.FileFacts())


def test_the_rule_is_in_manifest_metrics_and_folds_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = layouts.official_esc50(tmp_path / "set")
    catalog = load_catalog(data)
    metrics = fit_run(tmp_path / "runs" / "clean", TINY, catalog)
    assert metrics["protocol"] == "settings fixed beforehand; recordings shared by folds left out of training"
    assert capsys.readouterr().err.count("777: fold 2 (1), fold 3 (1)") == 1
    manifest = json.loads((tmp_path / "runs" / "clean" / "manifest.json").read_text())
    assert manifest["shared_recordings"] == {
        "rule": "leave-out",
        "folds": {"777": [2, 3]},
        "left_out_of_training": {"2": ["3-777-A-10.wav"], "3": ["2-777-A-0.wav"]},
    }
    keep = build(
        BaselineConfig, {**TINY.model_dump(), "data": {**TINY.data.model_dump(), "shared_recordings": "keep"}}, ""
    )
    kept = fit_run(tmp_path / "runs" / "kept", keep, catalog)
    assert kept["protocol"].endswith("recordings shared by folds trained on")
    folders = ["--runs", str(tmp_path / "runs"), "--submissions", str(tmp_path / "submissions")]
    assert main(["blend", "clean", "kept", *folders, "--out", "mix", "--method", "uniform", "--bootstrap", "20"]) == 0
    assert "left out of training by clean; trained on by kept" in capsys.readouterr().out
    assert "left out of training by clean" in str(page_texts_of(tmp_path / "submissions" / "mix"))
    with pytest.raises(ConfigError, match="shared_recordings"):
        fit_run(tmp_path / "runs" / "clean", keep, catalog)
    assert main(["data", "folds", str(data), "--out", str(tmp_path / "folds.csv")]) == 0
    with (tmp_path / "folds.csv").open(encoding="utf-8", newline="") as file:
        others = {row["clip_id"]: row["not_in_training_of"] for row in csv.DictReader(file)}
    others = {clip_id: folds for clip_id, folds in others.items() if folds}
    assert others == {"2-777-A-0.wav": "3", "3-777-A-10.wav": "2"}


def test_the_same_audio_in_two_published_folds_is_one_recording(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"filename": f"{label}{number}x.wav", "category": label, "fold": 1 + number % 3}
        for label in LABELS
        for number in range(6)
    ]
    for row in rows:
        name = "bark0x.wav" if row["filename"] == "bark1x.wav" else row["filename"]  # folds 1 and 2
        wav(tmp_path / "audio" / str(row["filename"]), name)
    write_table(tmp_path / "clips.csv", rows)
    short = DataConfig(sample_rate=8000, clip_seconds=0.2)
    _, catalog = build_cache(load_catalog(tmp_path), short, cache_dir=tmp_path / "cache")
    assert list(catalog.shared_recordings.values()) == [(1, 2)]
    assert catalog.clip_ids[split_fold(catalog, 1, short, 0).left_out].tolist() == ["bark1x.wav"]
    assert catalog.clip_ids[split_fold(catalog, 3, short, 0).left_out].tolist() == []


def test_classes_that_only_shared_recordings_teach_name_the_way_on(tmp_path: Path) -> None:
    rows = [
        {
            "filename": f"{label}{fold}.wav",
            "class": label,
            "fold": fold,
            "source": "one" if label == "owl" else f"{label}{fold}",
        }
        for label in ("owl", "frog", "toad")
        for fold in (1, 2)
    ]
    for row in rows:
        wav(tmp_path / str(row["filename"]))
    write_table(tmp_path / "t.csv", rows)
    catalog = load_catalog(tmp_path)
    with pytest.raises(DataError, match=r'(?s)class "owl" has no clip outside fold 1.*--data\.shared-recordings keep'):
        split_fold(catalog, 1, DataConfig(), 0)
    told = describe_shared(catalog, "leave-out")[-1]
    assert 'class "owl" then has no clip to train on while fold 1, fold 2 is held out' in told
    assert "--rare-classes drop" in told
    assert not any("no clip to train on" in line for line in describe_shared(catalog, "keep"))
    assert split_fold(catalog, 1, DataConfig(shared_recordings="keep"), 0).train.tolist() == [1, 3, 5]
    assert load_catalog(tmp_path, ReadOptions(rare_classes="drop")).class_names == ("frog", "toad")
    trained = load_catalog(tmp_path, ReadOptions(rare_classes="train"))
    assert trained.class_names == ("frog", "owl", "toad")
    assert [clip.fold for clip in trained.clips if clip.source == "one"] == [ALWAYS_TRAINED] * 2


def test_a_rare_class_is_in_every_training_and_in_no_test(tmp_path: Path) -> None:
    data = layouts.class_folders(tmp_path / "set")
    wav(data / "wolf" / "den" / "0.wav")
    wav(data / "wolf" / "den" / "1.wav")
    catalog = load_catalog(data, ReadOptions(rare_classes="train"))
    wolves = np.flatnonzero(catalog.folds == ALWAYS_TRAINED)
    assert len(wolves) == 2
    for fold in catalog.test_folds:
        split = split_fold(catalog, fold, DataConfig(selection_fraction=0.2), 0)
        assert np.isin(wolves, split.train).all()
    metrics = fit_run(tmp_path / "run", TINY, catalog)
    assert np.isfinite([scores["log_loss"] for scores in metrics["folds"].values()]).all()


def test_random_labels_on_pieces_of_recordings_score_at_chance(tmp_path: Path) -> None:
    """Recordings of random tones whose class is drawn: whoever tells recordings again would score far above 1/3."""
    rng = np.random.default_rng(3)
    time_axis = np.arange(4000) / 8000
    for label in LABELS:
        for number in range(10):
            f, g, level = rng.uniform(150, 3500), rng.uniform(150, 3500), rng.uniform(0.01, 0.2)
            for piece in range(8):
                tones = 0.3 * np.sin(2 * np.pi * f * time_axis + rng.uniform(0, 6)) + 0.2 * np.sin(
                    2 * np.pi * g * time_axis
                )
                wave = tones + level * rng.standard_normal(4000)
                wav(tmp_path / "set" / label / f"rec{number:02d}" / f"{piece:05d}.wav", wave=wave)
    config = build(BaselineConfig, {**ONE_SHIFT, "data": {"sample_rate": 8000, "clip_seconds": 0.5}}, "half a second")
    clean = fit_run(tmp_path / "clean", config, load_catalog(tmp_path / "set"))
    assert clean["mean"]["top1"] < 0.45
    leaking = fit_run(tmp_path / "leaking", config, load_catalog(tmp_path / "set", ReadOptions(sources="files")))
    assert leaking["mean"]["top1"] > 0.7  # what the folders are worth


def test_twenty_thousand_rows_are_read_in_seconds(tmp_path: Path) -> None:
    rows = [
        {
            "filename": f"{number:05d}.wav",
            "fold": 1 + number % 5,
            "category": f"class {number // 5 % 50}",
            "source": number // 7,
        }
        for number in range(20_000)
    ]
    (tmp_path / "audio").mkdir()
    for row in rows:
        (tmp_path / "audio" / str(row["filename"])).write_bytes(b"x")
    write_table(tmp_path / "clips.csv", rows)
    start = time.process_time()
    catalog = load_catalog(tmp_path)
    assert len(catalog.clips) == 20_000
    assert (
        time.process_time() - start < 20
    )  # benchmarks say how fast; this guards against costs that grow with the square

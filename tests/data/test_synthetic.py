from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.neighbors import KNeighborsClassifier

from esc_ensemble.data import synthetic
from esc_ensemble.data.audio import prepare
from esc_ensemble.data.catalog import Catalog, load_catalog
from esc_ensemble.data.rows import ReadOptions
from esc_ensemble.data.synthetic import MARKER, make_synthetic
from esc_ensemble.errors import ConfigError, DataError


def band_levels(catalog: Catalog) -> np.ndarray:
    """Mean and spread over time of the log energy in 16 bands up to 4 kHz, (N, 32)."""
    rows = []
    for clip in catalog.clips:
        frames = prepare(clip.path, 8000, 40000, "tile", 60.0).reshape(-1, 400)
        power = np.abs(np.fft.rfft(frames * np.hanning(400))) ** 2
        bands = np.log(np.stack([part.sum(axis=1) for part in np.array_split(power, 16, axis=1)], axis=1) + 1e-6)
        rows.append(np.concatenate([bands.mean(axis=0) - bands.mean(), bands.std(axis=0)]))
    return np.stack(rows)


def test_set_is_untidy_on_purpose(synthetic_dir: Path) -> None:
    infos = [soundfile.info(path) for path in (synthetic_dir / "audio").iterdir()]
    assert {info.format for info in infos} == {"WAV", "FLAC", "OGG"}
    assert {"PCM_16", "PCM_24", "FLOAT", "VORBIS"} <= {info.subtype for info in infos}
    assert {info.channels for info in infos} == {1, 2}
    assert min(info.samplerate for info in infos) == 8000
    assert max(info.samplerate for info in infos) == 48000
    lengths = [info.frames / info.samplerate for info in infos]
    assert min(lengths) < 2.0
    assert max(lengths) > 5.0
    assert any("PCM_16" in info.subtype and info.format == "WAV" for info in infos)


def test_several_clips_come_from_one_source(synthetic_dir: Path) -> None:
    catalog = load_catalog(synthetic_dir, ReadOptions(esc10=True))
    sources, counts = np.unique(catalog.sources, return_counts=True)
    assert len(sources) == 50
    assert (counts == 2).all()


def test_classes_can_be_learned_but_not_read_off(synthetic_dir: Path) -> None:
    catalog = load_catalog(synthetic_dir)
    features, labels, folds = band_levels(catalog), catalog.labels, catalog.folds
    hits = []
    for fold in catalog.fold_numbers:
        test = folds == fold
        model = KNeighborsClassifier(3).fit(features[~test], labels[~test])
        hits.append(model.score(features[test], labels[test]))
    assert 0.4 < np.mean(hits) < 0.98  # chance is 0.1


def test_same_seed_same_samples(tmp_path: Path) -> None:
    first = make_synthetic(tmp_path / "a", clips_per_class=2, n_folds=2, seed=3)
    second = make_synthetic(tmp_path / "b", clips_per_class=2, n_folds=2, seed=3)
    other = make_synthetic(tmp_path / "c", clips_per_class=2, n_folds=2, seed=4)
    assert load_catalog(first).fingerprint == load_catalog(second).fingerprint
    assert load_catalog(first).fingerprint != load_catalog(other).fingerprint
    for path in (first / "audio").iterdir():
        expected, _ = soundfile.read(path)
        found, _ = soundfile.read(second / "audio" / path.name)
        np.testing.assert_array_equal(found, expected)


def test_a_set_that_is_there_is_left_or_replaced(tmp_path: Path) -> None:
    out = tmp_path / "set"
    out.mkdir()
    make_synthetic(out, clips_per_class=2, n_folds=2)
    before = (out / MARKER).stat().st_mtime_ns
    make_synthetic(out, clips_per_class=2, n_folds=2)
    assert (out / MARKER).stat().st_mtime_ns == before
    make_synthetic(out, clips_per_class=3, n_folds=3)
    assert len(load_catalog(out).clips) == 30
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_stranger_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="not a synthetic set"):
        make_synthetic(tmp_path)
    with pytest.raises(DataError, match="is a file"):
        make_synthetic(tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "_csv_text", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_synthetic(tmp_path / "set", clips_per_class=2, n_folds=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("numbers", [{"clips_per_class": 4}, {"n_folds": 1}, {"seed": -1}])
def test_numbers_that_cannot_work(tmp_path: Path, numbers: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="cannot be made"):
        make_synthetic(tmp_path / "set", **numbers)  # type: ignore[arg-type]

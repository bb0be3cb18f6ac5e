from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from esc_ensemble.config import DataConfig
from esc_ensemble.data import cache as cache_module
from esc_ensemble.data.audio import Recipe, prepare
from esc_ensemble.data.cache import WaveformCache, build_cache, default_cache_dir
from esc_ensemble.data.catalog import Catalog, load_catalog
from esc_ensemble.data.decoding import FEW_CLIPS, decode_all, to_int16
from esc_ensemble.errors import DataError, WorkError

SHORT = DataConfig(clip_seconds=0.5, sample_rate=8000)


def small_set(folder: Path, n_clips: int = 8, **sounds: np.ndarray) -> Catalog:
    """Clips 0.wav, 1.wav ... of 0.5 s at 8 kHz: classes alternate, the first half is fold 1."""
    rng = np.random.default_rng(0)
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    lines = ["filename,fold,category,src_file"]
    for index in range(n_clips):
        wave = sounds.get(f"clip{index}", rng.integers(-9000, 9000, size=4000).astype(np.int16))
        subtype = "PCM_16" if wave.dtype == np.int16 else "FLOAT"
        soundfile.write(folder / "audio" / f"{index}.wav", wave, 8000, subtype=subtype)
        lines.append(f"{index}.wav,{1 + 2 * index // n_clips},{'ab'[index % 2]},{index}")
    (folder / "t.csv").write_text("\n".join(lines))
    return load_catalog(folder)


def cached_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("waveforms-*.npy"))


def count_builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    builds: list[int] = []
    real = cache_module._build

    def counted(*args: object, **options: object) -> object:
        builds.append(1)
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(cache_module, "_build", counted)
    return builds


def test_cache_holds_the_files_own_16_bit_samples(tmp_path: Path) -> None:
    catalog = small_set(tmp_path / "set")
    cache, same = build_cache(catalog, DataConfig(clip_seconds=0.5, sample_rate=8000, trim_db=0.0))
    assert same == catalog
    assert cache.waveforms.shape == (8, 4000)
    assert isinstance(cache.waveforms, np.memmap)
    assert not cache.waveforms.flags.writeable
    for index, clip in enumerate(catalog.clips):
        expected, _ = soundfile.read(clip.path, dtype="int16")
        np.testing.assert_array_equal(cache.waveforms[index], expected)
    batch = cache.batch(np.array([5, 0, 5]))
    assert batch.dtype == np.int16
    assert batch.flags.writeable
    np.testing.assert_array_equal(batch, cache.waveforms[[5, 0, 5]])


def test_cache_is_prepare_in_16_bits(synthetic_dir: Path) -> None:
    catalog = load_catalog(synthetic_dir)
    cache, _ = build_cache(catalog, DataConfig())
    for index in range(0, 100, 20):
        expected = prepare(catalog.clips[index].path, 32000, 160000, "tile", 60.0)
        np.testing.assert_allclose(cache.waveforms[index] / 32768, expected, atol=1 / 32768)


def test_worker_processes_give_the_same(synthetic_dir: Path) -> None:
    paths = [clip.path for clip in load_catalog(synthetic_dir).clips] * 2
    recipe = Recipe(8000, 8000, "tile", 60.0)
    assert list(decode_all(paths, recipe, 2)) == list(decode_all(paths, recipe, 1))


def test_cache_is_used_again_and_known_by_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = count_builds(monkeypatch)
    catalog = small_set(tmp_path / "set")
    for _ in range(2):
        build_cache(catalog, SHORT, cache_dir=tmp_path / "c")
    assert len(builds) == 1
    for change in ({"sample_rate": 4000}, {"clip_seconds": 0.25}, {"fit": "pad"}, {"trim_db": 30.0}):
        build_cache(catalog, SHORT.model_copy(update=change), cache_dir=tmp_path / "c")
    assert len(builds) == 5
    soundfile.write(catalog.clips[0].path, np.full(4000, 0.25), 8000)
    cache, _ = build_cache(catalog, SHORT, cache_dir=tmp_path / "c")
    assert len(builds) == 6
    assert (cache.waveforms[0] == 8192).all()


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "shape", "dtype", "no json", "bad json", "json list"])
def test_a_damaged_cache_is_built_again(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = small_set(tmp_path / "set")
    good = np.array(build_cache(catalog, SHORT, cache_dir=tmp_path / "c")[0].waveforms)
    (path,) = cached_files(tmp_path / "c")
    content = path.read_bytes()
    described = path.with_suffix(".json")
    if damage in ("cut", "empty", "text"):
        path.unlink()
        path.write_bytes({"cut": content[:-1000], "empty": b"", "text": b"hello"}[damage])
    elif damage in ("shape", "dtype"):
        path.unlink()
        np.save(path, good[1:] if damage == "shape" else good.astype(np.float32))
    elif damage == "no json":
        described.unlink()
    else:
        described.write_text("{" if damage == "bad json" else "[]")
    again, _ = build_cache(catalog, SHORT, cache_dir=tmp_path / "c")
    np.testing.assert_array_equal(again.waveforms, good)
    assert ("damaged" in capsys.readouterr().err) == (damage != "no json")
    assert path.read_bytes() == content


def test_bad_clips_are_told_together_or_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = count_builds(monkeypatch)
    catalog = small_set(tmp_path / "set", n_clips=12, clip3=np.full(4000, np.nan))
    catalog.clips[7].path.write_text("not audio")
    with pytest.raises(DataError) as caught:
        build_cache(catalog, SHORT, cache_dir=tmp_path / "c")
    assert "3.wav" in str(caught.value)
    assert "7.wav" in str(caught.value)
    assert "--skip-bad" in str(caught.value)
    assert not cached_files(tmp_path / "c")
    expected = [index for index in range(12) if index not in (3, 7)]
    for _ in range(2):
        cache, rest = build_cache(catalog, SHORT, cache_dir=tmp_path / "c", skip_bad=True)
        assert [int(name.removesuffix(".wav")) for name in rest.clip_ids] == expected
        assert len(rest.skipped) == 2
        assert "7.wav" in rest.skipped[1]
        for row, clip in enumerate(rest.clips):
            wave, _ = soundfile.read(clip.path, dtype="int16")
            np.testing.assert_array_equal(cache.waveforms[row], wave)
    assert len(builds) == 2
    with pytest.raises(DataError, match=r"7\.wav"):
        build_cache(catalog, SHORT, cache_dir=tmp_path / "c")


def test_skipping_must_leave_a_set_that_can_be_trained(tmp_path: Path) -> None:
    catalog = small_set(tmp_path / "set", n_clips=4)
    catalog.clips[3].path.write_text("not audio")
    with pytest.raises(DataError, match='class "b" is in fold 1 alone'):
        build_cache(catalog, SHORT, skip_bad=True)
    for clip in catalog.clips:
        clip.path.write_text("not audio")
    with pytest.raises(DataError, match="None of the 4 clips"):
        build_cache(catalog, SHORT, skip_bad=True)


def test_same_audio_in_two_folds_is_a_problem(tmp_path: Path) -> None:
    wave = np.random.default_rng(5).integers(-99, 99, size=4000).astype(np.int16)
    catalog = replace(small_set(tmp_path / "set", n_clips=16, clip2=wave, clip12=wave), published=False)
    for _ in range(2):  # told from the cache as well
        with pytest.raises(DataError, match=r"2\.wav \(a, fold 1\) = 12\.wav \(a, fold 2\)"):
            build_cache(catalog, SHORT, cache_dir=tmp_path / "c")
    cache, rest = build_cache(catalog, SHORT, cache_dir=tmp_path / "c", skip_bad=True)
    assert len(rest.clips) == len(cache.waveforms) == 15
    assert "12.wav" not in rest.clip_ids
    assert len(rest.skipped) == 1


def test_same_audio_in_two_classes_is_a_problem(tmp_path: Path) -> None:
    wave = np.random.default_rng(5).integers(-99, 99, size=4000).astype(np.int16)
    catalog = small_set(tmp_path / "set", n_clips=16, clip2=wave, clip3=wave)
    with pytest.raises(DataError, match=r"2\.wav \(a, fold 1\) = 3\.wav \(b, fold 1\)"):
        build_cache(catalog, SHORT)
    _, rest = build_cache(catalog, SHORT, skip_bad=True)
    assert not {"2.wav", "3.wav"} & set(rest.clip_ids.tolist())


def test_same_audio_in_one_fold_and_class_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wave = np.random.default_rng(5).integers(-99, 99, size=4000).astype(np.int16)
    catalog = small_set(tmp_path / "set", n_clips=16, clip2=wave, clip4=wave)
    _, rest = build_cache(catalog, SHORT)
    assert len(rest.clips) == 16
    assert "Same audio twice, kept: 2.wav (a, fold 1) = 4.wav (a, fold 1)." in capsys.readouterr().err


def test_no_space_is_told_before_and_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = small_set(tmp_path / "set")
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
        with pytest.raises(WorkError, match="ESC_ENSEMBLE_CACHE"):
            build_cache(catalog, SHORT, cache_dir=tmp_path / "c")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkError, match="No space left"):
        build_cache(catalog, SHORT, cache_dir=tmp_path / "c")
    assert not [path for path in (tmp_path / "c").iterdir() if path.suffix != ".lock"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match="ESC_ENSEMBLE_CACHE"):
        build_cache(small_set(tmp_path / "set"), SHORT, cache_dir=tmp_path / "file" / "c")


def test_two_processes_at_once(tmp_path: Path) -> None:
    catalog = small_set(tmp_path / "set", n_clips=40)
    code = (
        "import sys; from pathlib import Path; from esc_ensemble.config import DataConfig\n"
        "from esc_ensemble.data.catalog import load_catalog\n"
        "from esc_ensemble.data.cache import build_cache\n"
        "catalog, data = load_catalog(Path(sys.argv[1])), DataConfig(clip_seconds=0.5, sample_rate=8000)\n"
        "cache, _ = build_cache(catalog, data, cache_dir=Path(sys.argv[2]))\n"
        "print(int(abs(cache.waveforms.astype(int)).sum()))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "set"), str(tmp_path / "c")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = [process.communicate(timeout=60)[0].strip() for process in processes]
    cache, _ = build_cache(catalog, SHORT, cache_dir=tmp_path / "c")
    assert sums == [str(int(np.abs(cache.waveforms.astype(int)).sum()))] * 2
    assert len(cached_files(tmp_path / "c")) == 1


def test_a_script_without_a_main_guard_ends_with_the_fix(tmp_path: Path) -> None:
    catalog = small_set(tmp_path / "set", n_clips=FEW_CLIPS)
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path; from esc_ensemble.config import DataConfig\n"
        "from esc_ensemble.data.catalog import load_catalog\n"
        "from esc_ensemble.data.cache import build_cache\n"
        f"build_cache(load_catalog(Path({str(catalog.root)!r})), DataConfig(), cache_dir=Path({str(tmp_path)!r}), "
        "n_workers=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert 'needs `if __name__ == "__main__":` around its work' in done.stderr


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    catalog = small_set(tmp_path / "set")
    build_cache(catalog, SHORT, cache_dir=tmp_path / "c")
    (path,) = cached_files(tmp_path / "c")
    path.unlink()
    leftover = path.with_name(f".{path.stem}-abc.part.npy")
    leftover.write_bytes(b"half")
    build_cache(catalog, SHORT, cache_dir=tmp_path / "c")
    assert path.is_file()
    assert not leftover.exists()


def test_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ESC_ENSEMBLE_CACHE", str(tmp_path / "own"))
    assert default_cache_dir() == tmp_path / "own"
    monkeypatch.delenv("ESC_ENSEMBLE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "esc_ensemble"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache" / "esc_ensemble"


def test_16_bits_round_and_saturate() -> None:
    wave = np.array([-1.0, -0.5, 0.0, 1 / 32768, 0.9 / 32768, 1.0], dtype=np.float32)
    assert to_int16(wave).tolist() == [-32768, -16384, 0, 1, 1, 32767]


def test_real_esc10_is_clean(esc10_dir: Path) -> None:
    catalog = load_catalog(esc10_dir)
    cache, same = build_cache(catalog, DataConfig())
    assert isinstance(cache, WaveformCache)
    assert cache.waveforms.shape == (400, 160000)
    assert same.skipped == ()
    assert len(same.clips) == 400
    (path,) = (file for file in cached_files(default_cache_dir()) if np.load(file, mmap_mode="r").shape[0] == 400)
    assert len(set(json.loads(path.with_suffix(".json").read_text())["digests"])) == 400


def test_sets_alike_in_all_but_sound_and_place_share_no_cache(tmp_path: Path) -> None:
    quiet, loud = np.full(4000, 900, dtype=np.int16), np.full(4000, 9000, dtype=np.int16)
    catalogs = [small_set(tmp_path / name, clip0=wave) for name, wave in (("first", quiet), ("second", loud))]
    for clip in (clip for catalog in catalogs for clip in catalog.clips):
        os.utime(clip.path, (0, 0))
    first, second = (build_cache(catalog, SHORT, cache_dir=tmp_path / "cache")[0] for catalog in catalogs)
    assert int(first.waveforms[0].max()) == 900
    assert int(second.waveforms[0].max()) == 9000

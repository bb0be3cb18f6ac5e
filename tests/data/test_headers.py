from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from esc_ensemble.__main__ import main
from esc_ensemble.data.audio import Header
from esc_ensemble.data.catalog import load_catalog
from esc_ensemble.data.headers import read_headers
from tests.data import layouts


def test_headers_hold_what_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    forms = [("WAV", 8000, 1, 0.5), ("FLAC", 44100, 2, 0.25), ("OGG", 22050, 1, 1.0), ("MP3", 32000, 2, 2.0)]
    paths = []
    for kind, rate, n_channels, seconds in forms:
        paths.append(tmp_path / f"{rate}.{kind.lower()}")
        soundfile.write(paths[-1], 0.1 * rng.standard_normal((round(rate * seconds), n_channels)), rate, format=kind)
    headers = read_headers(paths)
    assert headers.found == tuple(Header(seconds, rate, n_channels) for _, rate, n_channels, seconds in forms)
    assert headers.unreadable == ()


def test_files_that_cannot_be_opened_are_counted_and_five_are_named(tmp_path: Path) -> None:
    paths = [layouts.wav(tmp_path / "good.wav")]
    for number in range(7):
        paths.append(tmp_path / f"bad{number}.wav")
        paths[-1].write_bytes(b"nothing")
    headers = read_headers(paths)
    lines = headers.lines()
    assert len(headers.found) == 1 and len(headers.unreadable) == 7
    assert lines[0].startswith("Durations: 0.2 to 0.2 s, median 0.2 s")
    assert lines[3] == "7 files cannot be opened:"
    assert [f"bad{number}.wav" in line for number, line in enumerate(lines[4:9])] == [True] * 5
    assert lines[9:] == ["  and 2 more"]
    assert read_headers(paths[1:2]).to_json()["seconds"]["min"] is None


def test_rows_of_parquet_files_have_headers_too(tmp_path: Path) -> None:
    catalog = load_catalog(layouts.parquet(tmp_path / "p", n_shards=3))
    paths = [clip.path for clip in catalog.clips]
    headers = read_headers([*paths, paths[0].parent / "999"])
    assert len(headers.found) == len(paths) and {header.sample_rate for header in headers.found} == {layouts.RATE}
    assert "has no row 999" in headers.unreadable[0]


def test_data_info_tells_durations_rates_and_channels(synthetic_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", str(synthetic_dir), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    infos = [soundfile.info(path) for path in (synthetic_dir / "audio").iterdir()]
    assert described["sample_rates"] == Counter(str(info.samplerate) for info in infos)
    assert described["channels"] == Counter(str(info.channels) for info in infos)
    assert described["seconds"]["total"] == pytest.approx(sum(info.duration for info in infos))
    assert main(["data", "info", str(synthetic_dir)]) == 0
    assert "\nDurations: " in capsys.readouterr().out

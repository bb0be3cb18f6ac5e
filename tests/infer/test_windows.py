from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.data import audio
from esc_ensemble.data.audio import decode, stream
from esc_ensemble.errors import DataError
from esc_ensemble.infer.windows import count_windows, cut


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(st.integers(0, 60), min_size=1, max_size=8).filter(any),
    n_window=st.integers(1, 40),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.99]),
)
def test_windows_cover_a_recording_whatever_pieces_it_comes_in(
    pieces: list[int], n_window: int, overlap: float
) -> None:
    whole = np.arange(sum(pieces), dtype=np.float32)
    found = list(cut(np.split(whole, np.cumsum(pieces)[:-1]), n_window, overlap))
    hop = max(1, round(n_window * (1 - overlap)))
    starts = [start for start, _ in found]
    assert starts[:-1] == [n * hop for n in range(len(found) - 1)]
    for start, window in found:
        np.testing.assert_array_equal(window, whole[start : start + n_window])
    if len(whole) >= n_window:
        assert all(len(window) == n_window for _, window in found)
    assert starts[-1] + len(found[-1][1]) == len(whole)  # the end is heard
    assert len(starts) == len(set(starts)) == count_windows(len(whole), n_window, overlap)
    covered = set().union(*(range(start, start + len(window)) for start, window in found))
    assert covered == set(range(len(whole)))


@pytest.mark.parametrize(
    ("n_samples", "overlap", "starts"),
    [(10, 0.0, [0]), (11, 0.0, [0, 1]), (25, 0.0, [0, 10, 15]), (25, 0.5, [0, 5, 10, 15]), (3, 0.5, [0])],
)
def test_windows_of_ten_samples(n_samples: int, overlap: float, starts: list[int]) -> None:
    found = list(cut([np.zeros(n_samples, dtype=np.float32)], 10, overlap))
    assert [start for start, _ in found] == starts
    assert count_windows(n_samples, 10, overlap) == len(starts)
    assert {len(window) for _, window in found} == {min(10, n_samples)}


@pytest.mark.parametrize("file_rate", [8000, 22050, 44100, 48000])
def test_a_stream_is_what_decoding_at_once_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_rate: int
) -> None:
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 10000)
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.3 * np.random.default_rng(0).standard_normal((3 * file_rate, 2)), file_rate)
    pieces = list(stream(path, 16000))
    assert len(pieces) > 3
    np.testing.assert_allclose(np.concatenate(pieces), decode(path, 16000), atol=1e-6)


def test_a_stream_of_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(48000), 48000)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match="truncated"):
        list(stream(path, 16000))

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.infer.windows import count_windows, cut


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=6),
    st.integers(1, 200),
    st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.99]),
)
@settings(max_examples=200, deadline=None)
def test_windows_do_not_depend_on_the_pieces(lengths: list[int], n_window: int, overlap: float) -> None:
    whole = np.arange(sum(lengths), dtype=np.float32)
    pieces = np.split(whole, np.cumsum(lengths)[:-1])
    expected = list(cut([whole], n_window, overlap))
    found = list(cut(pieces, n_window, overlap))
    assert [start for start, _ in found] == [start for start, _ in expected]
    for start, window in found:
        np.testing.assert_array_equal(window, whole[start : start + n_window])
    assert len(found) == count_windows(len(whole), n_window, overlap)
    assert found[-1][0] + n_window >= len(whole), "the recording is heard to its end"


@pytest.mark.parametrize(
    ("n_samples", "overlap", "starts"),
    [(10, 0.0, [0]), (11, 0.0, [0, 1]), (25, 0.0, [0, 10, 15]), (25, 0.5, [0, 5, 10, 15]), (3, 0.5, [0])],
)
def test_windows_of_ten_samples(n_samples: int, overlap: float, starts: list[int]) -> None:
    found = list(cut([np.zeros(n_samples, dtype=np.float32)], 10, overlap))
    assert [start for start, _ in found] == starts
    assert count_windows(n_samples, 10, overlap) == len(starts)
    assert {len(window) for _, window in found} == {min(10, n_samples)}

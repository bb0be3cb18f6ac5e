"""Audio files as people meet them, decoded by the package, the service and the Kaggle kernel."""

from __future__ import annotations

import decoding
import kinds
import numpy as np
from kinds import edits


def test_each_kind_is_decoded_in_full_or_refused_with_a_reason() -> None:
    library = kinds.kinds()
    assert len(library) > 180
    rows = decoding.compare(library, lazily=True)
    failing = [row for row in rows if row.broken]
    assert not failing, "\n".join(["", *decoding.table(failing), f"{len(failing)} of {len(rows)} kinds"])


def test_a_decoder_that_loses_fills_up_or_repeats_is_noticed() -> None:
    whole = edits.signal(decoding.RATE).astype(np.float32)
    n, middle = decoding.RATE // 10, len(whole) // 2
    assert decoding.likeness(whole, edits.SECONDS, 1) > 0.999
    assert decoding.silence(whole, edits.SECONDS) < 0.001
    kept, zeros = whole[:-n], np.zeros(n, dtype=np.float32)
    gap = np.concatenate([whole[:middle], zeros, whole[middle + n :]])
    parts = ([kept], [kept, zeros], [kept, whole[:n]], [whole[:middle], whole[middle + n :]], [gap])
    for wrong in parts:
        assert decoding.likeness(np.concatenate(wrong), edits.SECONDS, 1) < decoding.LEAST_LIKENESS
    assert decoding.silence(gap, edits.SECONDS) > 0.09

"""Audio files as people meet them, decoded by the package, the service and the Kaggle kernel."""

from __future__ import annotations

import decoding
import kinds


def test_each_kind_is_decoded_in_full_or_refused_with_a_reason() -> None:
    library = kinds.kinds()
    assert len(library) > 180
    rows = decoding.compare(library, lazily=True)
    failing = [row for row in rows if row.broken]
    assert not failing, "\n".join(["", *decoding.table(failing), f"{len(failing)} of {len(rows)} kinds"])


def test_a_decoder_that_fills_up_with_zeros_or_repeats_samples_is_noticed() -> None:
    kind = next(kind for kind in kinds.kinds() if kind.name == "wav PCM_16.wav")
    whole = decoding.signal(decoding.RATE).astype("float32")
    n = decoding.RATE // 10
    assert decoding.likeness(whole, kind.ends_at, 1) > 0.999
    for wrong in (
        whole[:-n],
        [*whole[:-n], *[0.0] * n],
        [*whole[:-n], *whole[:n]],
        [*whole[:9000], *whole[9000 + n :]],
    ):
        assert decoding.likeness(decoding.np.asarray(wrong, dtype="float32"), kind.ends_at, 1) < decoding.LEAST_LIKENESS
    assert decoding.silence(whole, kind.ends_at) < 0.001
    whole[9000 : 9000 + n] = 0.0
    assert decoding.silence(whole, kind.ends_at) > 0.09

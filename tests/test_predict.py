from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from esc_ensemble.predict import predict_logits, shift_samples, shift_waveform, to_waveform

CPU = torch.device("cpu")
CLIPS = np.random.default_rng(0).integers(-32768, 32768, size=(7, 50)).astype(np.int16)


class Edges(nn.Module):
    """Logits that tell which samples stand first and last; noisy in training."""

    def forward(self, waveform: Tensor) -> Tensor:
        logits = torch.stack([waveform[:, 0], waveform[:, -1]], dim=1)
        return logits + torch.randn_like(logits) if self.training else logits


def predict(index: list[int], shifts: tuple[float, ...] = (0.0,), batch_size: int = 3) -> np.ndarray:
    return predict_logits(
        Edges().train(),
        lambda chosen: CLIPS[chosen],
        np.array(index, dtype=np.int64),
        shifts,
        sample_rate=10,
        n_classes=2,
        device=CPU,
        batch_size=batch_size,
    )


def test_int16_becomes_float_between_minus_1_and_1() -> None:
    samples = np.array([[-32768, -1, 0, 1, 32767]], dtype=np.int16)
    found = to_waveform(samples, CPU)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), samples / np.float32(32768))


def test_a_positive_shift_is_later_and_shifts_are_cyclic() -> None:
    waves = torch.arange(10.0)[None]
    found = shift_waveform(waves, (-0.2, 0.0, 0.3), 10)
    assert found.shape == (3, 1, 10)
    for row, n_samples in zip(found[:, 0].numpy(), (-2, 0, 3), strict=True):
        np.testing.assert_array_equal(row, np.roll(np.arange(10), n_samples))


def test_a_window_is_the_middle_of_the_shifted_clip() -> None:
    waves = torch.arange(10.0)[None]
    found = shift_waveform(waves, (-0.2, 0.0, 0.3), 10, window_seconds=0.4)
    assert found[:, 0].tolist() == [[5, 6, 7, 8], [3, 4, 5, 6], [0, 1, 2, 3]]


class Small(Edges):
    """Has no room for more than three waveforms at a time."""

    def forward(self, waveform: Tensor) -> Tensor:
        if len(waveform) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().forward(waveform)


def test_a_batch_that_does_not_fit_is_taken_in_smaller_ones() -> None:
    how: dict[str, Any] = {"sample_rate": 10, "n_classes": 2, "device": CPU, "batch_size": 7}
    index = np.arange(7)
    found = predict_logits(Small(), lambda chosen: CLIPS[chosen], index, (0.0,), **how)
    np.testing.assert_array_equal(found, predict(list(index)))
    with pytest.raises(torch.OutOfMemoryError):  # one clip at four shifts
        predict_logits(Small(), lambda chosen: CLIPS[chosen], index, (-0.1, 0.0, 0.1, 0.2), **how)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_logits_stand_by_shift_then_clip_whatever_the_batch_size(batch_size: int) -> None:
    index, shifts = [4, 0, 6, 2, 1], (-0.5, 0.0, 1.2)
    found = predict(index, shifts, batch_size)
    assert found.shape == (3, 5, 2)
    assert found.dtype == np.float32
    for place, n_samples in enumerate((-5, 0, 12)):
        rolled = np.roll(CLIPS[index] / 32768, n_samples, axis=1)
        np.testing.assert_allclose(found[place], rolled[:, [0, -1]], atol=1e-7)


def test_no_clip_gives_an_empty_array_of_the_right_shape() -> None:
    assert predict([], (0.0, 0.1)).shape == (2, 0, 2)


def test_the_model_is_put_into_eval_mode() -> None:
    assert np.array_equal(predict([1, 2]), predict([1, 2]))


class FirstSamples(nn.Module):
    """Says the first two samples of what it hears."""

    def forward(self, waveform: Tensor) -> Tensor:
        return waveform[:, :2]


@pytest.mark.parametrize("mode", ["cyclic", "zero"])
@pytest.mark.parametrize("shift", [0, 2, -2, 5, -5, 7, -7])
def test_shifts_by_hand(mode: Any, shift: int) -> None:
    waveform = np.arange(1.0, 6.0, dtype=np.float32)[None]  # (1, 5)
    wanted = np.roll(waveform, shift)
    if mode == "zero":
        padded = np.concatenate([np.zeros(7), waveform[0], np.zeros(7)])
        wanted = padded[None, 7 - shift : 12 - shift]
    np.testing.assert_array_equal(shift_samples(torch.from_numpy(waveform), shift, mode).numpy(), wanted)


def test_zero_padded_shifts_are_what_the_model_hears() -> None:
    clips = (1000 * np.random.default_rng(0).standard_normal((2, 80))).astype(np.int16)
    found = predict_logits(
        FirstSamples(), lambda index: clips[index], np.arange(2), (-0.5, 0.0, 0.5),
        sample_rate=80, n_classes=2, device=CPU, shift_mode="zero",
    )  # fmt: skip
    np.testing.assert_allclose(found[1], clips[:, :2] / 32768.0)
    np.testing.assert_allclose(found[0], clips[:, 40:42] / 32768.0)
    np.testing.assert_array_equal(found[2], 0.0)

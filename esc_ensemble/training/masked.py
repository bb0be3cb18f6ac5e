"""One step of pretraining without labels, for the loop that trains all networks."""

from __future__ import annotations

import torch
from torch import Tensor

from esc_ensemble.augment.waveform import augment_waveform, random_window
from esc_ensemble.config import MaskingConfig, WaveformAugmentConfig
from esc_ensemble.models.masked import MaskedWav2Vec2, draw_hidden, draw_negatives
from esc_ensemble.training.step import Step


class MaskedStep(Step):
    """Waveforms (B, T) to the loss of guessing hidden frames; targets and kinds of mixes have no part in it.

    The "right" ones are as many clips as frames were found, in parts of all that were hidden.
    """

    model: MaskedWav2Vec2

    def __init__(
        self, model: MaskedWav2Vec2, augment: WaveformAugmentConfig, masking: MaskingConfig, *, n_window: int = 0
    ) -> None:
        super().__init__()
        self.model = model
        self.augment = augment
        self.masking = masking
        self.n_window = n_window

    def start_epoch(self, epoch: int, n_epochs: int) -> None:
        first, last = self.masking.temperatures
        part = epoch / max(n_epochs - 1, 1)
        self.model.network.set_gumbel_temperature(first * (last / first) ** part)

    def forward(self, inputs: Tensor, targets: Tensor, kind: str) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        waveform = random_window(augment_waveform(inputs, self.augment, self.model.sample_rate), self.n_window)
        hidden = draw_hidden(len(waveform), self.model.n_frames(waveform.shape[1]), self.masking)
        negatives = draw_negatives(hidden, self.masking)
        output = self.model(waveform, hidden.to(waveform.device), negatives.to(waveform.device))
        loss = output.contrast + self.masking.diversity * output.diversity
        return loss, torch.as_tensor(output.top1.detach() * len(waveform))

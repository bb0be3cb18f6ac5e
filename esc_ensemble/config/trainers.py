"""Everything that each trainer can be told, with its own defaults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from esc_ensemble.config.augment import AugmentConfig, MixConfig
from esc_ensemble.config.data import DataConfig
from esc_ensemble.config.frontend import FrontendConfig
from esc_ensemble.config.kinds import OnMachine, Positive, Probability, Share, ShiftMode, shift_conflicts
from esc_ensemble.config.models import BackboneConfig, BcResNetConfig, SpecCnnConfig, fits_bc_resnet
from esc_ensemble.config.training import TrainConfig
from esc_ensemble.settings import Settings

NEEDS_SELECTION = (
    "train.patience and plateau need a selection split: set data.selection_fraction, say 0.15, or data.selection_fold."
)


class TrainerConfig(Settings):
    """What the commands that train have in common."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Start of all random numbers; the same seed on the same machine gives the same logits."""
    init: Annotated[str, OnMachine] = ""
    """Run of `esc-ens pretrain` whose weights to begin with; fresh ones where empty, or for model B its source's."""
    shift_seconds: tuple[float, ...] = (-0.25, -0.1, 0.0, 0.1, 0.25)
    """Time shifts stored for test-time augmentation, 0 among them; with data.window_seconds each is a crop."""
    shift_mode: ShiftMode = "cyclic"
    """What a shift does with what it moves over the end: bring it in at the other (cyclic), or leave silence (zero)."""
    data: DataConfig = DataConfig()
    """Clips to waveforms."""
    frontend: Settings
    """Waveforms to features."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes in training."""
    mix: MixConfig = MixConfig()
    """Mixing of clips in training."""
    train: TrainConfig = TrainConfig()
    """The training."""
    model: Settings
    """The network."""

    @property
    def model_name(self) -> str:
        """The model's name in the registry."""
        return str(self.model.name)  # type: ignore[attr-defined]

    @property
    def needs_selection(self) -> bool:
        """Whether the training looks at a selection part, which data with a named split bring along."""
        return bool(self.train.patience) or self.train.schedule == "plateau"

    def conflicts(self) -> Iterator[str]:
        yield from shift_conflicts(self.shift_seconds)
        longest = max(map(abs, self.shift_seconds), default=0.0)
        if self.shift_mode == "zero" and not self.data.window_seconds and longest >= self.data.clip_seconds:
            yield (
                f"shift_seconds {longest:g} with shift_mode zero leaves nothing but silence of a clip of "
                f"data.clip_seconds {self.data.clip_seconds:g}: use shorter shifts"
            )
        if self.train.swa and self.train.patience:
            yield "train.swa averages the last epochs, which train.patience may never let come: set one of them to 0"


class SpectrogramTrainerConfig(TrainerConfig):
    """What trainers have in common whose networks see spectrograms."""

    frontend: FrontendConfig = FrontendConfig()

    @property
    def n_frames(self) -> int:
        """Number of frames L that the front end makes of what is heard at once."""
        return 1 + (self.data.n_heard - self.frontend.n_fft) // self.frontend.hop

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.frontend.f_max > self.data.sample_rate / 2:
            yield f"frontend.f_max {self.frontend.f_max} is above half of sample_rate {self.data.sample_rate}"
        if conflict := self.data.length_conflict(self.least_samples, self.length_purpose):
            yield conflict

    @property
    def least_samples(self) -> int:
        """Number of samples of the shortest clip or window that the network can work with."""
        return self.frontend.n_fft

    @property
    def length_purpose(self) -> str:
        """What that many are needed for."""
        return f"one frame of frontend.n_fft {self.frontend.n_fft}"


class AMixConfig(MixConfig):
    """Mixing for model A: hard, which its long training can fit (benchmarks/RESULTS.md)."""

    mixup: Probability = 0.5
    between_class: Probability = 0.5


class ATrainConfig(TrainConfig):
    """The training of model A: hard mixing underfits in 60 epochs (benchmarks/RESULTS.md)."""

    epochs: Positive = 180
    ema_decay: Share = 0.995


class TrainAConfig(SpectrogramTrainerConfig):
    """Everything that `esc-ens train-a` can be told."""

    mix: AMixConfig = AMixConfig()
    """Mixing of clips in training."""
    train: ATrainConfig = ATrainConfig()
    """The training."""
    model: SpecCnnConfig = SpecCnnConfig()
    """The network."""

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.frontend.n_mels < self._least_side:
            yield (
                f"model.widths {self.model.widths} halves {self.frontend.n_mels} bands to nothing: name fewer stages, "
                f"or set frontend.n_mels to {self._least_side} or more"
            )

    @property
    def _least_side(self) -> int:
        """Bands and frames that leave something: each of the reference network's stages halves them, rounding down."""
        return 2 ** len(self.model.widths) if self.model.name == "spec_cnn_reference" else 1

    @property
    def least_samples(self) -> int:
        return self.frontend.n_fft + (self._least_side - 1) * self.frontend.hop

    @property
    def length_purpose(self) -> str:
        if self._least_side == 1:
            return super().length_purpose
        return (
            f"model.widths {self.model.widths}, which halves frames to nothing (fewer stages or a shorter frontend.hop "
            "help too)"
        )


class AProFrontendConfig(FrontendConfig):
    """The front end of model A Pro, whose sub-spectral norm cannot cut 64 bands into 5 groups."""

    n_mels: Positive = 40


class AProTrainConfig(TrainConfig):
    """The training of model A Pro: depthwise convolutions are faster on contiguous maps on a CPU."""

    epochs: Positive = 80
    ema_decay: Share = 0.995
    channels_last: bool = False


class TrainAProConfig(SpectrogramTrainerConfig):
    """Everything that `esc-ens train-a-pro` can be told."""

    frontend: AProFrontendConfig = AProFrontendConfig()
    """Waveforms to features."""
    train: AProTrainConfig = AProTrainConfig()
    """The training."""
    model: BcResNetConfig = BcResNetConfig()
    """The network."""

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        n_mels, groups = self.frontend.n_mels, self.model.subbands
        if not fits_bc_resnet(n_mels, groups):
            span = range(max(1, n_mels - 16 * groups), max(n_mels, 40) + 16 * groups)
            near = sorted(span, key=lambda bands: (abs(bands - n_mels), bands))
            can = [bands for bands in near if fits_bc_resnet(bands, groups)][:4]
            ways = [n for n in range(2, 9) if fits_bc_resnet(n_mels, n)]
            other = f"; with {n_mels} bands, model.subbands {' or '.join(map(str, ways))} fits" if ways else ""
            yield (
                f"frontend.n_mels {n_mels} cannot be cut into model.subbands {groups} after every stride: "
                f"take {', '.join(map(str, sorted(can)))} bands{other}"
            )


class BDataConfig(DataConfig):
    """Clips for model B, at the rate that speech networks hear."""

    sample_rate: Annotated[int, Field(ge=4000, le=192000)] = 16000


class BackboneTrainConfig(TrainConfig):
    """The training of model B: the head fast, the network below it slowly."""

    epochs: Positive = 20
    batch_size: Positive = 8
    accumulation: Positive = 2
    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-3
    """Peak learning rate of pooling and head; sgd wants one of about 0.1."""
    backbone_rate: Annotated[float, Field(ge=0.0)] = 1e-4
    """Peak learning rate of the last block."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Each block's rate as a part of that of the block above it."""
    thaw_epochs: Annotated[int, Field(ge=0)] = 0
    """Gradual unfreezing: epochs before the last block is trained, as many before the one below it, and so on."""
    channels_last: Annotated[bool, OnMachine] = False


class BMixConfig(MixConfig):
    """Mixing for model B, gentle as fine-tuning wants it."""

    mixup: Probability = 0.5


class BFrontendConfig(Settings):
    """The part of model B that is never trained, its trunk: it can be computed beforehand."""

    views: Annotated[int, Field(ge=0)] = 4
    """Versions of each clip that training hears: itself and augmented ones. 0 augments anew at every step."""
    cache: Annotated[bool, OnMachine] = True
    """Keep the trunk's output for all views on disk, in half precision: an epoch then costs the upper blocks alone."""


class TrainBConfig(TrainerConfig):
    """Everything that `esc-ens train-b` can be told."""

    shift_seconds: tuple[float, ...] = (-0.2, -0.1, 0.0, 0.1, 0.2)
    data: BDataConfig = BDataConfig()
    """Clips to waveforms."""
    mix: BMixConfig = BMixConfig()
    """Mixing of clips in training."""
    frontend: BFrontendConfig = BFrontendConfig()
    """The part of the network that is never trained."""
    train: BackboneTrainConfig = BackboneTrainConfig()
    """The training."""
    model: BackboneConfig = BackboneConfig()
    """The network."""

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.frontend.views and self.data.window_seconds:
            yield "frontend.views are of whole clips: set it to 0 to train on windows (data.window_seconds)"
        if self.frontend.views and (self.mix.between_class or self.mix.energy_mixup):
            yield (
                "mix.between_class and mix.energy_mixup mix waveforms, which frontend.views are no longer: "
                "set frontend.views to 0, or use mix.mixup"
            )
        if self.augment.band_gain:
            yield "augment.band_gain bends a spectrum, which model B has none of: set it to 0"
        if self.train.thaw_epochs * self.model.unfreeze >= self.train.epochs:
            yield (
                f"train.thaw_epochs {self.train.thaw_epochs} leaves no epoch of {self.train.epochs} for the lowest of "
                f"{self.model.unfreeze} blocks"
            )

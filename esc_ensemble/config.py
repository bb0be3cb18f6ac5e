"""What can be set: one frozen class a topic, one documented line a field.

The files in `configs/` are these defaults written out; a test keeps the two equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from esc_ensemble.settings import Settings

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class DataConfig(Settings):
    """How clips become waveforms of one length."""

    sample_rate: Annotated[int, Field(ge=4000, le=192000)] = 32000
    """Rate in Hz that every clip is resampled to."""
    clip_seconds: Annotated[float, Field(gt=0.0, le=60.0)] = 5.0
    """Length in seconds that every clip is fitted to."""
    window_seconds: Annotated[float, Field(ge=0.0)] = 0.0
    """Training hears a random stretch this long, each of shift_seconds one crop; 0 hears the whole clip."""
    fit: Literal["tile", "pad"] = "tile"
    """Short clips are repeated (tile) or followed by zeros (pad); long ones keep their middle."""
    trim_db: Annotated[float, Field(ge=0.0)] = 60.0
    """Silence at both ends this many dB below the clip's peak is cut before fitting; 0 keeps it."""
    selection_fraction: Share = 0.0
    """Part of the other folds, split off by source, for early stopping and temperature; 0 trains on all."""

    @property
    def heard_seconds(self) -> float:
        """How much of a clip the network hears at once."""
        return self.window_seconds or self.clip_seconds

    def conflicts(self) -> Iterator[str]:
        if self.window_seconds > self.clip_seconds:
            yield f"window_seconds {self.window_seconds} must not be longer than clip_seconds {self.clip_seconds}"


class PcenConfig(Settings):
    """Per-channel energy normalisation (Wang 2017)."""

    gain: Annotated[float, Field(ge=0.0)] = 0.98
    """Exponent of the smoothed energy that divides each band."""
    bias: Annotated[float, Field(ge=0.0)] = 2.0
    """Offset before the root compression."""
    power: Annotated[float, Field(gt=0.0)] = 0.5
    """Exponent of the root compression."""
    time_constant: Annotated[float, Field(ge=1e-3)] = 0.4
    """Time constant in seconds of the energy smoother."""
    eps: Annotated[float, Field(gt=0.0)] = 1e-6
    """Floor of the smoothed energy."""
    initial_state: Literal["first_frame", "one"] = "first_frame"
    """Smoother's state before the first frame: that frame itself, or 1 (librosa's default)."""
    learnable: bool = False
    """Learn gain, bias, power and smoothing for each band along with the network."""


class FrontendConfig(Settings):
    """Waveform to features: mel power, then log and PCEN channels."""

    n_fft: Positive = 1024
    """Length of the DFT in samples."""
    window: Positive = 1024
    """Length of the Hann window in samples, centred in the DFT."""
    hop: Positive = 640
    """Samples from one frame to the next."""
    n_mels: Positive = 64
    """Number of mel bands F."""
    f_min: Annotated[float, Field(ge=0.0)] = 20.0
    """Lower edge of the lowest band in Hz."""
    f_max: Annotated[float, Field(gt=0.0)] = 16000.0
    """Upper edge of the highest band in Hz."""
    mel_scale: Literal["slaney", "htk"] = "slaney"
    """Formula of the mel scale."""
    mel_norm: Literal["slaney", "none"] = "slaney"
    """Whether each band's filter has unit area (slaney) or unit peak (none)."""
    top_db: Annotated[float, Field(gt=0.0)] = 80.0
    """Log-mel is cut this many dB below the clip's loudest value."""
    channels: tuple[Literal["logmel", "pcen"], ...] = ("logmel", "pcen")
    """Which channels the network sees, in order."""
    pcen: PcenConfig = PcenConfig()
    """The PCEN channel."""

    def conflicts(self) -> Iterator[str]:
        if self.window > self.n_fft:
            yield f"window {self.window} must not be longer than n_fft {self.n_fft}"
        if self.f_min >= self.f_max:
            yield f"f_min {self.f_min} must be below f_max {self.f_max}"
        if not self.channels or len(set(self.channels)) != len(self.channels):
            yield "channels must name logmel, pcen or both, each once"


class AugmentConfig(Settings):
    """Random changes to training clips, in batches on the device; waveforms first, then spectrograms."""

    roll: Probability = 1.0
    """Probability of a cyclic shift by any amount."""
    crop: Probability = 0.0
    """Probability of hearing only a part of the clip, repeated to the full length."""
    crop_min: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Shortest part kept by a crop."""
    gain: Probability = 0.5
    """Probability of a change of level."""
    gain_db: Annotated[float, Field(ge=0.0)] = 6.0
    """Largest change of level in dB, up or down."""
    noise: Probability = 0.0
    """Probability of added noise."""
    noise_snr_db: tuple[float, float] = (15.0, 40.0)
    """Range of signal-to-noise ratios in dB."""
    noise_colour: tuple[float, float] = (0.0, 2.0)
    """Range of the noise's colour c, power falling with frequency as 1/f^c: 0 is white, 1 pink, 2 brown."""
    low_pass: Probability = 0.0
    """Probability of losing all above some frequency, as old codecs and low sampling rates do."""
    low_pass_hz: Annotated[float, Field(gt=0.0)] = 6000.0
    """Lowest such frequency in Hz; the highest is half the sample rate, and octaves are equally likely."""
    polarity: Probability = 0.0
    """Probability of a change of sign; spectrograms do not hear it, save in mixes of waveforms."""
    time_scale: Probability = 0.5
    """Probability of playing faster or slower (pitch moves along)."""
    time_scale_max: Annotated[float, Field(ge=1.0, le=4.0)] = 1.25
    """Largest change of speed s; the factor is s^U(-1, 1)."""
    pitch: Probability = 0.0
    """Probability of a change of pitch at unchanged speed."""
    pitch_semitones: Annotated[float, Field(ge=0.0, le=12.0)] = 2.0
    """Largest change of pitch in semitones, up or down."""
    segment_gain: Probability = 0.0
    """Probability that a random stretch of the clip changes its level."""
    segment_gain_db: Annotated[float, Field(ge=0.0)] = 12.0
    """Largest change of level of a stretch in dB, up or down."""
    blank: Probability = 0.0
    """Probability that a random stretch of the clip is silenced."""
    blank_seconds: Annotated[float, Field(ge=0.0)] = 0.1
    """Longest silenced stretch in seconds."""
    spec_probability: Probability = 0.9
    """Probability of SpecAugment for a clip."""
    time_masks: Annotated[int, Field(ge=0)] = 2
    """Number of masked stretches of time."""
    time_mask_max: Annotated[int, Field(ge=0)] = 40
    """Longest masked stretch in frames."""
    frequency_masks: Annotated[int, Field(ge=0)] = 2
    """Number of masked ranges of bands."""
    frequency_mask_max: Annotated[int, Field(ge=0)] = 8
    """Widest masked range in bands."""
    band_gain: Probability = 0.0
    """Probability of a random tilt and bend of the spectrum, as another microphone or room would make."""
    band_gain_max: Annotated[float, Field(ge=0.0)] = 0.5
    """Largest lift or cut of a band, in standard deviations of the features."""

    def conflicts(self) -> Iterator[str]:
        if self.noise_snr_db[0] > self.noise_snr_db[1]:
            yield f"noise_snr_db {self.noise_snr_db} must go from low to high"
        if self.noise_colour[0] > self.noise_colour[1]:
            yield f"noise_colour {self.noise_colour} must go from low to high"


class MixConfig(Settings):
    """Mixing of pairs of training clips. A step mixes in one way or not at all; probabilities add up to 1 at most."""

    mixup: Probability = 1.0
    """Probability that a step mixes features linearly, labels alike (Zhang 2018)."""
    mixup_alpha: Annotated[float, Field(gt=0.0)] = 0.4
    """The ratio of mixup is drawn from Beta(alpha, alpha)."""
    between_class: Probability = 0.0
    """Probability that a step mixes waveforms of two classes at a ratio of heard loudness (Tokozume 2018)."""
    cutmix: Probability = 0.0
    """Probability that a step puts a piece of another clip's spectrogram in, labels by area (Yun 2019)."""
    energy_mixup: Probability = 0.0
    """Probability that a step adds waveforms at about equal energy; both labels are then wholly true."""
    energy_mixup_db: Annotated[float, Field(ge=0.0)] = 6.0
    """Largest difference in energy of the two in dB, either way."""

    def conflicts(self) -> Iterator[str]:
        ways = ("mixup", "between_class", "cutmix", "energy_mixup")
        total = sum(getattr(self, way) for way in ways)
        if total > 1.0 + 1e-9:
            given = ", ".join(f"{way} {getattr(self, way):g}" for way in ways if getattr(self, way))
            yield f"{given} add up to {total:g}, more than 1: lower one (what is not named keeps its default)"


class SpecCnnConfig(Settings):
    """Model A."""

    name: Literal["spec_cnn", "spec_cnn_reference"] = "spec_cnn"
    """Compact residual CNN (spec_cnn) or the reference system's plain one (spec_cnn_reference)."""
    widths: tuple[Positive, ...] = (24, 48, 96, 160)
    """Channels of the stages, each of which halves time and frequency."""
    dropout: Share = 0.3
    """Dropout before the classifier."""

    def conflicts(self) -> Iterator[str]:
        if not self.widths:
            yield "widths must name at least one stage"


class BcResNetConfig(Settings):
    """Model A Pro."""

    name: Literal["bc_resnet"] = "bc_resnet"
    """BC-ResNet as published (Kim 2021)."""
    scale: Annotated[float, Field(ge=1.0, le=8.0)] = 3.0
    """Width: 8 is BC-ResNet-8, with 64 channels in its first stage and for a GPU; 1 is the smallest published."""
    subbands: Annotated[int, Field(ge=1, le=64)] = 5
    """Groups of neighbouring bands that are normalised on their own."""
    dropout: Share = 0.1
    """Dropout of whole channels in the temporal part of each block."""


class TrainConfig(Settings):
    """How long, how fast, on what."""

    epochs: Positive = 60
    """Passes over the training clips; all are run unless patience says otherwise."""
    batch_size: Positive = 16
    """Clips a micro-batch on each process; halved by itself where memory runs out."""
    accumulation: Positive = 1
    """Micro-batches to a step of the optimiser, which moves by the mean over all their clips."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or stochastic gradient descent with Nesterov momentum."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-3
    """Peak learning rate; sgd wants one of about 0.1."""
    momentum: Share = 0.9
    """Momentum of sgd."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 2e-2
    """Weight decay, decoupled in AdamW; none on biases and norms. sgd wants about 1e-3."""
    schedule: Literal["onecycle", "cosine", "plateau", "constant"] = "onecycle"
    """Course of the learning rate. Plateau needs a selection split."""
    warmup: Share = 0.2
    """Part of all steps in which the rate rises (onecycle and cosine)."""
    loss: Literal["cross_entropy", "kl"] = "cross_entropy"
    """Against soft labels; kl is cross-entropy less the labels' own entropy, so that 0 is a perfect fit."""
    label_smoothing: Share = 0.05
    """Probability mass spread evenly over all classes; of a union (energy_mixup) each class's pull towards 0.5."""
    clip_norm: Annotated[float, Field(ge=0.0)] = 5.0
    """Largest norm of the gradient; 0 turns clipping off."""
    ema_decay: Share = 0.99
    """Decay a step of the averaged weights that are kept; 0 keeps the last weights."""
    swa: Share = 0.0
    """Last part of the training over which weights are averaged evenly instead (stochastic weight averaging)."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better selection loss before stopping; 0 runs all epochs. Needs a selection split."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast: auto is bf16 on CPUs and GPUs that have it, fp16 on other GPUs."""
    channels_last: bool = True
    """Memory format of the network."""
    checkpointing: bool = False
    """Keep only the maps between blocks and compute the rest again going backwards: less memory, a third slower."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU where there is one."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads; 0 takes the free cores."""


class TrainerConfig(Settings):
    """What the commands that train have in common."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Start of all random numbers; the same seed on the same machine gives the same logits."""
    shift_seconds: tuple[float, ...] = (-0.25, -0.1, 0.0, 0.1, 0.25)
    """Cyclic time shifts stored for test-time augmentation, 0 among them; with data.window_seconds each is a crop."""
    data: DataConfig = DataConfig()
    """Clips to waveforms."""
    frontend: FrontendConfig = FrontendConfig()
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
    def n_frames(self) -> int:
        """Number of frames L that the front end makes of what is heard at once."""
        return 1 + (round(self.data.heard_seconds * self.data.sample_rate) - self.frontend.n_fft) // self.frontend.hop

    def conflicts(self) -> Iterator[str]:
        if 0.0 not in self.shift_seconds or len(set(self.shift_seconds)) != len(self.shift_seconds):
            yield f"shift_seconds {self.shift_seconds} must hold 0.0 and no shift twice"
        if self.frontend.f_max > self.data.sample_rate / 2:
            yield f"frontend.f_max {self.frontend.f_max} is above half of sample_rate {self.data.sample_rate}"
        if self.frontend.n_fft > self.data.heard_seconds * self.data.sample_rate:
            heard = "window_seconds" if self.data.window_seconds else "clip_seconds"
            yield f"data.{heard} {self.data.heard_seconds} is shorter than one frame of frontend.n_fft"
        if self.data.selection_fraction == 0.0 and (self.train.patience or self.train.schedule == "plateau"):
            yield "train.patience and plateau need a selection split: set data.selection_fraction, say 0.15"
        if self.train.swa and self.train.patience:
            yield "train.swa averages the last epochs, which train.patience may never let come: set one of them to 0"


class AMixConfig(MixConfig):
    """Mixing for model A: hard, which its long training can fit (benchmarks/RESULTS.md)."""

    mixup: Probability = 0.5
    between_class: Probability = 0.5


class ATrainConfig(TrainConfig):
    """The training of model A: hard mixing underfits in 60 epochs (benchmarks/RESULTS.md)."""

    epochs: Positive = 180
    ema_decay: Share = 0.995


class TrainAConfig(TrainerConfig):
    """Everything that `esc-ens train-a` can be told."""

    mix: AMixConfig = AMixConfig()
    """Mixing of clips in training."""
    train: ATrainConfig = ATrainConfig()
    """The training."""
    model: SpecCnnConfig = SpecCnnConfig()
    """The network."""

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        smallest = min(self.n_frames, self.frontend.n_mels)
        if self.model.name == "spec_cnn_reference" and 0 < smallest < 2 ** len(self.model.widths):
            yield (
                f"model.widths {self.model.widths} halves a map of {self.frontend.n_mels} bands and {self.n_frames} "
                "frames to nothing: name fewer stages, or use more bands or a shorter frontend.hop"
            )


class AProFrontendConfig(FrontendConfig):
    """The front end of model A Pro, whose sub-spectral norm cannot cut 64 bands into 5 groups."""

    n_mels: Positive = 40


class AProTrainConfig(TrainConfig):
    """The training of model A Pro: depthwise convolutions are faster on contiguous maps on a CPU."""

    epochs: Positive = 80
    ema_decay: Share = 0.995
    channels_last: bool = False


class TrainAProConfig(TrainerConfig):
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


def bc_resnet_bands(n_mels: int) -> tuple[int, int, int]:
    """Gives the numbers of bands inside BC-ResNet after each of its strides, which halve and round up."""
    first = -(-n_mels // 2)
    second = -(-first // 2)
    return first, second, -(-second // 2)


def fits_bc_resnet(n_mels: int, subbands: int) -> bool:
    """Whether every sub-spectral norm can cut its bands evenly, and the classifier's 5 x 5 has 5 bands to see."""
    bands = bc_resnet_bands(n_mels)
    return bands[-1] >= 5 and all(n_bands % subbands == 0 for n_bands in bands)


class BlendConfig(Settings):
    """Everything that `esc-ens blend` can be told."""

    trials: Positive = 200
    """Sets of weights that Optuna tries."""
    objective: Literal["log_loss", "error"] = "log_loss"
    """What the weights make small; weights tuned on the error hold less well on new clips."""
    combiner: Literal["geometric", "arithmetic"] = "geometric"
    """Weighted mean of calibrated log-probabilities (geometric) or of probabilities (arithmetic)."""
    tta: bool = False
    """Average each member over its stored time shifts."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Start of the search's and the bootstrap's random numbers."""
    bootstrap: Positive = 1000
    """Resamples of the sources behind each interval."""


COMMANDS: dict[str, type[Settings]] = {
    "train-a": TrainAConfig,
    "train-a-pro": TrainAProConfig,
    "blend": BlendConfig,
}
"""The settings of each command that has any."""

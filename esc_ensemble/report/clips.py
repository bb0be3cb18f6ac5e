"""Clips to see and hear: which are worth it, the picture of what a model gets, the sound of what it hears."""

from __future__ import annotations

import io
from base64 import b64encode
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from esc_ensemble.config import DataConfig, FrontendConfig
from esc_ensemble.errors import DataError, EscError
from esc_ensemble.features.frontend import SpectrogramFrontend
from esc_ensemble.features.logmel import mel_filters
from esc_ensemble.models.checkpoint import load_checkpoint, read_spec
from esc_ensemble.progress import progress
from esc_ensemble.report.evidence import Evidence, MemberEvidence
from esc_ensemble.report.recordings import Recordings, hear
from esc_ensemble.settings import build, read_yaml

MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000)
MOST_HZ = 32000
MP3_QUALITY = 0.8
"""libsndfile's compression level, 0 best to 1 smallest; about 40 kbit/s here."""
TICKS_HZ = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)
MOST_COLUMNS = 800
WAVEFORM_ROWS, WAVEFORM_SHADE = 65, 190
COLOURMAP = "magma"
BY_DEFAULT = "clips are cut as this version does by default, and the log-mel spectrogram is drawn for the eye."
CHANNEL_TITLES = {"logmel": "log-mel", "pcen": "PCEN"}


@dataclass(frozen=True)
class Hearing:
    """Whose ears a report borrows: how clips are cut, and which front end makes their pictures."""

    data: DataConfig = field(default_factory=DataConfig)
    member: MemberEvidence | None = None
    """Whose fold models' front ends are drawn; None draws a plain log-mel spectrogram."""
    caption: str = ""


@dataclass(frozen=True)
class Media:
    """What a page embeds of the clips."""

    clips: dict[int, dict[str, Any]]
    """Place of the clip -> `audio` (data URI), `pictures`, `seconds`, `own`, `span`, `ticks`."""
    problems: tuple[str, ...] = ()
    """Clips that could not be decoded and models that could not be read, a message each."""


def find_hearing(evidence: Evidence) -> Hearing:
    """Gives the ears of the strongest member that has a spectrogram front end and its models, or the nearest thing."""
    labels = evidence.labels[evidence.known]
    hits = [float((each[evidence.known].argmax(axis=1) == labels).mean()) for each in evidence.member_probabilities]
    order = sorted(range(len(evidence.members)), key=lambda place: -hits[place])
    heard: Hearing | None = None
    for place in order:
        member = evidence.members[place]
        for fold in member.checkpoints[:1]:
            try:
                spec = read_spec(member.folder / f"fold-{fold}")
            except EscError:
                continue  # a damaged model.json; the page says what it drew instead
            if spec.frontend is not None:
                caption = (
                    f"What {member.name}'s front end gives its network, by the model that held the clip's fold out."
                )
                return Hearing(spec.data, member, caption)
            heard = heard or Hearing(
                spec.data,
                None,
                f"{member.name} hears the waveform itself; the log-mel spectrogram is drawn for the eye.",
            )
    configured = (_configured(evidence.members[place]) for place in order)
    return heard or next(filter(None, configured), None) or Hearing(caption=f"No settings are at hand: {BY_DEFAULT}")


def _configured(member: MemberEvidence) -> Hearing | None:
    """The ears of a member without models: how its settings cut clips."""
    if not member.config_text:
        return None
    path = member.folder / "config.yaml"
    try:
        data = build(DataConfig, read_yaml(path).get("data") or {}, str(path))
    except EscError:
        return None  # settings of another framework
    caption = f"Clips are cut as {member.name}'s settings say; the log-mel spectrogram is drawn for the eye."
    return Hearing(data, None, caption)


def make_media(evidence: Evidence, recordings: Recordings, hearing: Hearing, places: list[int]) -> Media:
    """Decodes, draws and compresses clips.

    Args:
        evidence: from `load`.
        recordings: where their files are.
        hearing: how they are cut and drawn.
        places: which clips; those without a file are left out.
    """
    by_fold: defaultdict[int, list[int]] = defaultdict(list)
    for place in places:
        if str(evidence.clip_ids[place]) in recordings.paths:
            by_fold[int(evidence.folds[place])].append(place)
    clips: dict[int, dict[str, Any]] = {}
    problems: list[str] = []
    with progress("Clips to see and hear", sum(map(len, by_fold.values())), in_passing=True) as advance:
        for fold, members in sorted(by_fold.items()):
            try:
                frontend = _frontend(hearing, fold)
            except EscError as error:
                problems.append(f"Fold {fold} is drawn as a plain log-mel spectrogram: {error}")
                frontend = _plain_frontend(hearing.data.sample_rate)
            for place in members:
                try:
                    heard = hear(recordings.paths[str(evidence.clip_ids[place])], hearing.data)
                except DataError as error:
                    problems.append(str(error))
                    continue
                finally:
                    advance()
                clips[place] = {
                    "audio": audio_uri(heard.waveform, hearing.data.sample_rate),
                    "seconds": round(len(heard.waveform) / hearing.data.sample_rate, 4),
                    "own": round(heard.own_seconds, 4),
                    **draw(heard.waveform, frontend, hearing.data.sample_rate),
                }
    return Media(clips, tuple(problems))


def _frontend(hearing: Hearing, fold: int) -> SpectrogramFrontend:
    """The front end of the model that held a fold out, learned values and all; else a plain log-mel."""
    if hearing.member is not None and fold in hearing.member.checkpoints:
        model, _ = load_checkpoint(hearing.member.folder / f"fold-{fold}")
        if isinstance(model.frontend, SpectrogramFrontend):
            return model.frontend
    return _plain_frontend(hearing.data.sample_rate)


def _plain_frontend(rate: int) -> SpectrogramFrontend:
    config = FrontendConfig(
        n_fft=1024, window=min(1024, rate // 25), hop=rate // 50, n_mels=64, f_max=rate / 2, channels=("logmel",)
    )
    return SpectrogramFrontend(config, rate).eval()


@torch.inference_mode()
def draw(waveform: np.ndarray, frontend: SpectrogramFrontend, sample_rate: int) -> dict[str, Any]:
    """Gives the pictures of a waveform's features.

    Args:
        waveform: (T,) float32.
        frontend: makes its features (1, channels, F, L).
        sample_rate: in Hz.

    Returns:
        `pictures`: for each channel its `title` and a PNG as data URI, low bands at the bottom. `span`: the seconds at
        its left and right edge; a frame of the DFT stands for the hop around its middle. `ticks`: [Hz, height from the
        bottom as a share].
    """
    features = frontend(torch.from_numpy(np.ascontiguousarray(waveform))[None])[0].numpy()  # (channels, F, L)
    config = frontend.config
    return {
        "pictures": [
            {"title": CHANNEL_TITLES.get(name, name), "uri": png_uri(to_bytes(narrowed(channel)))}
            for name, channel in zip(config.channels, features, strict=True)
        ],
        **axes(frontend, features.shape[2], sample_rate),
    }


def axes(frontend: SpectrogramFrontend, n_frames: int, sample_rate: int) -> dict[str, Any]:
    """Returns `span` and `ticks`, as `draw` does, of pictures `n_frames` wide."""
    config = frontend.config
    start = (config.n_fft - config.hop) / 2 / sample_rate
    return {
        "span": [round(start, 5), round(start + n_frames * config.hop / sample_rate, 5)],
        "ticks": _ticks(config, sample_rate),
    }


def waveform_picture(waveform: np.ndarray, span: tuple[float, float], sample_rate: int) -> dict[str, Any]:
    """Draws the lowest and highest sample in each column of a picture.

    Args:
        waveform: (T,).
        span: the seconds at its left and right edge, as of the spectrograms below it.
        sample_rate: in Hz.

    Returns:
        `title` with the range of the picture, which is the clip's own, `uri`, and `plain`: it has no frequencies.
    """
    peak = float(np.abs(waveform).max(initial=0.0))
    edges = np.linspace(*span, MOST_COLUMNS + 1) * sample_rate
    starts = np.clip(edges[:-1].astype(int), 0, len(waveform) - 1)
    scale = (WAVEFORM_ROWS - 1) / 2 / (peak or 1.0)
    high = np.rint((WAVEFORM_ROWS - 1) / 2 - scale * np.maximum.reduceat(waveform, starts))  # rows from the top
    low = np.rint((WAVEFORM_ROWS - 1) / 2 - scale * np.minimum.reduceat(waveform, starts))
    rows = np.arange(WAVEFORM_ROWS)[:, None]
    inside = (rows >= high) & (rows <= low) & (edges[:-1] >= 0) & (edges[:-1] < len(waveform))
    image = np.where(inside, WAVEFORM_SHADE, 0).astype(np.uint8)
    return {"title": f"waveform, ±{peak:.2g}", "uri": png_uri(image), "plain": True}


def narrowed(values: np.ndarray, n_columns: int = MOST_COLUMNS) -> np.ndarray:
    """Averages neighbouring frames of (F, L) where there are more than a screen shows: (F, at most `n_columns`)."""
    n_frames = values.shape[1]
    if n_frames <= n_columns:
        return values
    starts = np.linspace(0, n_frames, n_columns, endpoint=False).astype(int)
    return np.asarray(np.add.reduceat(values, starts, axis=1) / np.diff([*starts, n_frames]))


def limits(values: np.ndarray) -> tuple[float, float]:
    """Returns the 1 % and 99.8 % points, between which a picture's colors lie."""
    low, high = np.quantile(values, [0.01, 0.998])
    return float(low), float(high)


def to_bytes(values: np.ndarray, between: tuple[float, float] | None = None) -> np.ndarray:
    """Stretches (F, L) between two values to uint8, and turns it so that low bands are at the bottom.

    Args:
        values: (F, L).
        between: the values, as another picture has them; by default its own `limits`.
    """
    low, high = between or limits(values)
    return np.asarray(np.clip((values[::-1] - low) / max(high - low, 1e-9) * 255.0, 0, 255).round(), dtype=np.uint8)


def png_uri(image: np.ndarray) -> str:
    """Gives (H, W) uint8 as a PNG with a palette, as a data URI."""
    from matplotlib import colormaps  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    picture = Image.fromarray(image, mode="L").convert("P")
    colours = (np.asarray(colormaps[COLOURMAP](np.arange(256)))[:, :3] * 255).round().astype(np.uint8)
    picture.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode('ascii')}"


def _ticks(config: FrontendConfig, sample_rate: int) -> list[list[float]]:
    filters = mel_filters(config, sample_rate)  # (F, bins)
    bins = np.linspace(0.0, sample_rate / 2, filters.shape[1])
    sums = filters.sum(axis=1)
    centres = (filters @ bins)[sums > 0] / sums[sums > 0]
    shares = (np.flatnonzero(sums > 0) + 0.5) / len(sums)
    inside = [hz for hz in TICKS_HZ if centres[0] <= hz <= centres[-1]]
    return [[hz, round(float(np.interp(hz, centres, shares)), 4)] for hz in inside]


def audio_uri(waveform: np.ndarray, sample_rate: int) -> str:
    """Gives a waveform (T,) as an MP3 that every browser plays, as a data URI; resampled where MP3 lacks the rate.

    The encoder's delay stands in the file's header, and players take it off again.
    """
    import soundfile  # noqa: PLC0415
    import soxr  # noqa: PLC0415

    if sample_rate not in MP3_RATES:
        rate = max((each for each in MP3_RATES if each <= min(sample_rate, MOST_HZ)), default=MP3_RATES[0])
        waveform, sample_rate = soxr.resample(waveform, sample_rate, rate, quality="HQ"), rate
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer,
        "w",
        samplerate=sample_rate,
        channels=1,
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=MP3_QUALITY,
        bitrate_mode="VARIABLE",
    ) as file:
        file.write(np.clip(waveform, -1.0, 1.0))
    return f"data:audio/mpeg;base64,{b64encode(buffer.getvalue()).decode('ascii')}"

"""The audio behind a report: where each clip's file is, how long it is, and what a member hears of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from esc_ensemble.config import DataConfig
from esc_ensemble.data.audio import decode, fit_to_length, trim_silence
from esc_ensemble.data.locate import locate_clips
from esc_ensemble.errors import DataError
from esc_ensemble.home import expand_home
from esc_ensemble.report.evidence import Evidence


@dataclass(frozen=True)
class Recordings:
    """Files of the clips, as many as were found."""

    paths: dict[str, Path]
    """clip_id -> file."""
    folder: str = ""
    """Where they were looked for; empty where no member says."""
    problem: str = ""
    """Why some or all are missing, in a sentence; empty where all are there."""


@dataclass(frozen=True)
class FileFacts:
    """What the headers of the audio files say."""

    seconds: list[float] = field(default_factory=list)
    rates: Counter[int] = field(default_factory=Counter)
    """Hz -> files."""
    channels: Counter[int] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)


def find_recordings(evidence: Evidence, data: Path | None = None) -> Recordings:
    """Looks for the clips' files below `data`, or where the members' manifests say that they were.

    Raises:
        DataError: `data` was given and is not there, or holds none of the clips.
    """
    if data is not None:
        data = expand_home(data)
        if not data.exists():
            raise DataError(f"{data} does not exist. Name the folder with the clips: --data DIR.")
        found = _look(data, evidence)
        if not found.paths:
            raise DataError(
                f"{data} holds none of the {len(evidence.clip_ids)} clips, such as {evidence.clip_ids[0]}. "
                "Name the folder with the clips (--data DIR), or leave audio out (--no-audio)."
            )
        return found
    told = [str(member.manifest["dataset_path"]) for member in evidence.members if member.manifest.get("dataset_path")]
    for folder in dict.fromkeys(told):
        if Path(folder).exists():
            return _look(Path(folder), evidence)
    if told:
        problem = f"The audio is no longer at {told[0]}. Say where it is with --data DIR to hear and see the clips."
        return Recordings({}, told[0], problem)
    return Recordings({}, "", "No member says where its audio lies. Name the folder with --data DIR to hear the clips.")


def _look(data: Path, evidence: Evidence) -> Recordings:
    root = data if data.is_dir() else data.parent
    paths = locate_clips(data, map(str, evidence.clip_ids))
    n_gone = len(evidence.clip_ids) - len(paths)
    problem = f"{n_gone} of the {len(evidence.clip_ids)} clips are not (or no longer) in {root}." if n_gone else ""
    return Recordings(paths, str(root), problem)


def read_facts(recordings: Recordings) -> FileFacts:
    """Reads the headers of all files."""
    import soundfile  # noqa: PLC0415

    facts = FileFacts()
    for clip_id, path in recordings.paths.items():
        try:
            info = soundfile.info(path)
        except (soundfile.LibsndfileError, OSError) as error:
            facts.unreadable.append(f"{clip_id}: {error}")
            continue
        facts.seconds.append(info.frames / info.samplerate)
        facts.rates[info.samplerate] += 1
        facts.channels[info.channels] += 1
        facts.formats[info.format] += 1
    return facts


@dataclass(frozen=True, eq=False)
class Heard:
    """What a network hears of a clip without a time shift."""

    waveform: np.ndarray
    """(T,) float32 in [-1, 1]."""
    own_seconds: float
    """How much of it is the clip itself, before it is repeated or padded."""


def hear(path: Path, data: DataConfig) -> Heard:
    """Decodes a file, cuts its silent ends, fits it to the length and takes the window that is heard.

    Raises:
        DataError: the file cannot be decoded.
    """
    trimmed = trim_silence(decode(path, data.sample_rate, channel=data.channel), data.sample_rate, data.trim_db)
    waveform = fit_to_length(trimmed, data.n_samples, data.fit)
    n_heard = round(data.heard_seconds * data.sample_rate)
    if n_heard < len(waveform):  # the middle, as in `predict.middle`
        return Heard(fit_to_length(waveform, n_heard, data.fit), data.heard_seconds)
    return Heard(waveform, min(len(trimmed) / data.sample_rate, data.heard_seconds))

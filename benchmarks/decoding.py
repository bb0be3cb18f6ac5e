"""What is decoded of each kind of audio file, next to what ffmpeg decodes.

Each file of the library in `kinds` is decoded by the package (from its path and from its bytes), by the service, by
the Kaggle kernel and by ffmpeg, all as mono at 16 kHz. The rule: the same length as ffmpeg within 20 ms and the right
sound at the end, or a refusal that says why; no refusal of a whole file; no file with samples missing accepted; and
the four agree. The exit code is 1 where a kind breaks it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from kinds import Kind, kinds
from kinds.edits import SECONDS, ffmpeg, signal

import kaggle_kernel
from esc_ensemble.data.audio import decode
from esc_ensemble.errors import EscError
from esc_ensemble.serve.hearing import Upload
from esc_ensemble.serve.limits import Limits

RATE = 16000
TOLERANCE_SECONDS = 0.02
AGREEMENT_SECONDS = 0.002
"""By which the package, the service and the kernel may differ: they round differently."""
STEP_SECONDS = 0.1
WARM_UP_SECONDS = 0.15
"""At the start of what is decoded, where encoders' delay is and streams without their beginning are not yet right."""
LEAST_LIKENESS = 0.6
"""Correlation with the signal; the worst codec of the library reaches more, a wrong place less."""
MOST_SILENT_SECONDS = 0.02
"""A longer silence stands for samples that are lost: the signal has none."""
VAGUE = (
    *("unspecified internal error", "unknown error", "unknown reason", "system error", "no error"),
    *("psf_fseek", "file does not exist or is not a regular file"),
)

Waveform = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Decoded:
    """What one decoder made of a file."""

    seconds: float | None = None
    """None where it refused."""
    likeness: float = 0.0
    """To the signal, where it is least."""
    silent_seconds: float = 0.0
    """Longest silence inside it."""
    message: str = ""


@dataclass(frozen=True)
class Row:
    """What became of one kind of file."""

    name: str
    true_seconds: float | None
    ffmpeg: Decoded | None
    """None where it was not asked."""
    ours: dict[str, Decoded]
    """By decoder: path, bytes, service, kernel."""
    broken: tuple[str, ...]
    """Rules."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="only kinds with this in their name")
    parser.add_argument("--failing", action="store_true", help="only rows that break a rule")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    arguments = parser.parse_args()
    started = time.perf_counter()
    rows = compare([kind for kind in kinds() if arguments.only in kind.name])
    for line in table([row for row in rows if row.broken or not arguments.failing]):
        print(line)
    broken = Counter(rule.partition(":")[0] for row in rows for rule in row.broken)
    n_failing = sum(bool(row.broken) for row in rows)
    print(f"\n{len(rows)} kinds in {time.perf_counter() - started:.0f} s, {n_failing} break a rule")
    for rule, number in broken.most_common():
        print(f"{number:5} {rule}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if n_failing else 0)


def compare(some: Iterable[Kind], *, lazily: bool = False) -> list[Row]:
    """Makes files and decodes them, a few at a time; `lazily` runs ffmpeg only where the verdict depends on it."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda item: _row(item[1], Path(folder), item[0], lazily), enumerate(some)))


def _row(kind: Kind, folder: Path, number: int, lazily: bool) -> Row:
    path = folder / str(number) / f"file{kind.suffix}"
    path.parent.mkdir()
    content = kind.content
    path.write_bytes(content)
    decoders: dict[str, Callable[[], Waveform]] = {
        "path": lambda: decode(path, RATE),
        "bytes": lambda: decode(io.BytesIO(content), RATE, name=path.name),
        "service": lambda: Upload(io.BytesIO(content), RATE, Limits()).read(),
        "kernel": lambda: kaggle_kernel.read_clip(path, RATE),
    }
    ours = {name: _try(kind, work, path) for name, work in decoders.items()}
    needed = not lazily or any(_unknown(kind, found) for found in ours.values())
    reference = _try(kind, lambda: _ffmpeg(path), path) if needed else None
    path.unlink()
    return Row(kind.name, kind.true_seconds, reference, ours, tuple(judge(kind, reference, ours)))


def _unknown(kind: Kind, found: Decoded) -> bool:
    if found.seconds is None or kind.whole is False or not kind.supported:
        return False
    return kind.true_seconds is None or abs(found.seconds - kind.true_seconds) > TOLERANCE_SECONDS


def _try(kind: Kind, work: Callable[[], Waveform], path: Path) -> Decoded:
    try:
        waveform = work()
    except (EscError, kaggle_kernel.KernelError) as error:
        return Decoded(message=str(error).replace(str(path), path.name))
    except Exception as error:  # noqa: BLE001 - any other is a finding
        return Decoded(message=f"{type(error).__name__}: {error}")
    like = likeness(waveform, kind.ends_at, round((kind.true_seconds or 0.0) / SECONDS))
    return Decoded(len(waveform) / RATE, like, silence(waveform, kind.ends_at))


def _ffmpeg(path: Path) -> Waveform:
    done = ffmpeg(["-i", path, "-map", "0:a:0", "-ac", "1", "-ar", str(RATE), "-f", "f32le", "pipe:1"])
    if not done.stdout:
        raise EscError((done.stderr.decode(errors="replace").strip().splitlines() or ["no output"])[-1])
    return np.frombuffer(done.stdout, dtype="<f4")


def likeness(waveform: Waveform, ends_at: float | None, n_copies: int) -> float:
    """Returns the least correlation of a tenth of a second of the signal with its place in the waveform.

    Looks at the last copy of the signal, and at the first. Encoders add samples at both ends, so each copy is placed
    by its end, which is looked for where it should be and up to a tenth of a second earlier.
    """
    if ends_at is None or ends_at < 2 * STEP_SECONDS or not len(waveform):
        return 1.0 if np.any(waveform) else 0.0
    truth = signal(RATE)[: round((ends_at - TOLERANCE_SECONDS) * RATE)]
    found = [_least(waveform[: round(1.1 * ends_at * RATE)], truth)] if n_copies > 1 else []
    return round(min([*found, _least(waveform, truth)]), 3)


def _least(waveform: Waveform, truth: npt.NDArray[np.float64]) -> float:
    n_step = round(STEP_SECONDS * RATE)
    pattern, tail = truth[-n_step:], np.nan_to_num(waveform[-round(0.35 * RATE) :]).astype(np.float64)
    if len(tail) < n_step:
        return 0.0
    squares = np.concatenate([np.zeros(1), np.cumsum(tail**2)])
    energy = (squares[n_step:] - squares[:-n_step]) * np.sum(pattern**2)
    n = 2 * len(tail)
    products = np.fft.irfft(np.fft.rfft(tail, n) * np.conj(np.fft.rfft(pattern, n)), n)[: len(tail) - n_step + 1]
    place = int(np.argmax(products / np.sqrt(np.maximum(energy, 0.0) + 1e-6)))
    stop = len(waveform) - len(tail) + place + n_step
    n = min(len(truth), stop - round(WARM_UP_SECONDS * RATE)) // n_step * n_step
    if n < n_step:
        return 0.0
    both = [
        np.nan_to_num(part).reshape(-1, n_step) for part in (truth[-n:], waveform[stop - n : stop].astype(np.float64))
    ]
    energies = [np.sum(part**2, axis=1) for part in both]
    return float(np.min(np.sum(both[0] * both[1], axis=1) / np.sqrt(energies[0] * energies[1] + 1e-6)))


def silence(waveform: Waveform, ends_at: float | None) -> float:
    """Returns the length of the longest silence within the first copy of the signal, less what encoders add to it."""
    if ends_at is None:
        return 0.0
    inside = waveform[round(0.15 * RATE) : round((ends_at - 0.05) * RATE)]
    loud = np.flatnonzero(np.abs(inside) > 0.003)
    return round(float(np.max(np.diff(loud, prepend=0, append=len(inside)), initial=0)) / RATE, 4)


def judge(kind: Kind, reference: Decoded | None, ours: dict[str, Decoded]) -> list[str]:
    """Returns the rules that are broken, each as `rule: decoder`.

    Any length from that of the signal to that of ffmpeg is right: what lies between is padding of encoders.
    """
    broken: list[str] = []
    asked = {name: found for name, found in ours.items() if kind.served or name != "service"}
    theirs = reference.seconds if reference and kind.by_ffmpeg else None
    known = [seconds for seconds in (kind.true_seconds, theirs) if seconds is not None]
    refused = kind.whole is False or not kind.supported
    for name, found in asked.items():
        if found.seconds is None:
            rules = {
                "whole file refused": bool(kind.whole and kind.supported),
                "refusal does not say why": any(word in found.message.lower() for word in VAGUE),
            }
        elif refused:
            rules = {"truncated or unsupported file accepted": True}
        else:
            rules = {
                "samples lost in silence": found.seconds < known[0] - TOLERANCE_SECONDS,
                "longer than with ffmpeg": found.seconds > max(known) + TOLERANCE_SECONDS,
                "not the signal": found.likeness < LEAST_LIKENESS,
                "silence in place of samples": found.silent_seconds > MOST_SILENT_SECONDS,
            }
        broken += [f"{rule}: {name}" for rule, is_broken in rules.items() if is_broken]
    if reference and kind.whole and kind.supported and kind.by_ffmpeg:  # is the library right?
        least = (kind.true_seconds or 0.0) - TOLERANCE_SECONDS
        if reference.seconds is None or reference.seconds < least or reference.likeness < LEAST_LIKENESS:
            broken.append("ffmpeg does not decode it: ffmpeg")
    lengths = [found.seconds for found in asked.values()]
    known = [seconds for seconds in lengths if seconds is not None]
    if (len(known) != len(lengths) and known) or (known and max(known) - min(known) > AGREEMENT_SECONDS):
        broken.append("decoders differ: " + ", ".join(name for name, found in asked.items() if found.seconds is None))
    return broken


def table(rows: Sequence[Row]) -> list[str]:
    """Returns lines: seconds by ffmpeg and by us, the difference in ms, the likeness, and what is wrong."""
    lines = [f"{'kind':58} {'true':>6} {'ffmpeg':>7} {'we':>7} {'ms':>7} {'like':>5}  verdict"]
    for row in rows:
        we = row.ours["path"]
        theirs = row.ffmpeg.seconds if row.ffmpeg else None
        ms = "" if we.seconds is None or theirs is None else f"{1000 * (we.seconds - theirs):.1f}"
        cells = [f"{_cell(row.true_seconds):>6} {_cell(theirs):>7} {_cell(we.seconds):>7} {ms:>7}"]
        cells.append(f"{we.likeness if we.seconds else '':>5}")
        verdict = "; ".join(row.broken) or "ok"
        message = next((found.message for found in row.ours.values() if found.message), "")
        lines.append(f"{row.name:58} {' '.join(cells)}  {verdict}" + (f" ({message})" if message else ""))
    return lines


def _cell(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.3f}"


if __name__ == "__main__":
    main()

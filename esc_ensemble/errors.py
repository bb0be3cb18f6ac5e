"""The failures that are expected, each with a message that says what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

MAX_LISTED = 20
NUMBERED_PARTS = "the parts of a named split are numbered: train 1, validation 2, test 3"
"""For messages where a fold's number is wanted."""


class EscError(Exception):
    """A failure the user can act on. The command prints its text, without a traceback."""

    exit_code = 2


class ConfigError(EscError):
    """A setting, flag or YAML key is unknown or has a value that cannot work."""


class DataError(EscError):
    """A data set, an audio file or a metadata table breaks a rule."""


class TooLongError(DataError):
    """A recording is longer, or larger once decoded, than whoever asked for it takes."""


class LogitsError(EscError):
    """A logits file breaks the contract of `esc_ensemble.logits`, or files do not fit together."""


class ModelFileError(EscError):
    """A checkpoint or an exported model cannot be read, or is not one of ours."""


class WorkError(EscError):
    """The input was right, but the work failed (disk full, diverged training, export mismatch)."""

    exit_code = 1


class DiskError(WorkError):
    """A file cannot be written: whatever is tried next will fail alike."""


def list_problems(headline: str, problems: Sequence[str], advice: str = "") -> str:
    """Joins all problems of one input into one message, the first `MAX_LISTED` of them spelled out."""
    lines = [headline, *(f"  - {problem}" for problem in problems[:MAX_LISTED])]
    if len(problems) > MAX_LISTED:
        lines.append(f"  ... and {len(problems) - MAX_LISTED} more")
    if advice:
        lines.append(advice)
    return "\n".join(lines)


def did_you_mean(wrong: str, right: Iterable[str], prefix: str = "") -> str:
    """Gives ` Did you mean "x"?` for the nearest right name, with `prefix` before it, or the list of right names."""
    names = sorted(right)
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    if near:
        return f' Did you mean "{prefix}{near[0]}"?'
    return f" Known: {', '.join(names)}." if names else ""

"""The command that makes a page. Heavy imports stand inside the command."""

from __future__ import annotations

import json
from pathlib import Path

from esc_ensemble.cli.shared import find_folder
from esc_ensemble.flags import CountOrAll, Flag, Json


def report(
    source: str,
    /,
    *,
    out: Path | None = None,
    clips: CountOrAll = 80,
    data: Path | None = None,
    no_audio: Flag = False,
    runs: Path = Path("runs"),
    submissions: Path = Path("submissions"),
    as_json: Json = False,
) -> None:
    """Put what a blend or a run is, and is not, good at into one HTML file that opens offline.

    Args:
        source: Name or folder of a blend or a run.
        out: The file; report.html in the folder where not given.
        clips: Clips to embed with picture and sound, wrong answers first; about 70 kB each, beside 5 MB.
        data: Folder with the clips; where the runs' manifests say where not given.
        no_audio: Neither look for the clips nor show them.
        runs: Folder of all runs.
        submissions: Folder of all blends.
        as_json: Print the result as JSON on stdout.
    """
    from esc_ensemble.report import load, write_report  # noqa: PLC0415

    written = write_report(
        load(find_folder(source, submissions, runs)), out, n_clips=clips, data=data, audio=not no_audio
    )
    if as_json:
        print(json.dumps(written.to_json()))
        return
    print(f"{written.path}  {written.n_bytes / 1e6:.1f} MB, {written.n_clips} clips to hear, {written.seconds:.0f} s")
    for sentence in written.missing:
        print(f"Not in it: {sentence}")

"""Commands to begin with. Heavy imports stand inside the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from esc_ensemble.cli.shared import read_options
from esc_ensemble.config import COMMANDS
from esc_ensemble.display import print_table
from esc_ensemble.flags import Count, Json, ReadFlags
from esc_ensemble.settings import to_yaml


def quickstart(
    *,
    data: Path | None = None,
    out: Path = Path("quickstart"),
    clips: Count = 400,
    how: ReadFlags | None = None,
    as_json: Json = False,
) -> None:
    """Walk the whole way in a few minutes: data, training, blend, export, inference, report.

    Args:
        data: A data set (folder, table or hf:OWNER/NAME). Without it, ten synthetic sounds are made.
        out: Folder for everything that is made.
        clips: Use at most this many clips, spread evenly over classes and folds.
        how: How the data set is read.
        as_json: Print the result as JSON on stdout.
    """
    from esc_ensemble.quickstart import run_quickstart  # noqa: PLC0415

    result = run_quickstart(data, out, max_clips=clips, options=read_options(how or ReadFlags()))
    if as_json:
        print(json.dumps(result.to_json(), indent=2))
        return
    print_table(*result.score_table())
    if result.blend.selection_note:
        print(result.blend.selection_note)
    print(result.blend.reason)
    print_table(*result.file_table())
    print(f"The one-file model differs from torch by at most {result.model.parity.max_difference:.1e}.")


def config(command: Literal["train-a", "train-a-pro", "train-b", "baseline", "pretrain-wav2vec2", "blend"], /) -> None:
    """Print a command's default settings as commented YAML, to edit and give back with --config.

    Args:
        command: Which one.
    """
    print(to_yaml(COMMANDS[command](), comments=True), end="")

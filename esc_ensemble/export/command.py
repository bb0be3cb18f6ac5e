"""What `esc-ens export` does: one file or several of a blend, and of each of its members, with their model cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from esc_ensemble.blend.apply import counting_members
from esc_ensemble.errors import ConfigError
from esc_ensemble.export.card import is_card, write_card
from esc_ensemble.export.pipeline import ENDINGS, Exported, ExportOptions, Format, export_blend
from esc_ensemble.files import check_writable
from esc_ensemble.manifest import read_dataset_path
from esc_ensemble.progress import say


@dataclass(frozen=True)
class Files:
    """Exported files, and their cards."""

    exported: tuple[Exported, ...]
    cards: tuple[Path, ...]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Gives header and rows: a line a file."""
        header = ["file", "MB", "ms a clip", "from torch", "top-1 out of fold", "the blend's"]
        return header, [
            [
                str(each.path),
                f"{each.megabytes:.1f}",
                f"{each.ms:.1f}",
                f"{each.parity.max_difference:.1e}",
                f"{each.accuracy.top1:.4f}" if each.accuracy else "",
                f"{each.accuracy.blend_top1:.4f}" if each.accuracy else "",
            ]
            for each in self.exported
        ]

    def to_json(self) -> dict[str, Any]:
        """Gives the same as plain values."""
        return {"files": [each.to_json() for each in self.exported], "cards": [str(card) for card in self.cards]}


def export_all(
    blend: Mapping[str, Any],
    folder: Path,
    exports: Path,
    *,
    format: Format | Literal["all"],  # noqa: A002 - as the command has it
    options: ExportOptions,
    out: Path | None = None,
    each_member: bool = False,
) -> Files:
    """Writes the files that are asked for, and a card beside those of one name.

    Args:
        blend: from `esc_ensemble.export.source.read_source`.
        folder: the blend's or run's folder.
        exports: where files go.
        format: kind of file, or all.
        options: the rest; of `all`, only the ONNX file is of another precision than fp32.
        out: the file, in the place of one below `exports`.
        each_member: whether members get files of their own too.

    Raises:
        ConfigError: several files are to be written into one, or options do not go together.
        EscError: what `export_blend` raises.
    """
    kinds: list[Format] = list(ENDINGS) if format == "all" else [format]
    if out is not None and (len(kinds) > 1 or each_member):
        raise ConfigError("--out names one file, and several are to be written. Name a folder with --exports instead.")
    jobs = [replace(options, format=kind, precision=options.precision if kind == "onnx" else "fp32") for kind in kinds]
    if format != "all":
        jobs = [replace(options, format=format)]
    for job in jobs:
        job.check()
    if out is not None and not out.name.endswith(f".{ENDINGS[jobs[0].format]}"):
        raise ConfigError(f"--out is {out}: a file of --format {jobs[0].format} ends in .{ENDINGS[jobs[0].format]}.")
    exported, cards = [], []
    for each in _blends(blend, folder, each_member=each_member):
        made = []
        card = (out.with_suffix(".md")) if out else exports / f"{each['name']}.md"
        _check_places([out or exports / f"{each['name']}{_ending(job)}" for job in jobs], card)
        for job in jobs:
            path = out or exports / f"{each['name']}{_ending(job)}"
            say(f"Exporting {each['name']} as {job.format}, {job.precision}")
            made.append(export_blend(each, folder, path, job))
        place = read_dataset_path([folder / member["path"] for member in counting_members(each)])
        write_card(card, made, place.name if place else "")
        exported += made
        cards.append(card)
    return Files(tuple(exported), tuple(cards))


def _check_places(paths: Sequence[Path], card: Path) -> None:
    """Refuses before the work what would be refused, or lost, after it."""
    for path in paths:
        check_writable(path)
    if card.exists() and not is_card(card):
        raise ConfigError(f"{card} is there and is no model card, which would take its place. Name another --out.")


def _ending(job: ExportOptions) -> str:
    precision = "" if job.precision == "fp32" else f".{job.precision}"
    return f"{precision}.{ENDINGS[job.format]}"


def _blends(blend: Mapping[str, Any], folder: Path, *, each_member: bool) -> Iterator[dict[str, Any]]:
    """The blend, and each of its members as one of its own, at the temperatures and shifts that it has there."""
    yield {**blend, "name": blend.get("name") or folder.name}
    if each_member:
        for member in counting_members(blend):
            alone = {**member, "weight": 1.0, "class_weights": None}
            rows = [row for row in blend["scores"] if row["name"] == f"member:{member['run']}"]
            yield {
                **blend,
                "name": f"{blend.get('name') or folder.name}-{member['run']}",
                "members": [alone],
                "combiner": "geometric",
                "temperature": 1.0,
                "bias": None,
                "scores": rows,
            }

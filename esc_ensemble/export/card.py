"""The model card beside exported files: what they hear, how good and how fast they are, what they are made of."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from esc_ensemble import __version__
from esc_ensemble.blend.apply import counting_members
from esc_ensemble.export.pipeline import ENDINGS, Exported
from esc_ensemble.files import write_text
from esc_ensemble.logits import describe_shared_rules

FILES_MARK = "<!-- files: "
LICENCES = {
    "ESC-50": "CC BY-NC 3.0 (Piczak 2015): not for commercial use",
    "ESC-10": "CC BY 3.0 (Piczak 2015)",
    "UrbanSound8K": "CC BY-NC 3.0 (Salamon 2014): not for commercial use",
}
"""Of the data sets that are known here, by the names of their folders."""
DASH = "–"
FILE_COLUMNS = (
    "file",
    "precision",
    "MB",
    "ms a clip, one CPU thread",
    "real-time factor",
    "from torch",
    "out of fold: top-1",
)


def write_card(path: Path, exported: Sequence[Exported], dataset: str) -> None:
    """Writes a card in Markdown, or brings the one that is there up to date.

    The card covers all files of its name: those exported before keep their lines as long as they are there.

    Args:
        path: `exports/<name>.md`.
        exported: the files made just now, all of one blend; at least one.
        dataset: name of the training data; empty where it is not known.
    """
    metadata = exported[0].metadata
    entries = {entry["file"]: entry for entry in _earlier(path, metadata)}
    entries |= {each.path.name: each.to_json() | {"file": each.path.name} for each in exported}
    listed = sorted(entries.values(), key=lambda entry: (list(ENDINGS).index(entry["format"]), -entry["megabytes"]))
    write_text(path, _card(path.stem, listed, metadata, dataset))


def is_card(path: Path) -> bool:
    """Whether a file is a model card of ours, or something else of that name."""
    return path.is_file() and FILES_MARK in path.read_text(encoding="utf-8", errors="replace")


def _earlier(path: Path, metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lines of files that are there still, as the card has them hidden; none if it is of other members."""
    if not path.exists():
        return []
    found = re.search(re.escape(FILES_MARK) + r"(.*?) -->", path.read_text(encoding="utf-8", errors="replace"))
    try:
        hidden = json.loads(found[1]) if found else {}
        entries = hidden["entries"] if hidden.get("members") == _identity(metadata) else []
        return [entry for entry in entries if (path.parent / entry["file"]).is_file() and entry["format"] in ENDINGS]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _identity(metadata: Mapping[str, Any]) -> list[Any]:
    """What files must have in common to be of one card."""
    keys = ("run", "config_hash", "weight", "shifts")
    return [[member.get(key) for key in keys] for member in metadata["members"]]


def _card(name: str, entries: Sequence[dict[str, Any]], metadata: Mapping[str, Any], dataset: str) -> str:
    classes = metadata["class_names"]
    members = counting_members(metadata)
    onnx = next((entry["file"] for entry in entries if entry["format"] == "onnx"), None)
    silence = f", silence at both ends cut ({metadata['trim_db']:g} dB below the peak)" if metadata["trim_db"] else ""
    fitted = "repeated" if metadata["fit"] == "tile" else "followed by silence"
    fixed = metadata.get("fitted_on") == "selection" or len(members[0]["folds"]) == 1
    whose = "the data's test fold" if fixed else "each of the training data's own folds"
    sections = [
        f"# {name}",
        f"Names sounds: {len(classes)} classes, by {sum(len(member['folds']) for member in members)} models of "
        f"{len(members)} {'member' if len(members) == 1 else 'members'} in one file.",
        "## What goes in and comes out",
        f"- In: `waveform` (B, T), float32 in [-1, 1], mono at **{metadata['sample_rate']} Hz**, of any length. "
        f"Inside, each clip is fitted to {metadata['clip_seconds']:g} s as in training{silence}: shorter ones are "
        f"{fitted}, of longer ones the middle is heard.",
        f"- Out: `probabilities` (B, {len(classes)}), calibrated, in the order of the classes below.",
        "\n".join(_use(onnx)) if onnx else "",
        "## Files",
        _table(
            FILE_COLUMNS,
            [_file_row(entry) for entry in entries],
        ),
        "From torch: the largest difference of a probability, on real clips alone, together and at odd lengths. Out of "
        "fold: each clip is heard only by the models that were not trained on it; in brackets the blend's stored "
        "logits of the same clips, under the same weights. New clips are heard by all models, which is usually better.",
        "## How good",
        _table(
            ["on the test fold" if fixed else "cross-fitted", "top-1", "95 % interval", "macro F1", "log loss", "ECE"],
            [_score_row(row) for row in metadata["scores"] if row["cross_fitted"]],
        ),
        f"Scores are of {whose}, predicted by models, weights and temperatures that have not "
        "seen it. They say nothing of sounds, microphones or noise that the data lacks.",
        "## Members",
        _table(
            ["run", "weight", "models", "time shifts, s"],
            [
                [
                    member["run"],
                    f"{member['weight']:.3f}",
                    str(len(member["folds"])),
                    ", ".join(f"{shift:g}" for shift in member["shifts"]),
                ]
                for member in members
            ],
        ),
        f"{metadata['combiner'].capitalize()} mean, temperature {metadata['temperature']:.3f}.",
        "## Data and licence",
        f"Trained on {dataset or 'data that the runs do not name'} (fingerprint {metadata['dataset_fingerprint']}). "
        + _licence(dataset),
        describe_shared_rules({member["run"]: member.get("shared_recordings", "") for member in members}),
        "## Classes",
        ", ".join(f"`{label}`" for label in classes),
        f"Made by esc_ensemble {__version__} with torch {metadata['torch']}.",
    ]
    hidden = json.dumps({"members": _identity(metadata), "entries": list(entries)}, ensure_ascii=False)
    hidden = hidden.replace("--", "-\\u002d")  # two hyphens would end the comment
    return "\n\n".join(section for section in sections if section) + f"\n\n{FILES_MARK}{hidden} -->\n"


def _use(file: str) -> list[str]:
    return [
        "```python",
        'from esc_ensemble.infer import Classifier  # of the Python package esc_ensemble, with its extra "infer"',
        "",
        f'for prediction in Classifier("{file}").predict(["sound.wav"]):',
        "    print(prediction.path, prediction.top(3))",
        "```",
    ]


def _file_row(entry: Mapping[str, Any]) -> list[str]:
    accuracy = entry["accuracy"]
    return [
        f"`{entry['file']}`",
        entry["precision"],
        f"{entry['megabytes']:.1f}",
        f"{entry['ms']:.1f}",
        f"{entry['real_time_factor']:.4f}",
        f"{entry['max_difference']:.1e}",
        f"{accuracy['top1']:.4f} ({accuracy['blend_top1']:.4f}), {accuracy['n_clips']} clips" if accuracy else DASH,
    ]


def _score_row(row: Mapping[str, Any]) -> list[str]:
    metrics, (low, high) = row["metrics"], row["top1_interval"]
    return [
        row["title"],
        f"{metrics['top1']:.4f}",
        f"{low:.4f} to {high:.4f}",
        *(f"{metrics[key]:.4f}" for key in ("macro_f1", "log_loss", "ece")),
    ]


def _licence(dataset: str) -> str:
    known = LICENCES.get(dataset)
    if known:
        return f"Its licence: {known}. Mind it when you ship the model."
    return "Mind the data's licence when you ship the model."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)

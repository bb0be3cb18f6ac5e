"""The words and tables of the page: everything in the evidence that is said rather than drawn."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from esc_ensemble.logits import describe_shared_rules
from esc_ensemble.metrics import score
from esc_ensemble.report.commands import commands, model_name
from esc_ensemble.report.evidence import Evidence, MemberEvidence
from esc_ensemble.report.recordings import FileFacts, Recordings
from esc_ensemble.report.tallies import final_gaps, has_selection, rank_confused, uncalibrated

DASH = "–"
MINUS = "−"
SIGNIFICANT = 0.05
MOST_PAIRS = 15


def page_texts(evidence: Evidence, recordings: Recordings, facts: FileFacts) -> dict[str, Any]:
    """Gives all texts and tables of the page by name."""
    return {
        "name": evidence.blend.get("name") or evidence.folder.name,
        "kind": evidence.kind,
        "n_members": len(evidence.members),
        "reason": evidence.blend["reason"] if len(evidence.members) > 1 else "",
        "warnings": list(evidence.blend["warnings"]),
        "facts": _facts(evidence),
        "headline": _headline(evidence),
        "score_rows": _score_rows(evidence),
        "has_selection_scores": any(row.get("selection") for row in evidence.scores),
        "fitted_on_selection": evidence.fitted_on_selection,
        "keeps_shared": ", ".join(
            member.name for member in evidence.members if member.entry.get("shared_recordings") == "keep"
        ),
        "comparisons": [_comparison(row) for row in evidence.blend["comparisons"]],
        "has_costs": any(member.entry.get("cost") for member in evidence.members),
        "has_class_weights": any(member.entry.get("class_weights") for member in evidence.members),
        "member_rows": [_member_row(member, one_fold=evidence.one_fold) for member in evidence.members],
        "protocols": sorted({has_selection(member) for member in evidence.members if member.histories}),
        "trainings": [_training(member, number) for number, member in enumerate(evidence.members)],
        "pairs": _pairs(evidence),
        "has_front": bool(evidence.blend["front"]),
        "audit": _audit(evidence, recordings, facts),
        "settings": _settings(evidence),
        "configs": [_config(member) for member in evidence.members],
        "commands": commands(evidence),
    }


def what_is_missing(evidence: Evidence) -> list[str]:
    """Says of each member what is not there, a sentence each."""
    return [
        f"Of {member.name} there is no more: {', '.join(member.missing)}."
        if member.folder.is_dir()
        else f"The run folder of {member.name} is gone; what blend.json and oof.npz hold of it is shown."
        for member in evidence.members
        if member.missing
    ]


def percent(value: float | None, digits: int = 1) -> str:
    """Gives 0.932 as 93.2, and a dash where there is nothing."""
    return DASH if value is None else f"{100.0 * value:.{digits}f}"


def number(value: float | None, digits: int = 3) -> str:
    """Gives a number with a fixed count of digits, and a dash where there is nothing."""
    return DASH if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int) -> str:
    """Gives a number with its sign, a true minus."""
    if value is None or not np.isfinite(value):
        return DASH
    return f"{value:+.{digits}f}".replace("-", MINUS)


def counted(n: int, noun: str, plural: str = "") -> str:
    """Gives `1 clip` or `2 clips`."""
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}".replace(",", " ")


def _facts(evidence: Evidence) -> list[str]:
    names = {str(member.manifest["dataset"]) for member in evidence.members if member.manifest.get("dataset")}
    facts = [
        *sorted(names),
        counted(len(evidence.clip_ids), "clip"),
        counted(len(evidence.class_names), "class", "classes"),
        counted(len(evidence.fold_numbers), "fold"),
    ]
    return [*facts, counted(len(evidence.members), "member")] if evidence.kind == "blend" else facts


def _headline(evidence: Evidence) -> dict[str, Any]:
    row = evidence.chosen
    metrics = row["metrics"]
    low, high = row.get("top1_interval") or (None, None)
    n_known = int(evidence.known.sum())
    tiles = [
        {"title": "top-3", "value": percent(metrics["top3"]), "unit": "%"},
        {"title": "macro F1", "value": percent(metrics["macro_f1"]), "unit": "%"},
        {"title": "log loss", "value": number(metrics["log_loss"]), "unit": ""},
        {"title": "calibration error", "value": percent(metrics["ece"]), "unit": "%"},
    ]
    return {
        "top1": percent(metrics["top1"], 2),
        "low": percent(low),
        "high": percent(high),
        "n_right": int((evidence.predicted == evidence.labels)[evidence.known].sum()),
        "n_known": n_known,
        "n_unknown": len(evidence.labels) - n_known,
        "cross_fitted": bool(row.get("cross_fitted", True)),
        "one_fold": evidence.one_fold,
        "title": row["title"],
        "tiles": tiles,
    }


def _score_rows(evidence: Evidence) -> list[dict[str, Any]]:
    rows = [_with_defaults(row) for row in evidence.scores]
    if evidence.kind == "run" and not rows[0]["uncalibrated"]:
        before = uncalibrated(evidence, evidence.members[0])
        rows[0]["uncalibrated"] = {} if before is None else score(before, evidence.labels)
    return [_score_row(row) for row in rows]


def _with_defaults(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "uncalibrated": row.get("uncalibrated") or {}}


def _score_row(row: dict[str, Any]) -> dict[str, Any]:
    metrics, over_folds = row["metrics"], row.get("over_folds") or {}
    before, selection = row["uncalibrated"], row.get("selection") or {}
    low, high = row.get("top1_interval") or (None, None)
    top1 = over_folds.get("top1")
    return {
        "title": row["title"],
        "chosen": row["name"] == "chosen",
        "in_sample": not row.get("cross_fitted", True),
        "cells": [
            percent(metrics["top1"], 2),
            f"{percent(low)}{DASH}{percent(high)}" if low is not None else DASH,
            f"{percent(top1['mean'])} ± {percent(top1['std'])}"
            if top1 and len(row.get("by_fold") or "12") > 1
            else DASH,
            percent(metrics["top3"], 2),
            percent(metrics["macro_f1"], 2),
            number(metrics["log_loss"]),
            number(before.get("log_loss")),
            percent(metrics["ece"]),
            percent(before.get("ece")),
            percent(selection.get("selection_top1"), 2),
            number(selection.get("selection_log_loss")),
        ],
    }


def _comparison(row: dict[str, Any]) -> dict[str, Any]:
    def span(name: str, factor: float, digits: int) -> str:
        interval = row.get(f"{name}_interval")
        if not interval:
            return DASH
        return " to ".join(signed(factor * end, digits) for end in interval)

    p = row.get("mcnemar_p")
    return {
        "title": row.get("title") or row.get("against", ""),
        "significant": p is not None and p < SIGNIFICANT,
        "cells": [
            signed(100 * row["top1"], 2),
            span("top1", 100, 2),
            signed(row["log_loss"], 4),
            span("log_loss", 1, 4),
            str(row.get("only_blend_right", DASH)),
            str(row.get("only_other_right", DASH)),
            DASH if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}",
        ],
    }


def _member_row(member: MemberEvidence, *, one_fold: bool) -> dict[str, Any]:
    entry = member.entry
    temperatures = list((entry.get("temperatures") or {}).values())
    shifts = entry.get("shifts") or []
    cost = entry.get("cost") or {}
    model = model_name(member)
    other = "the test fold" if one_fold else "other folds"
    return {
        "name": member.name,
        "cells": [
            model or DASH,
            percent(entry["weight"]),
            number(float(np.mean(temperatures))) if temperatures else DASH,
            "selection split" if entry.get("temperature_from") == "selection" else other,
            ", ".join(f"{shift:g}" for shift in shifts).replace("-", MINUS) or DASH,
            number(cost.get("ms"), 1),
            number(cost.get("megabytes"), 1),
        ],
    }


def _training(member: MemberEvidence, place: int) -> dict[str, Any]:
    selects = has_selection(member)
    rows = final_gaps(member)
    names = member.manifest.get("fold_names") or {}
    gaps = [row["loss_gap"] for row in rows if row["loss_gap"] is not None]
    return {
        "name": member.name,
        "chart": f"curves-{place}" if member.histories else "",
        "selects": selects,
        "mean_gap": signed(float(np.mean(gaps)), 0) if gaps else "",
        "rows": [
            [
                f"{row['fold']} ({names[str(row['fold'])]})" if str(row["fold"]) in names else str(row["fold"]),
                str(row["epochs"]),
                number(row["train_loss"]),
                number(row["other_loss"]),
                f"{signed(row['loss_gap'], 0)} %" if row["loss_gap"] is not None else DASH,
                percent(row["train_top1"]),
                percent(row["other_top1"]),
                signed(row["top1_gap"], 1),
            ]
            for row in rows
        ],
    }


def _pairs(evidence: Evidence) -> list[dict[str, Any]]:
    names = evidence.class_names
    return [
        {
            "true": names[pair.true],
            "predicted": names[pair.predicted],
            "cell": f"{pair.true},{pair.predicted}",
            "cells": [str(pair.n_clips), percent(pair.share), str(pair.n_reverse)],
        }
        for pair in rank_confused(evidence)[:MOST_PAIRS]
    ]


def _audit(evidence: Evidence, recordings: Recordings, facts: FileFacts) -> dict[str, Any]:
    known, folds = evidence.known, evidence.fold_numbers
    counts = np.zeros((len(evidence.class_names), len(folds)), dtype=np.int64)
    np.add.at(counts, (evidence.labels[known], np.searchsorted(folds, evidence.folds[known])), 1)
    sizes = counts.sum(axis=1)
    lines = [
        ("clips", f"{len(evidence.clip_ids)}, of {counted(len(np.unique(evidence.sources)), 'recording')}"),
        ("without a label", str(int((~known).sum()))),
        ("largest class", f"{evidence.class_names[int(sizes.argmax())]}, {percent(sizes.max() / sizes.sum())} %"),
        ("always naming it scores", f"{percent(sizes.max() / sizes.sum())} % top-1"),
        ("fingerprint of the data", str(evidence.blend.get("dataset_fingerprint") or DASH)),
    ]
    rules = {member.name: str(member.entry.get("shared_recordings") or "") for member in evidence.members}
    if shared := describe_shared_rules(rules):
        lines.append(("recordings in several folds", shared.partition(": ")[2]))
    if facts.seconds:
        seconds = np.array(facts.seconds)
        lines += [
            ("files found", f"{len(seconds)} of {len(evidence.clip_ids)} in {recordings.folder}"),
            ("length", f"{seconds.min():.3g} to {seconds.max():.3g} s, median {np.median(seconds):.3g} s"),
            ("sample rate", _tally(Counter({f"{rate / 1000:g} kHz": n for rate, n in facts.rates.items()}))),
            ("channels", _tally(Counter({str(channels): n for channels, n in facts.channels.items()}))),
            ("format", _tally(facts.formats)),
        ]
    manifests = [member.manifest for member in evidence.members if member.manifest]
    skipped = list(dict.fromkeys(str(text) for each in manifests for text in each.get("skipped_clips") or []))
    return {
        "lines": lines,
        "folds": list(folds),
        "classes": [
            {"name": name, "cells": [*map(int, row), int(row.sum())]}
            for name, row in zip(evidence.class_names, counts, strict=True)
        ],
        "totals": [*map(int, counts.sum(axis=0)), int(counts.sum())],
        "skipped": skipped,
        "knows_skipped": bool(manifests),
        "unreadable": facts.unreadable,
        "problem": recordings.problem,
    }


def _tally(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({n})" for name, n in counts.most_common(6))


def _settings(evidence: Evidence) -> list[tuple[str, str]]:
    if evidence.kind == "run":
        return []
    told = {key: evidence.blend.get(key) for key in ("combiner", "temperature", "fallback")}
    settings = evidence.blend.get("settings")
    asked = {key: value for key, value in settings.items() if value} if isinstance(settings, dict) else {}
    found = [(key.replace("_", " "), value) for key, value in (asked | told).items() if value is not None]
    return [
        (key, {True: "yes", False: "no"}[value] if isinstance(value, bool) else _plain(value)) for key, value in found
    ]


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _config(member: MemberEvidence) -> dict[str, Any]:
    manifest = member.manifest
    facts = [
        (key, str(manifest[key])) for key in ("seed", "protocol", "device", "precision", "threads") if key in manifest
    ]
    packages = manifest.get("packages")
    versions = {"python": manifest.get("python"), **(packages if isinstance(packages, dict) else {})}
    return {
        "name": member.name,
        "text": member.config_text,
        "facts": [*facts, ("settings' hash", str(member.entry.get("config_hash") or DASH))],
        "versions": ", ".join(f"{name} {found}" for name, found in versions.items() if found),
    }

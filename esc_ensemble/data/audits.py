"""What keeps a data set from honest scores: rare classes, names that repeat, recordings that folds share."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from esc_ensemble.data.audio_index import same_text
from esc_ensemble.data.clips import ALWAYS_TRAINED, Catalog, Clip
from esc_ensemble.data.tables import plural
from esc_ensemble.errors import DataError, list_problems
from esc_ensemble.progress import say

GO_ON_RARE = (
    "--rare-classes drop (leave such classes out) or --rare-classes train (always train on their clips, and never "
    "score them)"
)
GO_ON_SHARED = (
    "--data.shared-recordings keep (train on recordings that folds share, too), --sources files if each file is a "
    f"recording of its own, or {GO_ON_RARE}"
)


def describe_shared(catalog: Catalog, rule: str) -> list[str]:
    """Lists the recordings that have clips in several folds, one line each, after one that says what becomes of them.

    Args:
        catalog: the clips.
        rule: leave-out or keep, as in the setting data.shared_recordings.
    """
    shared = catalog.shared_recordings
    if not shared:
        return []
    clips = [np.flatnonzero(catalog.recordings == number) for number in shared]
    n_clips = sum(map(len, clips))
    becomes = (
        "such a clip is left out of the training of the fold that tests its partner (--data.shared-recordings keep "
        "trains on it, as published figures do)"
        if rule == "leave-out"
        else "all are trained on, as published figures do (--data.shared-recordings keep)"
    )
    lines = [f"{plural(len(shared), 'recording')} with {n_clips} clips in several folds: {becomes}"]
    for folds, indices in zip(shared.values(), clips, strict=True):
        names = ", ".join(dict.fromkeys(catalog.clips[index].source for index in indices))
        held = [(fold, int((catalog.folds[indices] == fold).sum())) for fold in folds]
        counts = ", ".join(f"{catalog.fold_title(fold)} ({n})" for fold, n in held)
        lines.append(f"{names}: {counts}")
    untrained = untrained_classes(catalog) if rule == "leave-out" else {}
    if untrained:
        label, titles = next(iter(untrained.items()))
        others = f" (the same of {plural(len(untrained) - 1, 'other class')})" if len(untrained) > 1 else ""
        lines.append(
            f'class "{catalog.class_names[label]}" then has no clip to train on while {", ".join(titles[:3])} is held '
            f"out{others}: go on with {GO_ON_SHARED}"
        )
    return lines


def untrained_classes(catalog: Catalog) -> dict[int, list[str]]:
    """Finds the classes all of whose clips outside some test fold are of recordings in it: label -> those folds."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for fold in catalog.test_folds:
        rest = (catalog.folds != fold) & ~np.isin(catalog.recordings, catalog.recordings[catalog.folds == fold])
        for label in np.setdiff1d(catalog.labels[catalog.folds != fold], [*catalog.labels[rest], -1]).tolist():
            found[label].append(catalog.fold_title(fold))
    return dict(found)


def say_shared(catalog: Catalog, rule: str) -> None:
    """Reports the recordings that have clips in several folds, where there are any."""
    first, *lines = describe_shared(catalog, rule) or [""]
    if first:
        say(list_problems(f"{first}:", lines))


def audited(catalog: Catalog, headline: str) -> Catalog:
    """Applies what was decided of rare classes, and refuses what cannot be cross-validated.

    Raises:
        DataError: all problems, and the flags that go on.
    """
    if catalog.whole:
        n_classes = len(catalog.class_names)
        problems = [] if n_classes > 1 else [f"it has {plural(n_classes, 'class')}, at least 2 are needed"]
    else:
        rare = rare_classes(catalog)
        if catalog.rare_classes and catalog.shared_recordings:
            rare |= dict.fromkeys(untrained_classes(catalog), "")
        if rare and catalog.rare_classes:
            catalog = _without_rare(catalog, rare)
            rare = {} if catalog.rare_classes == "train" else rare_classes(catalog)
        problems = [*audit_folds(catalog), *rare.values()]
        if rare:
            problems.append(f"go on with {GO_ON_RARE}")
    if problems:
        raise DataError(list_problems(f"{headline} ({plural(len(problems), 'problem')}):", problems))
    return catalog


def _without_rare(catalog: Catalog, rare: Mapping[int, str]) -> Catalog:
    names = ", ".join(catalog.class_names[label] for label in rare)
    since = f"since with a fold held out nothing is left to train on: {names}"
    if catalog.rare_classes == "train":
        say(f"Note: always trained on and never scored, {since}.")
        clips = [replace(clip, fold=ALWAYS_TRAINED) if clip.label in rare else clip for clip in catalog.clips]
        return replace(catalog, clips=tuple(clips))
    gone = sum(clip.label in rare for clip in catalog.clips)
    say(f"Note: left out, {since} ({plural(gone, 'clip')}).")
    stay = [label for label in range(len(catalog.class_names)) if label not in rare]
    index = {label: place for place, label in enumerate(stay)} | {-1: -1}
    return replace(
        catalog,
        clips=tuple(replace(clip, label=index[clip.label]) for clip in catalog.clips if clip.label not in rare),
        class_names=tuple(catalog.class_names[label] for label in stay),
        class_numbers=tuple(catalog.class_numbers[label] for label in stay) if catalog.class_numbers else (),
    )


def rare_classes(catalog: Catalog) -> dict[int, str]:
    """Finds the classes that have no clip to train on while some fold is held out: label -> what is wrong.

    Of a named split that is a class without a training clip.
    """
    folds_of_class: dict[int, set[int]] = {label: set() for label in range(len(catalog.class_names))}
    for clip in catalog.clips:
        if clip.label >= 0:
            folds_of_class[clip.label].add(clip.fold)
    found = {}
    for label, folds in folds_of_class.items():
        name, one = catalog.class_names[label], next(iter(folds), None)
        if catalog.fold_names:
            if catalog.fold_numbers and catalog.fold_numbers[0] not in folds and ALWAYS_TRAINED not in folds:
                found[label] = f'class "{name}" has no clip in {catalog.fold_title(catalog.fold_numbers[0])}'
        elif len(folds) == 1 and one != ALWAYS_TRAINED:
            sources = [clip.source for clip in catalog.clips if clip.label == label]
            size = f"{plural(len(sources), 'clip')}, {plural(len(set(sources)), 'recording')}"
            found[label] = (
                f'class "{name}" is in fold {one} alone ({size}): with that fold held out it has no clip to train on'
            )
    return found


def audit_folds(catalog: Catalog) -> list[str]:
    """Lists what keeps a data set from being cross-validated: fewer than two folds or classes, or an empty class."""
    problems: list[str] = []
    if len(catalog.class_names) < 2:
        named = f', "{catalog.class_names[0]}"' if catalog.class_names else ""
        problems.append(f"it has {plural(len(catalog.class_names), 'class')}{named}, at least 2 are needed")
    if catalog.clips and len(catalog.fold_numbers) < 2:
        advice = "take the column away to have folds made (--n-folds 5)" if catalog.published else "bring more clips"
        problems.append(f"all clips are in one fold, at least 2 folds are needed: {advice}")
    present = {clip.label for clip in catalog.clips}
    names = enumerate(catalog.class_names)
    problems += [f'class "{name}" has no clip' for label, name in names if label not in present]
    return problems


def alike_names(names: Iterable[str]) -> list[str]:
    """Warns of classes whose names differ only in case, spaces, width, or characters that are not seen."""
    by_form: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        visible = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
        by_form[re.sub(r"[\s_-]+", " ", visible).strip().casefold()].append(name)
    return [
        f"these classes look alike and may be one, though each is a class of its own here: "
        f"{', '.join(ascii(name) for name in sorted(group))}"
        for group in by_form.values()
        if len(group) > 1
    ]


def name_problems(clips: Sequence[Clip]) -> list[str]:
    """Lists clips that cannot be distinguished by their names, and names that cannot be printed."""
    problems = []
    by_id: defaultdict[str, list[str]] = defaultdict(list)
    by_path: defaultdict[Path, list[str]] = defaultdict(list)
    for clip in clips:
        by_id[same_text(clip.clip_id)].append(clip.clip_id)
        by_path[clip.path].append(clip.clip_id)
        if not clip.clip_id.isprintable():
            problems.append(f"file name {clip.clip_id!r} cannot be printed (not UTF-8?); rename the file")
    for ids in by_id.values():
        if len(ids) > 1:
            spellings = '", "'.join(dict.fromkeys(ids))
            problems.append(f'clip "{spellings}" is listed {len(ids)} times')
    for path, ids in by_path.items():
        if len({same_text(clip_id) for clip_id in ids}) > 1:
            names = '", "'.join(ids)
            problems.append(f'clips "{names}" are one file, {path}')
    return problems

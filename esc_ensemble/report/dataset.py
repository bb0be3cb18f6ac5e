"""A data set in one HTML file, to look at before training: counts, levels, audits, clips and their augmentations."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np

from esc_ensemble.config import DataConfig, TrainAConfig
from esc_ensemble.data.audits import alike_names, describe_shared
from esc_ensemble.data.cache import build_cache
from esc_ensemble.data.catalog import Catalog, load_for_inspection
from esc_ensemble.data.clips import ALWAYS_TRAINED
from esc_ensemble.data.duplicates import NEAR_SAMPLE_RATE, alike_across_folds, same_audio
from esc_ensemble.data.rows import ReadOptions
from esc_ensemble.data.statistics import BANDWIDTH_DB, SILENCE_DB, ClipStatistics, measure_all
from esc_ensemble.data.tables import plural
from esc_ensemble.errors import DataError
from esc_ensemble.files import check_writable
from esc_ensemble.progress import progress
from esc_ensemble.report import dataset_figures
from esc_ensemble.report.augmented import augmented, front_end
from esc_ensemble.report.clips import audio_uri, draw, waveform_picture
from esc_ensemble.report.recordings import hear
from esc_ensemble.report.shell import Charts, Written, write_page
from esc_ensemble.settings import to_yaml

MOST_CARDS = 60
"""Clips shown where nobody says how many."""
MOST_A_CLASS = 4
N_OUTLIERS = 5
LONG_ENDS_SECONDS = 0.5
MOST_LISTED = 50
NO_LABEL = "no label"
SHOWN = ("data", "frontend", "augment", "mix")
"""Groups of settings that the page depends on."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A catalog and what its clips hold."""

    catalog: Catalog
    refusal: str
    """The message with which training would refuse it; empty where it would not."""
    statistics: list[ClipStatistics | None]
    """For each clip; None where it cannot be decoded."""
    unreadable: list[str]

    @cached_property
    def good(self) -> np.ndarray:
        """Positions of the clips that could be decoded."""
        return np.array([n for n, each in enumerate(self.statistics) if each is not None], dtype=np.int64)

    @cached_property
    def groups(self) -> list[tuple[str, np.ndarray]]:
        """Name and clips of each class, and last those without a label."""
        labels = self.catalog.labels
        named = [(name, np.flatnonzero(labels == label)) for label, name in enumerate(self.catalog.class_names)]
        return [*named, (NO_LABEL, np.flatnonzero(labels < 0))] if (labels < 0).any() else named

    def values(self, name: str) -> np.ndarray:
        """Returns one figure of all clips, (N,); NaN where a clip could not be decoded."""
        return np.array([np.nan if each is None else getattr(each, name) for each in self.statistics])

    @cached_property
    def folds(self) -> list[tuple[int, str]]:
        """Numbers and titles of the folds; of a set without any, one column of all clips."""
        numbers = self.catalog.fold_numbers
        if self.catalog.whole or not numbers:
            return [(int(fold), "no fold") for fold in np.unique(self.catalog.folds)]
        always = [(ALWAYS_TRAINED, "always trained")] if (self.catalog.folds == ALWAYS_TRAINED).any() else []
        return [*((fold, self.catalog.fold_title(fold)) for fold in numbers), *always]

    @cached_property
    def counts(self) -> np.ndarray:
        """Clips of each group in each fold, (C, K)."""
        folds = self.catalog.folds
        return np.array([[int((folds[clips] == fold).sum()) for fold, _ in self.folds] for _, clips in self.groups])


def write_dataset_report(
    data: Path,
    options: ReadOptions,
    config: TrainAConfig,
    *,
    out: Path | None = None,
    clips_per_class: int = 0,
    n_augmented: int = 6,
    n_workers: int = 0,
) -> Written:
    """Writes the page of a data set, atomically.

    Args:
        data: a folder of any known layout, or of audio without labels.
        options: how it is read.
        config: how clips are cut, drawn and augmented.
        out: the file; NAME-data.html in the current folder where None.
        clips_per_class: clips with player and pictures; 0 takes a few, fewer of many classes.
        n_augmented: clips shown under every augmentation.
        n_workers: processes that decode; 0 takes the free cores.

    Raises:
        DataError: there are no clips, or the metadata breaks a rule.
        DiskError: the file cannot be written.
    """
    start = time.monotonic()
    catalog, refusal = load_for_inspection(data, options)
    path = out or Path(f"{catalog.name}-data.html")
    check_writable(path)
    results = measure_all([clip.path for clip in catalog.clips], n_workers)
    statistics = [each if isinstance(each, ClipStatistics) else None for each in results]
    dataset = Dataset(catalog, refusal, statistics, [each for each in results if isinstance(each, str)])
    if not len(dataset.good):
        raise DataError(f"None of the {len(results)} clips of {data} can be decoded: {dataset.unreadable[0]}")
    audits = audit(dataset, skip_bad=options.skip_bad, n_workers=n_workers)
    charts = Charts()
    names, groups = [name for name, _ in dataset.groups], [clips for _, clips in dataset.groups]
    charts.add("counts", dataset_figures.class_counts(names, [title for _, title in dataset.folds], dataset.counts))
    charts.add("durations", dataset_figures.durations(dataset.values("seconds")[dataset.good]))
    for key, (title, unit, value) in SPREADS.items():
        charts.add(key, dataset_figures.spread(names, [value(dataset)[clips] for clips in groups], title, unit))
    media: dict[str, Any] = {}
    cards, rest = _cards(dataset, clips_per_class, config, media)
    shown = _augmented([card for group in cards for card in group["cards"]], n_augmented, config, media)
    context = {
        **_texts(dataset),
        "audits": audits,
        "cards": cards,
        "rest": rest,
        "augmented": shown,
        "spreads": [{"title": title, "chart": key} for key, (title, _, _) in SPREADS.items()],
        "config": "".join(f"{name}:\n{indent(to_yaml(getattr(config, name)), '  ')}" for name in SHOWN),
        "fewer": "--clips-per-class, --augmented-clips",
    }
    n_bytes = write_page(path, "dataset", context, charts, {"media": media})
    n_cards = sum(len(group["cards"]) for group in cards)
    return Written(path, n_bytes, n_cards, round(time.monotonic() - start, 1), tuple(dataset.unreadable))


SPREADS: dict[str, tuple[str, str, Callable[[Dataset], np.ndarray]]] = {
    "rms": ("loudness (RMS)", "dB of full scale", lambda dataset: dataset.values("rms_db")),
    "peak": ("peak", "dB of full scale", lambda dataset: dataset.values("peak_db")),
    "silence": ("silence", "% of the clip", lambda dataset: 100.0 * dataset.values("silent")),
    "bandwidth": ("bandwidth", "kHz", lambda dataset: dataset.values("bandwidth") / 1000.0),
    "seconds": ("duration", "s", lambda dataset: dataset.values("seconds")),
}


MEDIANS = {"seconds": 2, "rms": 1, "silence": 0, "bandwidth": 1}
"""Figures in the table of classes, with their digits."""


def audit(dataset: Dataset, *, skip_bad: bool, n_workers: int = 0) -> list[dict[str, Any]]:
    """Lists what could spoil scores, each with `title`, a sentence `text`, further `items`, and whether it is `bad`."""
    found: list[dict[str, Any]] = []

    def add(title: str, text: str, items: Sequence[str] = (), *, bad: bool = False) -> None:
        more = [f"and {len(items) - MOST_LISTED} more"] * (len(items) > MOST_LISTED)
        found.append({"title": title, "text": text, "items": [*items[:MOST_LISTED], *more], "bad": bad})

    catalog = dataset.catalog
    if dataset.unreadable:
        n_clips = plural(len(dataset.unreadable), "clip")
        text = f"{n_clips} cannot be decoded and count in no figure; training needs --skip-bad."
        add("Unreadable clips", text, dataset.unreadable, bad=True)
    else:
        add("Unreadable clips", "All clips can be decoded.")
    if catalog.skipped:
        add("Skipped", f"{plural(len(catalog.skipped), 'clip')} left out by --skip-bad.", catalog.skipped, bad=True)
    good = replace(catalog, clips=tuple(catalog.clips[n] for n in dataset.good))
    copies = same_audio(good, [each.digest for each in dataset.statistics if each is not None])
    shared = [" = ".join(group) for group in copies.shared]
    if copies.problems:
        n_groups = plural(len(copies.problems), "group")
        text = f"{n_groups} of equal clips in several folds or classes: training refuses them."
        add("The same audio twice", text, copies.problems, bad=True)
    if shared:
        text = "Equal clips in several published folds count as one recording."
        add("The same audio in several folds", text, shared, bad=True)
    if copies.harmless:
        add("Copies inside a fold", "Equal clips of one fold, which leak into no score.", copies.harmless)
    if not (copies.problems or shared or copies.harmless):
        add("The same audio twice", "No two clips hold the same audio.")
    if copies.n_silent:
        add("Digital silence", f"{plural(copies.n_silent, 'clip')} of digital silence; these are not compared.")
    several = len(catalog.fold_numbers) > 1
    if several:
        first, *lines = describe_shared(replace(good, same_audio=copies.shared), "leave-out") or [""]
        text = f"{first}." if first else "No recording has clips in several folds."
        add("Recordings in several folds", text, lines, bad=bool(first))
        add(*_near_duplicates(dataset, skip_bad=skip_bad, n_workers=n_workers))
        found[-1]["bad"] = bool(found[-1]["items"])
    if alike := alike_names(catalog.class_names):
        add("Names of classes", "Some look alike.", alike, bad=True)
    sources = {name: len(np.unique(catalog.sources[clips])) for name, clips in dataset.groups if len(clips)}
    counts = np.array(list(sources.values()))
    text = f"{counts.min()} to {counts.max()} a class, median {np.median(counts):g}."
    few = [f"{name}: {plural(n, 'recording')}" for name, n in sources.items() if several and n < len(dataset.folds)]
    add("Recordings", text + (" Fewer than folds:" if few else ""), few)
    return found


def _near_duplicates(dataset: Dataset, *, skip_bad: bool, n_workers: int) -> tuple[str, str, list[str]]:
    """Looks for them in the waveforms that training at the default rate decodes, too."""
    title = "Nearly the same audio"
    try:
        if dataset.unreadable and not skip_bad:
            raise DataError("some clips cannot be decoded; --skip-bad leaves them out.")
        config = DataConfig(sample_rate=NEAR_SAMPLE_RATE)
        cache, catalog = build_cache(dataset.catalog, config, skip_bad=skip_bad, n_workers=n_workers)
    except DataError as error:
        return title, f"Not looked for: {error}", []
    alike = alike_across_folds(catalog, cache.batch)
    if not alike:
        return title, "No two folds hold nearly the same audio of different recordings.", []
    return title, "In several folds, of different recordings (similarity; worth a look):", alike


def _texts(dataset: Dataset) -> dict[str, Any]:
    catalog, good = dataset.catalog, [each for each in dataset.statistics if each is not None]
    seconds = np.array([each.seconds for each in good])
    sizes = dataset.counts.sum(axis=1)
    ends = [dataset.groups[int(position)][0] for position in (sizes.argmax(), sizes.argmin())]
    shares = [100 * float(size) / sizes.sum() for size in (sizes.max(), sizes.min())]
    rates, channels = Counter(each.sample_rate for each in good), Counter(each.n_channels for each in good)
    total = (seconds.sum() / 3600, "h") if seconds.sum() > 1000 else (seconds.sum(), "s")
    spanned = f"{seconds.min():.3g} to {seconds.max():.3g} s, median {np.median(seconds):.3g} s"
    balance = [("fingerprint of the data", catalog.fingerprint)]
    if np.ptp(sizes):
        balance += [
            ("largest class", f"{ends[0]}, {shares[0]:.1f} %"),
            ("smallest class", f"{ends[1]}, {shares[1]:.1f} %"),
        ]
    if len(sizes) > 1:
        balance.append(("always naming the largest class scores", f"{shares[0]:.1f} % top-1"))
    titles = [title for _, title in dataset.folds]
    medians = [(SPREADS[key][2](dataset), digits) for key, digits in MEDIANS.items()]
    return {
        "name": catalog.name,
        "facts": [
            plural(len(catalog.class_names), "class") if catalog.class_names else NO_LABEL,
            ", ".join(titles) if len(titles) <= 3 else plural(len(titles), "fold"),
            plural(len(np.unique(catalog.sources)), "recording"),
        ],
        "tiles": [
            ("clips", f"{len(catalog.clips):,}".replace(",", " "), ""),
            ("in all", f"{total[0]:.3g}", total[1]),
            ("median duration", f"{np.median(seconds):.3g}", "s"),
            ("median loudness", _number(_median(dataset.values("rms_db")), 1), "dBFS"),
        ],
        "refusal": dataset.refusal,
        "form": [
            ("durations", spanned if np.ptp(seconds) else f"all {seconds[0]:.3g} s"),
            ("sample rates", ", ".join(f"{rate / 1000:g} kHz ({n})" for rate, n in rates.most_common())),
            ("channels", ", ".join(f"{_channels(number)} ({n})" for number, n in channels.most_common())),
        ],
        "balance": balance,
        "levels": [
            ("with clipped samples", plural(sum(each.clipped > 0.0 for each in good), "clip")),
            (
                f"with more than {LONG_ENDS_SECONDS:g} s of silent ends",
                plural(sum(each.leading + each.trailing > LONG_ENDS_SECONDS for each in good), "clip"),
            ),
            ("of digital silence", plural(sum(not np.isfinite(each.rms_db) for each in good), "clip")),
        ],
        "silence_db": SILENCE_DB,
        "bandwidth_db": BANDWIDTH_DB,
        "outliers": _outliers(dataset),
        "folds": titles,
        "rows": [
            {
                "name": name,
                "cells": [
                    *dataset.counts[number].tolist(),
                    int(sizes[number]),
                    len(np.unique(catalog.sources[clips])),
                    *(_number(_median(values[clips]), digits) for values, digits in medians),
                ],
            }
            for number, (name, clips) in enumerate(dataset.groups)
        ],
        "totals": [*dataset.counts.sum(axis=0).tolist(), int(sizes.sum()), len(np.unique(catalog.sources))],
    }


def _outliers(dataset: Dataset) -> list[dict[str, Any]]:
    """Lists the clips at the ends of each figure that differs between clips, of few clips at most half of them."""
    found = []
    for title, name, sign, unit, scale in (
        ("Quietest", "rms_db", 1, "dBFS", 1.0),
        ("Loudest", "rms_db", -1, "dBFS", 1.0),
        ("Most silent", "silent", -1, "%", 100.0),
        ("Shortest", "seconds", 1, "s", 1.0),
        ("Longest", "seconds", -1, "s", 1.0),
        ("Most clipped", "clipped", -1, "%", 100.0),
        ("Narrowest band", "bandwidth", 1, "kHz", 1e-3),
    ):
        values = dataset.values(name) * scale
        usable = dataset.good[np.isfinite(values[dataset.good])]
        if name in ("silent", "clipped"):
            usable = usable[values[usable] > 0.0]
        if not len(usable) or np.ptp(values[usable]) < 1e-9:
            continue
        order = usable[np.argsort(sign * values[usable], kind="stable")][: min(N_OUTLIERS, -(-len(usable) // 2))]
        clips = [dataset.catalog.clips[n] for n in order]
        rows = [
            (clip.clip_id, dataset.catalog.class_name(clip) or NO_LABEL, f"{_number(values[n], 2)} {unit}")
            for n, clip in zip(order, clips, strict=True)
        ]
        found.append({"title": title, "rows": rows})
    return found


def _cards(
    dataset: Dataset, clips_per_class: int, config: TrainAConfig, media: dict[str, Any]
) -> tuple[list[dict[str, Any]], str]:
    """Chooses clips of each class, evenly from quiet to loud, and draws them; also reports what is left out."""
    groups, rest = list(enumerate(dataset.groups)), []
    count = clips_per_class or int(np.clip(MOST_CARDS // len(groups), 1, MOST_A_CLASS))
    if not clips_per_class and len(groups) > MOST_CARDS:
        chosen = np.linspace(0, len(groups) - 1, MOST_CARDS).round().astype(int)
        rest = [f"Shown are {MOST_CARDS} of the {len(groups)} classes; --clips-per-class 1 shows all."]
        groups = [groups[n] for n in chosen]
    loudness, frontend = dataset.values("rms_db"), front_end(config)
    rate = config.data.sample_rate
    cards: list[dict[str, Any]] = []
    with progress("Clips", len(groups), "classes", in_passing=True) as advance:
        for number, (name, clips) in groups:
            usable = np.intersect1d(clips, dataset.good)
            order = usable[np.argsort(loudness[usable], kind="stable")]
            ranks = np.linspace(0, len(order) - 1, count + 2)[1:-1].round().astype(np.int64)
            shown = order[np.unique(ranks)] if count < len(order) else order
            group: dict[str, Any] = {"id": f"class-{number}", "name": name, "n": len(clips), "cards": []}
            for position in shown:
                try:
                    heard = hear(dataset.catalog.clips[position].path, config.data)
                except DataError as error:  # too short at this rate
                    rest.append(str(error))
                    continue
                drawn = draw(heard.waveform, frontend, rate)
                drawn["pictures"].insert(0, waveform_picture(heard.waveform, drawn["span"], rate))
                media[str(position)] = {
                    "audio": audio_uri(heard.waveform, rate),
                    "seconds": round(len(heard.waveform) / rate, 4),
                    "own": round(heard.own_seconds, 4),
                    **drawn,
                }
                group["cards"].append(_card(dataset, int(position), name))
            cards.append(group)
            advance()
    return cards, " ".join(rest)


def _card(dataset: Dataset, position: int, name: str) -> dict[str, Any]:
    clip, figures = dataset.catalog.clips[position], dataset.statistics[position]
    assert figures is not None
    return {
        "key": str(position),
        "id": clip.clip_id,
        "class": name,
        "path": clip.path,
        "silent": not np.isfinite(figures.rms_db),
        "facts": [
            *([] if dataset.catalog.whole else [dict(dataset.folds).get(clip.fold, "")]),
            f"{figures.seconds:.3g} s",
            f"{figures.sample_rate / 1000:g} kHz {_channels(figures.n_channels)}",
            f"{_number(figures.rms_db, 1)} dBFS",
            f"{100 * figures.silent:.0f} % silent",
        ],
    }


def _augmented(
    cards: Sequence[dict[str, Any]], count: int, config: TrainAConfig, media: dict[str, Any]
) -> list[dict[str, Any]]:
    """Shows some of the clips, of as many classes as possible, under every augmentation."""
    by_class: dict[str, list[dict[str, Any]]] = {}
    for card in [card for card in cards if not card["silent"]] or cards:
        by_class.setdefault(card["class"], []).append(card)
    middle = [group[len(group) // 2] for group in by_class.values()]
    ranks = np.linspace(0, len(middle) - 1, min(count, len(middle))).round().astype(int)
    chosen = [middle[n] for n in np.unique(ranks)]
    frontend = front_end(config)
    shown: list[dict[str, Any]] = []
    with progress("Augmentations", len(chosen), in_passing=True) as advance:
        for number, card in enumerate(chosen):
            others = [each for each in (*chosen[number + 1 :], *chosen[:number], *cards) if each is not card]
            # The next one that sounds and is of another class, where there is one.
            ranked = [(each["silent"], each["class"] == card["class"], n) for n, each in enumerate(others)]
            partner = others[min(ranked)[2]] if others else None
            waveforms = [hear(each["path"], config.data).waveform for each in (card, partner) if each]
            names = (card["class"], partner["class"] if partner else "")
            other = waveforms[1] if partner else None
            items = []
            for item in augmented(waveforms[0], other, names, config, frontend, seed=int(card["key"])):
                key = f"{card['key']}-{item['name']}"
                media[key] = item.pop("media")
                items.append({**item, "key": key})
            shown.append({**card, "partner": partner, "items": items})
            advance()
    return shown


def _median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else np.nan


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−") if np.isfinite(value) else "–"


def _channels(number: int) -> str:
    return {1: "mono", 2: "stereo"}.get(number, f"{number} channels")

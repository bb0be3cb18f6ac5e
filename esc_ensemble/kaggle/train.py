"""Training inside a kernel: as much of the blend as a time budget allows, its predictions renewed after each part.

Needs torch, accelerate, pydantic, safetensors, filelock, soxr and scipy, which Kaggle's image has, and none of the
command line's packages.
"""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from esc_ensemble.blend.ensemble import blend_runs
from esc_ensemble.config import BlendConfig, DataConfig, TrainerConfig
from esc_ensemble.cores import free_cores
from esc_ensemble.data.audits import describe_shared
from esc_ensemble.data.cache import build_cache
from esc_ensemble.data.catalog import Catalog, load_catalog, load_unlabelled
from esc_ensemble.data.discovery import find_datasets
from esc_ensemble.data.rows import ReadOptions
from esc_ensemble.data.splits import folds_to_test, split_fold
from esc_ensemble.data.walk import AUDIO_SUFFIXES
from esc_ensemble.errors import ConfigError, DataError, did_you_mean
from esc_ensemble.export.source import read_source
from esc_ensemble.kaggle.budget import A_PRO, QUICK, A, Clock, Pace, Plan, Recipe, TimeIsUp, choose, plan_run
from esc_ensemble.kaggle.pace import Company, guess_company, measure_company, measure_pace, seen_pace
from esc_ensemble.processes import can_spawn
from esc_ensemble.testset.options import PredictOptions
from esc_ensemble.testset.predict import predict_test
from esc_ensemble.training.crossval import RunOptions, train_run

Better = Callable[[dict[int, np.ndarray], Sequence[str], Sequence[int]], None]
"""Is given probabilities (C,) by row, the classes' names, and the data set's own numbers of them, if any."""

N_FOLDS = 5
FLAGS = ("esc10", "n_folds", "table", "audio", "folders", "sources", "rare_classes", "whole_labels")
"""Flags of `esc-ens data info` that DATA_FLAGS may hold."""
EXAMPLE = re.compile(
    r"--(folders (classes|splits|folds)|sources (names|files)|rare-classes (drop|train)|n-folds \d+|table none|"
    r"whole-labels)\b"
)
"""A flag in a message that can be given as it stands there."""
SHARE = 0.9
"""Part of the time left that is planned with."""
LONG = 240.0
"""With so many seconds left it pays to measure what folds at once cost each other."""
MORE_LEAST = 0.5
"""A further member is trained if this part of its epochs fits, with all folds."""
MORE_SECONDS = 15.0
"""With fewer seconds left nothing more is begun."""


@dataclass(frozen=True)
class Job:
    """What is to be trained on, and what predicted."""

    inputs: tuple[Path, ...]
    """Folders in which training data is looked for; the first data set that can be read is taken."""
    clips: Mapping[int, Path]
    """Test audio by row."""
    work: Path
    """Where runs and blends go."""
    scratch: Path
    """Where decoded waveforms go."""
    within: str = ""
    """A part of the training data's path."""
    data_flags: str = ""
    """How the training data is read, as flags of `esc-ens data info`."""
    esc10: bool = False
    device: str = "auto"
    first: tuple[Recipe, ...] = (A, QUICK)
    """The first member: the first of these that fits."""
    second: Recipe | None = A_PRO


def train_and_predict(job: Job, seconds: float, better: Better, say: Callable[[str], None]) -> dict[int, str]:
    """Trains folds of the blend until the seconds are used up, and predicts the test clips after each part.

    Args:
        job: data and clips.
        seconds: that all of it may take.
        better: is given each new prediction, the last of which is the one to keep.
        say: prints news.

    Returns:
        Why a row has no prediction.

    Raises:
        EscError: the data cannot be used; flags that would help are shown as the notebook takes them.
    """
    clock = Clock.of(seconds)
    session = _Session(job, clock, better, say)
    try:
        with clock.stopping():
            session.run()
    except TimeIsUp:
        say("TIME_BUDGET is used up")
    except DataError as error:
        raise DataError(_with_data_flags(str(error))) from error
    return session.bad


def _with_data_flags(text: str) -> str:
    """Adds to a message that names flags of `esc-ens data info` where they go in a notebook."""
    if not re.search(rf"--({'|'.join(FLAGS)})\b".replace("_", "-"), text):
        return text
    found = EXAMPLE.search(text)
    example = found[0] if found else "--folders classes"
    return f'{text}\nIn this notebook such flags go into DATA_FLAGS, as in DATA_FLAGS = "{example}".'


def parse_data_flags(text: str) -> dict[str, Any]:
    """Reads flags of `esc-ens data info`, such as `--folders classes --n-folds 5 --whole-labels`.

    Raises:
        ConfigError: there is no such flag, or it lacks its value.
    """
    defaults = {each.name: each.default for each in fields(ReadOptions)}
    found: dict[str, Any] = {}
    words = deque(shlex.split(text))
    while words:
        name, _, value = words.popleft().removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if name not in FLAGS:
            raise ConfigError(f"DATA_FLAGS: there is no --{name.replace('_', '-')}.{did_you_mean(name, FLAGS, '--')}")
        if isinstance(defaults[name], bool):
            found[name] = True
            continue
        value = value or (words.popleft() if words else "")
        if not value or (isinstance(defaults[name], int) and not value.isdecimal()):
            raise ConfigError(f'DATA_FLAGS: --{name.replace("_", "-")} needs a value, found "{value}".')
        found[name] = int(value) if isinstance(defaults[name], int) else value
    return found


@dataclass
class _Session:
    """One start: what does not change, and how far it has come."""

    job: Job
    clock: Clock
    better: Better
    say: Callable[[str], None]
    runs: list[Path] = field(default_factory=list)
    """Those with finished folds, the first member first."""
    bad: dict[int, str] = field(default_factory=dict)
    """Why a row has no prediction."""

    def run(self) -> None:
        catalog = self._load()
        on_gpu = self.job.device != "cpu" and torch.cuda.is_available()
        n_parallel = 1 if on_gpu or not can_spawn() else free_cores()
        self.say(
            f"On {torch.cuda.get_device_name() if on_gpu else f'{free_cores()} CPU cores'}, torch {torch.__version__}"
        )
        company = self._company(n_parallel, catalog)
        data = DataConfig()
        folds = folds_to_test(catalog, data)
        sizes = {fold: len(split_fold(catalog, fold, data, 0).train) for fold in folds}
        paces = {recipe.name: self._pace(recipe, company, catalog) for recipe in self.job.first}
        plan = choose(self.job.first, sizes, paces, SHARE * self.clock.left)
        if plan is None:
            self.say("The time left is too short to train a single epoch.")
            return
        self.test = self._link_clips()
        catalog = self._decode(plan.recipe.config().data, catalog)
        # Decoding is behind: the plan is made again with the time that is really left.
        plan = choose(self.job.first[self.job.first.index(plan.recipe) :], sizes, paces, SHARE * self.clock.left)
        if plan is None:
            self.say("The time left is too short to train a single epoch.")
            return
        if not self._train(plan, catalog) or plan.n_folds < len(sizes):
            return
        if self.job.second is not None and self.clock.left > LONG:
            pace = self._pace(self.job.second, company, catalog)
            self._train_more(self.job.second, self.job.second.most_epochs, pace, catalog, sizes)
        pace = seen_pace(paces[plan.recipe.name], self.runs[0])
        self._train_more(plan.recipe.again(), plan.epochs, pace, catalog, sizes)

    def _load(self) -> Catalog:
        test = frozenset(self.job.clips.values())
        options = ReadOptions(
            rare_classes="train", skip_bad=True, search=self.job.inputs, leave_out=test, esc10=self.job.esc10
        )
        options = replace(options, **parse_data_flags(self.job.data_flags))
        candidates = find_datasets(self.job.inputs, test, self.job.within)
        self.say(f"Training data: {', '.join(map(str, candidates)) or 'none'}")
        reasons = [] if candidates else ["there is no table of clips and no folder of class folders"]
        for path in candidates:
            for n_folds in dict.fromkeys((options.n_folds, options.n_folds or N_FOLDS)):  # tables may have no folds
                try:
                    catalog = load_catalog(path, replace(options, n_folds=n_folds))
                except DataError as error:
                    reasons.append(str(error))
                    continue
                if len(catalog.skipped) > len(catalog.clips):
                    reasons.append(f"{path}: {len(catalog.skipped)} of its clips cannot be used: {catalog.skipped[0]}")
                    continue
                n_clips, n_classes, folds = len(catalog.clips), len(catalog.class_names), len(catalog.fold_numbers)
                self.say(f"Training on {path}: {n_clips} clips, {n_classes} classes, {folds} folds")
                for line in describe_shared(catalog, DataConfig().shared_recordings):
                    self.say(line)
                return catalog
        raise DataError("\n".join(["No training data can be used:", *dict.fromkeys(reasons)]))

    def _company(self, n_parallel: int, catalog: Catalog) -> Company:
        if self.clock.left < LONG:
            return guess_company(n_parallel)
        folder = self.job.scratch / "company"
        return measure_company(self.job.first[0], len(catalog.class_names), n_parallel, folder)

    def _pace(self, recipe: Recipe, company: Company, catalog: Catalog) -> Pace:
        pace = measure_pace(
            recipe,
            company,
            n_classes=len(catalog.class_names),
            n_test=len(self.job.clips),
            folder=self.job.scratch / f"pace-{recipe.name}",
            device=self.job.device,
        )
        self.say(f"{recipe.name}: {pace.clips_per_second:.0f} clips/s, {pace.n_parallel} folds at a time")
        return pace

    def _link_clips(self) -> Path:
        """Puts the test clips side by side under the numbers of their rows."""
        folder = self.job.scratch / "test"
        folder.mkdir(parents=True)
        for row, path in self.job.clips.items():
            suffix = path.suffix.lower()
            link = folder / f"{row:07d}{suffix if suffix in AUDIO_SUFFIXES else '.wav'}"
            try:
                link.symlink_to(path.resolve())
            except OSError:  # a system without links
                shutil.copyfile(path, link)
        return folder

    def _decode(self, data: DataConfig, catalog: Catalog) -> Catalog:
        """Decodes all clips, and gives the catalog of those that can be trained on."""
        cache = self.job.scratch / "cache"
        _, catalog = build_cache(catalog, data, cache_dir=cache, skip_bad=True)
        _, test = build_cache(load_unlabelled([self.test]), data, cache_dir=cache, skip_bad=True)
        for reason in test.skipped:
            found = re.search(r"(\d{7})\.\w+ *(.*)", reason, re.DOTALL)
            if found:
                self.bad[int(found[1])] = found[2]
        return catalog

    def _train(self, plan: Plan, catalog: Catalog) -> bool:
        """Trains wave after wave as long as they fit, and predicts; says whether all did.

        The first member predicts after each wave, with the folds that it has. A further one joins when it has them all:
        members of a blend hold the same folds.
        """
        config = plan.recipe.config(plan.epochs, plan.steps, self.job.device)
        self.say(
            f"Plan: {plan.n_folds} of {len(catalog.test_folds)} folds of {plan.recipe.name}, {plan.epochs} epochs "
            f"each, {len(plan.waves)} times about {plan.wave_seconds:.0f} s; {self.clock.left:.0f} s left"
        )
        run_dir = self.job.work / "runs" / plan.recipe.name
        first, longest = not self.runs, 0.0
        for wave in plan.waves:
            if longest > self.clock.left:
                self.say(f"It took {longest:.0f} s, {self.clock.left:.0f} s are left: the other folds are left out")
                return False
            start, whole = time.monotonic(), True
            try:
                with self.clock.stopping(self._reserve(plan)):
                    train_run(run_dir, config, catalog, self._options(wave, len(wave)))
            except TimeIsUp:
                self.say("Training was cut off, so that there is time to predict")
                whole = False
            if first:
                done = run_dir if any(run_dir.glob("fold-*/logits.npz")) else self._salvage(run_dir, config, catalog)
                if done is None:
                    return False
                self.runs = [done]
                self._predict()
            if not whole:
                return False
            longest = max(longest, time.monotonic() - start)
        if not first:
            self.runs.append(run_dir)
            self._predict()
        return True

    def _options(self, folds: tuple[int, ...], at_once: int) -> RunOptions:
        return RunOptions(folds=folds, cache_dir=self.job.scratch / "cache", skip_bad=True, parallel_folds=at_once)

    def _reserve(self, plan: Plan) -> float:
        """Seconds to keep for what comes after training."""
        return min(2.0 + 1.5 * plan.after_seconds, 0.5 * self.clock.left)

    def _salvage(self, run_dir: Path, config: TrainerConfig, catalog: Catalog) -> Path | None:
        """Makes a run of folds that were cut off, with the averaged weights that they had by then."""
        epochs = {}
        for path in sorted(run_dir.glob("fold-*/state.pt")):
            state = torch.load(path, map_location="cpu", weights_only=True)["state"]
            epochs[int(path.parent.name.removeprefix("fold-"))] = int(state["epoch"])
        if not epochs:
            self.say("No fold came as far as the end of its first epoch.")
            return None
        cut_dir = run_dir.with_name(f"{run_dir.name}-cut")
        for fold in epochs:
            (cut_dir / f"fold-{fold}").mkdir(parents=True)
            shutil.copyfile(run_dir / f"fold-{fold}" / "state.pt", cut_dir / f"fold-{fold}" / "state.pt")
        least = min(epochs.values())
        self.say(f"Folds {', '.join(map(str, epochs))} are taken as they were, after {least} epochs or more")
        short = config.model_copy(update={"train": config.train.model_copy(update={"epochs": least})})
        train_run(cut_dir, short, catalog, self._options(tuple(epochs), 1))
        return cut_dir

    def _train_more(self, recipe: Recipe, epochs: int, pace: Pace, catalog: Catalog, sizes: Mapping[int, int]) -> None:
        """Trains a further member if enough of it fits.

        Args:
            recipe: how.
            epochs: that it should have, half of which will do.
            pace: how fast.
            catalog: the clips.
            sizes: number of training clips of each fold.
        """
        enough = replace(recipe, fewest_steps=1)  # all folds, and then as many epochs as fit
        plan = plan_run(enough, sizes, pace, SHARE * self.clock.left) if self.clock.left > MORE_SECONDS else None
        if plan is None or plan.n_folds < len(sizes) or plan.epochs < MORE_LEAST * epochs:
            self.say(f"{self.clock.left:.0f} s are too few for {recipe.name}: it is left out")
            return
        self._train(plan, self._decode(recipe.config().data, catalog))

    def _predict(self) -> None:
        """Blends the folds that are finished, and hands on what they make of the test clips."""
        torch.set_num_threads(free_cores())
        folder, blend = self._blend()
        options = PredictOptions(device=self.job.device, cache_dir=self.job.scratch / "cache", skip_bad=True)
        predicted = predict_test(blend, folder, [self.test], out=folder / "rows.csv", options=options)
        chosen = next((row for row in blend["scores"] if row["name"] == "chosen"), blend["scores"][0])
        models = ", ".join(f"{member['run']} of {len(member['folds'])} folds" for member in blend["members"])
        fixed = blend["fitted_on"] == "selection" or len(blend["members"][0]["folds"]) == 1
        how = ("", "the test fold") if fixed else ("cross-fitted ", "their own folds")
        self.say(f"Blend of {models}: {how[0]}top-1 {chosen['metrics']['top1']:.4f} on {how[1]}")
        rows = [int(Path(str(clip_id)).stem) for clip_id in predicted.clip_ids]
        found = dict(zip(rows, predicted.prediction.probabilities, strict=True))
        self.better(found, predicted.class_names, blend["class_numbers"])

    def _blend(self) -> tuple[Path, dict[str, Any]]:
        """Gives the blend's folder and content; of one run that run itself."""
        if len(self.runs) == 1:
            return self.runs[0], read_source(self.runs[0], tta=True)
        folder = self.job.work / "submissions" / "blend"
        blend_runs(self.runs, BlendConfig(method="lbfgs", tta=True), folder)
        return folder, read_source(folder)

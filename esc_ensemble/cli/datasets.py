"""Commands that look at, download and make data sets. Heavy imports stand inside the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from esc_ensemble.cli.shared import read_options
from esc_ensemble.display import print_table
from esc_ensemble.errors import list_problems
from esc_ensemble.flags import CountOrAll, Flag, Json, ReadFlags


def info(
    data: Path,
    /,
    *,
    how: ReadFlags | None = None,
    check: Flag = False,
    as_json: Json = False,
) -> None:
    """Show a data set's classes, folds, durations, sample rates and channels, and audit it.

    Args:
        data: A folder of any known layout (docs/own-data.md), a table, or hf:OWNER/NAME.
        how: How the data set is read.
        check: Decode every clip too, as training would, and look for audio that is nearly the same in several folds.
        as_json: Print the result as JSON on stdout.
    """
    from esc_ensemble.config import DataConfig  # noqa: PLC0415
    from esc_ensemble.data.audits import describe_shared  # noqa: PLC0415
    from esc_ensemble.data.cache import build_cache  # noqa: PLC0415
    from esc_ensemble.data.catalog import load_catalog  # noqa: PLC0415
    from esc_ensemble.data.duplicates import NEAR_SAMPLE_RATE, alike_across_folds  # noqa: PLC0415
    from esc_ensemble.data.headers import read_headers  # noqa: PLC0415
    from esc_ensemble.data.summary import summarise  # noqa: PLC0415

    how = how or ReadFlags()
    catalog = load_catalog(data, read_options(how))
    alike: list[str] | None = None
    if check:
        config = DataConfig(sample_rate=NEAR_SAMPLE_RATE)
        cache, catalog = build_cache(catalog, config, skip_bad=how.skip_bad)
        alike = alike_across_folds(catalog, cache.batch)
    summary = summarise(catalog)
    headers = read_headers([clip.path for clip in catalog.clips])
    if as_json:
        content = {**summary.to_json(), **headers.to_json(), "near_duplicates": alike}
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    print_table(*summary.table())
    print("\n".join(headers.lines()))
    for line in describe_shared(catalog, "leave-out"):
        print(line)
    if alike:
        print(list_problems("Nearly the same audio in several folds, of different recordings (worth a look):", alike))
    elif alike is not None:
        print("No two folds hold nearly the same audio of different recordings.")


def report(
    data: Path,
    /,
    *,
    out: Path | None = None,
    config: Path | None = None,
    clips_per_class: CountOrAll = 0,
    augmented_clips: CountOrAll = 6,
    workers: CountOrAll = 0,
    how: ReadFlags | None = None,
    as_json: Json = False,
) -> None:
    """Show a data set in one HTML file: classes, folds, levels, audits, and clips with each augmentation.

    Args:
        data: A folder of any known layout (docs/own-data.md) or of audio without labels, a table, or hf:OWNER/NAME.
        out: The file; NAME-data.html in the current folder where not given.
        config: YAML file of train-a or train-a-pro, whose data, frontend, augment and mix are shown.
        clips_per_class: Clips of each class with player and pictures; 0 takes one to four.
        augmented_clips: Clips shown under every augmentation; 0 shows none.
        workers: Processes that decode; 0 takes the free cores.
        how: How the data set is read.
        as_json: Print the result as JSON on stdout.
    """
    from esc_ensemble.config import TrainAConfig  # noqa: PLC0415
    from esc_ensemble.report.dataset import SHOWN, write_dataset_report  # noqa: PLC0415
    from esc_ensemble.settings import build, read_yaml  # noqa: PLC0415

    content = read_yaml(config) if config else {}
    shown = {name: value for name, value in content.items() if name in SHOWN}
    written = write_dataset_report(
        data,
        read_options(how or ReadFlags()),
        build(TrainAConfig, shown, str(config)),
        out=out,
        clips_per_class=clips_per_class,
        n_augmented=augmented_clips,
        n_workers=workers,
    )
    if as_json:
        print(json.dumps(written.to_json()))
        return
    print(f"{written.path}  {written.n_bytes / 1e6:.1f} MB, {written.n_clips} clips, {written.seconds:.0f} s")
    if written.missing:
        print(list_problems(f"{len(written.missing)} cannot be decoded:", written.missing))


def folds(
    data: Path,
    *,
    out: Path = Path("folds.csv"),
    how: ReadFlags | None = None,
    limit: CountOrAll = 0,
    as_json: Json = False,
) -> None:
    """Write which clip is in which fold, for members from other frameworks (docs/foreign-members.md).

    Give the same flags of the data (--esc10, --n-folds, --limit, --skip-bad ...) as to the trainers: clips, folds and
    fingerprint are then theirs. With --skip-bad every clip is decoded, and those that cannot be are left out.

    Args:
        data: A folder of any known layout (docs/own-data.md), a table, or hf:OWNER/NAME.
        out: The CSV: clip_id, path, class, label, fold, source, not_in_training_of.
        how: How the data set is read.
        limit: Take at most this many clips, spread evenly over classes and folds; 0 takes all.
        as_json: Print fingerprint, class names and fold numbers as JSON on stdout.
    """
    from esc_ensemble.config import DataConfig  # noqa: PLC0415
    from esc_ensemble.data.cache import build_cache  # noqa: PLC0415
    from esc_ensemble.data.catalog import load_catalog, thin_out  # noqa: PLC0415
    from esc_ensemble.data.listing import describe_folds, write_folds  # noqa: PLC0415

    how = how or ReadFlags()
    catalog = load_catalog(data, read_options(how))
    catalog = thin_out(catalog, limit) if limit else catalog
    if how.skip_bad:
        _, catalog = build_cache(catalog, DataConfig(), skip_bad=True)
    write_folds(out, catalog)
    description = describe_folds(catalog)
    if as_json:
        print(json.dumps({"file": str(out), **description}, indent=2, ensure_ascii=False))
        return
    print(f"{out}: {description['n_clips']} clips in folds {', '.join(map(str, description['folds']))}")
    print(f"Dataset fingerprint: {description['dataset_fingerprint']}")


def fetch(name: Literal["esc50", "esc10", "urbansound8k"], /, *, out: Path = Path("data")) -> None:
    """Download an official data set and check its table and clips; a stopped download continues.

    Args:
        name: Which one.
        out: Folder to put it in.
    """
    from esc_ensemble.data.download import fetch as fetch_archive  # noqa: PLC0415

    print(fetch_archive(name, out))


def synth(out: Path, /, *, clips_per_class: int = 20, n_folds: int = 5, seed: int = 0) -> None:
    """Make a small data set of ten synthetic sounds, in ESC-50's layout.

    Args:
        out: Folder to make.
        clips_per_class: Clips of each sound.
        n_folds: Folds.
        seed: Start of the random numbers.
    """
    from esc_ensemble.data.synthetic import make_synthetic  # noqa: PLC0415

    print(make_synthetic(out, clips_per_class=clips_per_class, n_folds=n_folds, seed=seed))

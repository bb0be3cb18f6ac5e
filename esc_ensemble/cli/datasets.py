"""Commands that look at, download and make data sets. Heavy imports stand inside the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from esc_ensemble.display import print_table
from esc_ensemble.flags import CountOrAll, Flag, Json


def info(
    data: Path,
    /,
    *,
    esc10: Flag = False,
    n_folds: int = 0,
    check: Flag = False,
    as_json: Json = False,
) -> None:
    """Show a data set's classes and folds, and audit it.

    Args:
        data: Folder in ESC-50's or UrbanSound8K's layout, folder of class folders, or CSV.
        esc10: Keep only ESC-50's ten classes marked esc10.
        n_folds: Make this many folds by source, where the data has none.
        check: Decode every clip too, as training would.
        as_json: Print the result as JSON on stdout.
    """
    from esc_ensemble.config import DataConfig  # noqa: PLC0415
    from esc_ensemble.data.cache import build_cache  # noqa: PLC0415
    from esc_ensemble.data.catalog import load_catalog  # noqa: PLC0415
    from esc_ensemble.data.summary import summarise  # noqa: PLC0415

    catalog = load_catalog(data, esc10=esc10, n_folds=n_folds)
    if check:
        build_cache(catalog, DataConfig())
    summary = summarise(catalog)
    if as_json:
        print(json.dumps(summary.to_json(), indent=2, ensure_ascii=False))
    else:
        print_table(*summary.table())


def folds(
    data: Path,
    *,
    out: Path = Path("folds.csv"),
    esc10: Flag = False,
    n_folds: int = 0,
    limit: CountOrAll = 0,
    skip_bad: Flag = False,
    as_json: Json = False,
) -> None:
    """Write which clip is in which fold, for members from other frameworks (docs/foreign-members.md).

    Give the same --esc10, --n-folds, --limit and --skip-bad as to the trainers: clips, folds and fingerprint are then
    theirs.

    Args:
        data: Folder in ESC-50's or UrbanSound8K's layout, folder of class folders, or CSV.
        out: The CSV: clip_id, path, class, label, fold, source.
        esc10: Keep only ESC-50's ten classes marked esc10.
        n_folds: Make this many folds by source, where the data has none.
        limit: Take at most this many clips, spread evenly over classes and folds; 0 takes all.
        skip_bad: Decode every clip, and leave out those that cannot be decoded.
        as_json: Print fingerprint, class names and fold numbers as JSON on stdout.
    """
    from esc_ensemble.config import DataConfig  # noqa: PLC0415
    from esc_ensemble.data.cache import build_cache  # noqa: PLC0415
    from esc_ensemble.data.catalog import load_catalog, thin_out  # noqa: PLC0415
    from esc_ensemble.data.listing import describe_folds, write_folds  # noqa: PLC0415

    catalog = load_catalog(data, esc10=esc10, n_folds=n_folds)
    catalog = thin_out(catalog, limit) if limit else catalog
    if skip_bad:
        _, catalog = build_cache(catalog, DataConfig(), skip_bad=True)
    write_folds(out, catalog)
    description = describe_folds(catalog)
    if as_json:
        print(json.dumps({"file": str(out), **description}, indent=2, ensure_ascii=False))
        return
    print(f"{out}: {description['n_clips']} clips in folds {', '.join(map(str, description['folds']))}")
    print(f"Dataset fingerprint: {description['dataset_fingerprint']}")


def fetch(name: Literal["esc50", "esc10", "urbansound8k"], /, *, out: Path = Path("data")) -> None:
    """Download an official data set; a broken download goes on where it stopped.

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

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.config import DataConfig
from esc_ensemble.data.catalog import Catalog, Clip, load_catalog
from esc_ensemble.data.splits import FoldSplit, split_fold
from esc_ensemble.errors import DataError

SPECS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.integers(0, 5)), min_size=1, max_size=80)


def make_catalog(specs: list[tuple[int, int, int]]) -> Catalog:
    """From (label, fold, number of the source in the fold); a source may hold several classes."""
    clips = tuple(
        Clip(f"{index}.wav", Path(f"{index}.wav"), label, fold, f"{fold}-{source}")
        for index, (label, fold, source) in enumerate(specs)
    )
    return Catalog("made", Path(), clips, ("a", "b", "c"))


def check(catalog: Catalog, split: FoldSplit) -> None:
    parts = (split.train, split.selection, split.test)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(catalog.clips)))
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)
    assert (catalog.folds[split.test] == split.fold).all()
    assert (catalog.folds[split.train] != split.fold).all()
    sources = [set(catalog.sources[part].tolist()) for part in parts]
    assert not sources[0] & sources[1]
    assert not sources[2] & (sources[0] | sources[1])
    assert set(catalog.labels[split.train].tolist()) == set(range(len(catalog.class_names)))


@given(SPECS, st.sampled_from([0.0, 0.1, 0.3, 0.6]), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_any_split_is_clean_or_refused(specs: list[tuple[int, int, int]], fraction: float, seed: int) -> None:
    catalog = make_catalog(specs)
    for fold in catalog.fold_numbers:
        try:
            split = split_fold(catalog, fold, DataConfig(selection_fraction=fraction), seed)
        except DataError:
            continue
        check(catalog, split)
        assert (split.selection.size == 0) == (fraction == 0.0)


def test_split_does_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(1)
    specs = [(int(a), int(b), int(c)) for a, b, c in rng.integers((0, 1, 0), (3, 5, 6), size=(120, 3))]
    catalog = make_catalog(specs)
    shuffled = Catalog("made", Path(), catalog.clips[::-1], catalog.class_names)
    chosen = split_fold(catalog, 2, DataConfig(selection_fraction=0.3), 7).selection
    again = split_fold(shuffled, 2, DataConfig(selection_fraction=0.3), 7).selection
    assert set(catalog.clip_ids[chosen]) == set(shuffled.clip_ids[again])
    assert set(catalog.clip_ids[chosen]) != set(
        catalog.clip_ids[split_fold(catalog, 2, DataConfig(selection_fraction=0.3), 8).selection]
    )


def test_no_class_without_a_training_clip() -> None:
    catalog = make_catalog([(0, 1, 0), (1, 1, 0), (2, 1, 0), (0, 2, 0), (1, 2, 0)])
    with pytest.raises(DataError, match='class "c" has no clip outside fold 1'):
        split_fold(catalog, 1, DataConfig(), 0)


def test_unknown_fold_names_the_folds_there_are() -> None:
    with pytest.raises(DataError, match=r"no fold 9\. Its folds: 1, 2"):
        split_fold(make_catalog([(0, 1, 0), (1, 2, 0)]), 9, DataConfig(), 0)


def test_too_few_sources_for_a_selection_part() -> None:
    catalog = make_catalog([(label, fold, 0) for label in range(3) for fold in (1, 2)])
    with pytest.raises(DataError, match="selection_fraction"):
        split_fold(catalog, 1, DataConfig(selection_fraction=0.2), 0)


def test_clips_without_a_label_are_not_trained_on() -> None:
    catalog = make_catalog([(label, fold, label) for label in range(3) for fold in (1, 2)] + [(-1, 2, 9)])
    assert split_fold(catalog, 1, DataConfig(), 0).train.tolist() == [1, 3, 5]


def test_selection_is_stratified(synthetic_dir: Path) -> None:
    catalog = load_catalog(synthetic_dir)
    for fold in catalog.fold_numbers:
        split = split_fold(catalog, fold, DataConfig(selection_fraction=0.25), 0)
        check(catalog, split)
        assert np.bincount(catalog.labels[split.selection], minlength=10).tolist() == [2] * 10


def test_real_folds_are_split_evenly(esc10_dir: Path) -> None:
    catalog = load_catalog(esc10_dir)
    for fold in catalog.fold_numbers:
        split = split_fold(catalog, fold, DataConfig(selection_fraction=0.15), 3)
        check(catalog, split)
        counts = np.bincount(catalog.labels[split.selection], minlength=10)
        assert counts.min() >= 3  # 15 % of 32 are 4.8
        assert counts.max() <= 7

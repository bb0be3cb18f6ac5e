from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esc_ensemble.errors import LogitsError
from esc_ensemble.logits import (
    FoldLogits,
    LogitsPart,
    empty_part,
    logits_path,
    read_logits,
    read_run,
    write_logits,
)
from tests.blend.make_logits import make_labels, make_member, write_run

N, C = 6, 3
SHIFTS = np.array([-0.25, 0.0, 0.25], dtype=np.float32)


def _fold(**changes: Any) -> FoldLogits:
    rng = np.random.default_rng(0)
    test = LogitsPart(
        clip_ids=np.array([f"ü-{n}.wav" for n in range(N)]),
        labels=np.array([0, 1, 2, 0, 1, -1]),
        logits=rng.standard_normal((3, N, C)).astype(np.float32),
        sources=np.array(["a", "a", "b", "b", "c", "c"]),
    )
    fold = FoldLogits(
        test=test,
        selection=empty_part(3, C),
        shifts=SHIFTS,
        class_names=("dog", "cat", "räin"),
        fold=2,
        run="first",
        config_hash="c0ffee",
        dataset_fingerprint="f00d",
    )
    return replace(fold, **changes)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return {key: archive[key] for key in archive.files}


def test_what_is_written_is_read(tmp_path):
    fold = _fold()
    write_logits(tmp_path / "logits.npz", fold)
    read = read_logits(tmp_path / "logits.npz")
    for part in ("test", "selection"):
        for name in ("clip_ids", "labels", "logits"):
            np.testing.assert_array_equal(getattr(getattr(read, part), name), getattr(getattr(fold, part), name))
    assert read.test.sources is not None and read.test.sources.tolist() == ["a", "a", "b", "b", "c", "c"]
    assert read.selection.sources is None
    np.testing.assert_array_equal(read.shifts, SHIFTS)
    for name in ("class_names", "fold", "run", "config_hash", "dataset_fingerprint"):
        assert getattr(read, name) == getattr(fold, name)


def test_file_has_the_documented_keys_and_no_pickle(tmp_path):
    write_logits(tmp_path / "logits.npz", _fold(test=replace(_fold().test, sources=None)))
    with np.load(tmp_path / "logits.npz", allow_pickle=False) as archive:
        assert set(archive.files) == {
            "clip_ids", "labels", "logits", "shifts", "meta",
            "selection_clip_ids", "selection_labels", "selection_logits",
        }  # fmt: skip
        meta = json.loads(str(archive["meta"]))
    assert meta == {
        "schema": 1,
        "class_names": ["dog", "cat", "räin"],
        "fold": 2,
        "run": "first",
        "config_hash": "c0ffee",
        "dataset_fingerprint": "f00d",
        "shift_mode": "cyclic",
    }


def test_equal_content_gives_equal_bytes(tmp_path):
    fold = _fold()
    # The same texts in wider and in object arrays, the same numbers in another memory order.
    wide = replace(
        fold.test,
        clip_ids=fold.test.clip_ids.astype("U64"),
        sources=np.array(["a", "a", "b", "b", "c", "c"], dtype=object),
        logits=np.asfortranarray(fold.test.logits),
    )
    write_logits(tmp_path / "a.npz", fold)
    write_logits(tmp_path / "b.npz", replace(fold, test=wide))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def _save(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)


def _spoil(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Breaks one rule of a good file."""
    logits = arrays["logits"]
    meta = json.loads(str(arrays["meta"]))
    nan = logits.copy()
    nan[1, 2, 0] = np.nan
    changes: dict[str, dict[str, Any]] = {
        "logits without shifts": {"logits": logits[0]},
        "logits of another S": {"logits": logits[:2]},
        "logits of another N": {"logits": logits[:, :-1]},
        "logits of another C": {"logits": logits[:, :, :2]},
        "logits float64": {"logits": logits.astype(np.float64)},
        "logits NaN": {"logits": nan},
        "clip repeated": {"clip_ids": np.array(["x", "x", "c", "d", "e", "f"])},
        "clip nameless": {"clip_ids": np.array(["x", "", "c", "d", "e", "f"])},
        "clip numbers": {"clip_ids": np.arange(N)},
        "labels short": {"labels": arrays["labels"][:-1]},
        "labels int32": {"labels": arrays["labels"].astype(np.int32)},
        "labels too high": {"labels": np.full(N, C)},
        "labels below -1": {"labels": np.full(N, -2)},
        "sources short": {"sources": np.array(["a"])},
        "shifts without 0": {"shifts": np.array([-1, 1, 2], dtype=np.float32)},
        "shifts twice": {"shifts": np.array([0, 0, 1], dtype=np.float32)},
        "shifts NaN": {"shifts": np.array([0, np.nan, 1], dtype=np.float32)},
        "shifts float64": {"shifts": SHIFTS.astype(np.float64)},
        "selection logits of another C": {"selection_logits": np.zeros((3, 0, 2), dtype=np.float32)},
        "meta no JSON": {"meta": np.array("{")},
        "meta a list": {"meta": np.array("[1]")},
        "meta an array": {"meta": np.array(["{}"])},
        "meta schema": {"meta": np.array(json.dumps({**meta, "schema": 2}))},
        "meta fold": {"meta": np.array(json.dumps({**meta, "fold": True}))},
        "meta class twice": {"meta": np.array(json.dumps({**meta, "class_names": ["a", "b", "a"]}))},
        "meta no classes": {"meta": np.array(json.dumps({**meta, "class_names": []}))},
        "meta incomplete": {"meta": np.array(json.dumps({"schema": 1}))},
    }
    return {**arrays, **changes[name]}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "logits without shifts",
            r"logits must be float32 of shape \(3, 6, 3\), found .* shape \(6, 3\)",
        ),
        ("logits of another S", r"found float32 of shape \(2, 6, 3\)"),
        ("logits of another N", r"found float32 of shape \(3, 5, 3\)"),
        ("logits of another C", r"found float32 of shape \(3, 6, 2\)"),
        ("logits float64", "found float64"),
        ("logits NaN", "logits holds NaN or infinity for ü-2.wav"),
        ("clip repeated", "clip_ids repeats x"),
        ("clip nameless", "clip_ids holds an empty name"),
        ("clip numbers", "clip_ids must be str"),
        ("labels short", r"labels must be int64 of shape \(6,\)"),
        ("labels int32", "found int32"),
        ("labels too high", r"labels must lie in -1\.\.2, found 3"),
        ("labels below -1", "found -2"),
        ("sources short", "sources must be str"),
        ("shifts without 0", r"shifts must hold 0\.0"),
        ("shifts twice", "shifts holds a value twice"),
        ("shifts NaN", "shifts holds NaN"),
        ("shifts float64", "shifts must be float32"),
        ("selection logits of another C", "selection_logits must be float32"),
        ("meta no JSON", "meta is not valid JSON"),
        ("meta a list", "meta must be a JSON object"),
        ("meta an array", "meta must be one JSON text"),
        ("meta schema", "schema version is 2, this program reads 1"),
        ("meta fold", "fold must be a int, found True"),
        ("meta class twice", "class_names repeats a"),
        ("meta no classes", "class_names must hold at least one name"),
        ("meta incomplete", "meta has no class_names"),
    ],
)
def test_each_broken_rule_is_named_with_its_file(tmp_path, name, said):
    path = tmp_path / "logits.npz"
    write_logits(path, _fold())
    _save(path, _spoil(name, _arrays(path)))
    with pytest.raises(LogitsError, match=said) as caught:
        read_logits(path)
    assert str(path) in str(caught.value)


def test_all_broken_rules_come_at_once(tmp_path):
    path = tmp_path / "logits.npz"
    write_logits(path, _fold())
    broken = _spoil("shifts without 0", _spoil("logits NaN", _spoil("labels too high", _arrays(path))))
    _save(path, broken)
    with pytest.raises(LogitsError) as caught:
        read_logits(path)
    assert str(caught.value).count("\n  - ") == 3


def test_damaged_files_give_one_error_that_names_them(tmp_path):
    good = tmp_path / "good.npz"
    write_logits(good, _fold())
    data = good.read_bytes()
    arrays = _arrays(good)
    (tmp_path / "short.npz").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("not an archive")
    flipped = np.frombuffer(data, dtype=np.uint8).copy()
    flipped[len(data) // 3 :][:40] ^= 255
    (tmp_path / "flipped.npz").write_bytes(flipped.tobytes())
    _save(tmp_path / "pickled.npz", {**arrays, "labels": np.array([0, 1, 2, 0, 1, None], dtype=object)})
    _save(tmp_path / "keyless.npz", {key: value for key, value in arrays.items() if key != "shifts"})
    with (tmp_path / "single.npz").open("wb") as handle:
        np.save(handle, arrays["logits"])
    names = ("short", "empty", "text", "flipped", "pickled", "keyless", "single", "absent")
    for name in names:
        with pytest.raises(LogitsError, match=rf"{name}\.npz"):
            read_logits(tmp_path / f"{name}.npz")
    with pytest.raises(LogitsError, match="shifts is missing"):
        read_logits(tmp_path / "keyless.npz")


def test_nothing_wrong_is_written(tmp_path):
    path = tmp_path / "logits.npz"
    with pytest.raises(LogitsError, match="nothing was written"):
        write_logits(path, _fold(shifts=np.array([1.0, 2.0, 3.0], dtype=np.float32)))
    assert list(tmp_path.iterdir()) == []


def test_selection_must_not_share_clips_or_sources_with_test(tmp_path):
    fold = _fold()
    shared_clip = replace(fold.test, sources=None)
    with pytest.raises(LogitsError, match="clip_ids of the test part stand in the selection part too"):
        write_logits(tmp_path / "logits.npz", replace(fold, test=shared_clip, selection=shared_clip))
    other_clips = replace(fold.test, clip_ids=np.array([f"other-{n}" for n in range(N)]))
    with pytest.raises(LogitsError, match="sources of the test part stand in the selection part too: a, b"):
        write_logits(tmp_path / "logits.npz", replace(fold, selection=other_clips))


def _run(folder: Path, **options: Any) -> Path:
    labels = make_labels(12, C)
    return write_run(folder, make_member(labels, C, skill=2, seed=1), labels, np.arange(12) % 3 + 1, **options)


def test_run_is_its_folds_in_order(tmp_path):
    run = read_run(_run(tmp_path / "runs" / "first"))
    assert run.name == "first" and run.fold_numbers == (1, 2, 3)
    assert run.fold_of_clip.tolist() == [1] * 4 + [2] * 4 + [3] * 4
    assert run.clip_ids[:2].tolist() == ["clip-00000.wav", "clip-00003.wav"]
    assert run.logits.shape == (1, 12, C)
    assert run.sources.tolist() == run.clip_ids.tolist()


def test_run_without_logits_says_what_to_type(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "absent"):
        with pytest.raises(LogitsError, match=f"esc-ens train-a --run {name}"):
            read_run(tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"class_names": ("class 1", "class 0", "class 2")}, "another class_names"),
        ({"dataset_fingerprint": "other"}, "another dataset_fingerprint"),
        ({"config_hash": "other"}, "another config_hash"),
        ({"run": "other"}, "another run"),
        ({"fold": 9}, "says it is fold 9"),
    ],
)
def test_folds_of_a_run_must_agree(tmp_path, changes, said):
    folder = _run(tmp_path / "first")
    path = logits_path(folder, 2)
    write_logits(path, replace(read_logits(path), **changes))
    with pytest.raises(LogitsError, match=said) as caught:
        read_run(folder)
    assert "fold-2/logits.npz" in str(caught.value)


def test_folds_of_a_run_must_share_shifts(tmp_path):
    folder = _run(tmp_path / "first")
    path = logits_path(folder, 2)
    fold = read_logits(path)
    two = replace(fold.test, logits=np.repeat(fold.test.logits, 2, axis=0))
    write_logits(
        path,
        replace(fold, test=two, selection=empty_part(2, C), shifts=np.array([0.0, 0.5], dtype=np.float32)),
    )
    with pytest.raises(LogitsError, match=r"fold-2/logits\.npz has shifts \[0\.0, 0\.5\]"):
        read_run(folder)


def test_no_clip_is_tested_twice(tmp_path):
    folder = _run(tmp_path / "first")
    first, second = (read_logits(logits_path(folder, fold)) for fold in (1, 2))
    ids = second.test.clip_ids.copy()
    ids[0] = first.test.clip_ids[0]
    write_logits(logits_path(folder, 2), replace(second, test=replace(second.test, clip_ids=ids)))
    with pytest.raises(LogitsError, match=r"clip clip-00000\.wav is a test clip of fold-1.* and fold-2"):
        read_run(folder)


def test_shift_mode_is_kept_and_an_unknown_one_refused(tmp_path):
    path = tmp_path / "logits.npz"
    write_logits(path, replace(_fold(), shift_mode="zero"))
    assert read_logits(path).shift_mode == "zero"
    with np.load(path) as archive:
        arrays = dict(archive)
    meta = json.loads(str(arrays["meta"]))
    for change, said in (({"shift_mode": "mirror"}, "shift_mode must be cyclic or zero, found 'mirror'"), ({}, None)):
        new = {key: value for key, value in meta.items() if key != "shift_mode"} | change
        np.savez(path, **(arrays | {"meta": np.array(json.dumps(new))}))
        if said:
            with pytest.raises(LogitsError, match=said):
                read_logits(path)
        else:
            assert read_logits(path).shift_mode == "cyclic"  # files of earlier versions know no other

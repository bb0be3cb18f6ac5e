from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from esc_ensemble.errors import DataError
from esc_ensemble.submission import write_submission

IDS = ["b.wav", "a.wav", "c.wav"]
NAMES = ["dog", "rain, heavy", "cat"]
PROBABILITIES = np.array([[0.1, 0.7, 0.2], [0.8, 0.1, 0.1], [0.2, 0.2, 0.6]], dtype=np.float32)


def _write(tmp_path, sample_text: str | None, ids=IDS, probabilities=PROBABILITIES, names=NAMES) -> pd.DataFrame:
    sample = None
    if sample_text is not None:
        sample = tmp_path / "sample_submission.csv"
        sample.write_text(sample_text, encoding="utf-8")
    write_submission(tmp_path / "submission.csv", ids, probabilities, NAMES, sample)
    return pd.read_csv(tmp_path / "submission.csv", dtype={0: str})


def test_without_a_sample(tmp_path):
    table = _write(tmp_path, None)
    assert list(table.columns) == ["clip_id", "label"]
    assert table.clip_id.tolist() == IDS and table.label.tolist() == ["rain, heavy", "dog", "cat"]
    assert (tmp_path / "submission.csv").read_bytes() == (b'clip_id,label\nb.wav,"rain, heavy"\na.wav,dog\nc.wav,cat\n')


def test_label_sample_keeps_its_header_and_order(tmp_path):
    table = _write(tmp_path, "\ufefffname,target\r\na.wav,dog\r\nc.wav,dog\r\nb.wav,dog\r\n")
    assert list(table.columns) == ["fname", "target"]
    assert table.fname.tolist() == ["a.wav", "c.wav", "b.wav"]
    assert table.target.tolist() == ["dog", "cat", "rain, heavy"]


def test_rows_that_are_not_asked_for_are_left_out(tmp_path):
    assert _write(tmp_path, "id,label\nc.wav,x\n").values.tolist() == [["c.wav", "cat"]]


def test_probability_sample_keeps_its_order_of_classes(tmp_path):
    table = _write(tmp_path, 'id,cat,dog,"rain, heavy"\na.wav,0,0,0\nb.wav,0,0,0\n')
    assert list(table.columns) == ["id", "cat", "dog", "rain, heavy"]
    assert table.id.tolist() == ["a.wav", "b.wav"]
    np.testing.assert_allclose(table[NAMES].to_numpy(), PROBABILITIES[[1, 0]], rtol=1e-6)
    assert not table.isna().any().any()


@pytest.mark.parametrize("wanted", ["a", "a.wav", "a.OGG"])
def test_ids_match_with_or_without_suffix(tmp_path, wanted):
    assert _write(tmp_path, f"id,label\n{wanted},x\n").values.tolist() == [[wanted, "dog"]]
    bare = _write(tmp_path, f"id,label\n{wanted},x\n", ids=["b", "a", "c"])
    assert bare.values.tolist() == [[wanted, "dog"]]


def test_other_dots_belong_to_the_id(tmp_path):
    table = _write(tmp_path, "id,label\n1.2,x\n1.3,x\n1.4,x\n", ids=["1.2", "1.3", "1.4"])
    assert table.label.tolist() == ["rain, heavy", "dog", "cat"]


def test_exact_id_comes_first_and_doubt_is_named(tmp_path):
    ids = ["a.wav", "a.ogg", "c.wav"]
    assert _write(tmp_path, "id,label\na.ogg,x\n", ids=ids).label.tolist() == ["dog"]
    with pytest.raises(DataError, match=r"a could be a\.wav or a\.ogg"):
        _write(tmp_path, "id,label\na,x\n", ids=ids)


def test_missing_predictions_are_listed(tmp_path):
    with pytest.raises(DataError, match=r"(?s)2 of 3 ids in .*d\.wav was not predicted.*e\.wav was not"):
        _write(tmp_path, "id,label\nd.wav,x\na.wav,x\ne.wav,x\n")
    assert not (tmp_path / "submission.csv").exists()


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ("", "header of at least two columns"),
        ("id,label\n", "header of at least two columns"),
        ("id\na.wav\n", "header of at least two columns"),
        ("id,label\na.wav\n", "row 2 has 1 columns, the header has 2"),
        ("id,label\na.wav,x\na.wav,x\n", "id a.wav stands in 2 rows"),
        ("id,dog,cat,cow\na.wav,0,0,0\n", "(?s)one column for each of the 3 classes.*cow.*rain, heavy"),
        ("id,dog,cat,cat\na.wav,0,0,0\n", "rain, heavy"),
    ],
)
def test_samples_that_cannot_be_used(tmp_path, sample, said):
    with pytest.raises(DataError, match=said) as caught:
        _write(tmp_path, sample)
    assert "sample_submission.csv" in str(caught.value)


def test_absent_sample_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv does not exist"):
        write_submission(tmp_path / "submission.csv", IDS, PROBABILITIES, NAMES, tmp_path / "none.csv")


def test_wrong_predictions_are_refused(tmp_path):
    nan = PROBABILITIES.copy()
    nan[1, 0] = np.nan
    with pytest.raises(DataError, match=r"a\.wav has a probability that is NaN"):
        _write(tmp_path, None, probabilities=nan)
    with pytest.raises(DataError, match=r"a\.wav is predicted 2 times"):
        _write(tmp_path, None, ids=["a.wav", "a.wav", "c.wav"])
    with pytest.raises(DataError, match="for 3 clips and 3 classes"):
        _write(tmp_path, None, probabilities=PROBABILITIES[:, :2])

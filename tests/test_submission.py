from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esc_ensemble.errors import DataError
from esc_ensemble.submission import Form, check_submission, write_submission
from esc_ensemble.submission_rules import cell_number, number_written

IDS = ["b.wav", "a.wav", "c.wav"]
NAMES = ["dog", "rain, heavy", "cat"]
PROBABILITIES = np.array([[0.1, 0.7, 0.2], [0.8, 0.1, 0.1], [0.2, 0.2, 0.6]], dtype=np.float32)


def _write(
    tmp_path: Path,
    sample_text: str | None,
    ids: Sequence[str] = IDS,
    probabilities: np.ndarray = PROBABILITIES,
    **form: Any,
) -> pd.DataFrame:
    sample = None
    if sample_text is not None:
        sample = tmp_path / "sample_submission.csv"
        sample.write_text(sample_text, encoding="utf-8")
    wanted = Form(**{"class_names": tuple(NAMES), "sample": sample, **form})
    write_submission(tmp_path / "submission.csv", ids, probabilities, wanted)
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
        check_submission(IDS, Form(tuple(NAMES), sample=tmp_path / "none.csv"))


def test_wrong_predictions_are_refused(tmp_path):
    nan = PROBABILITIES.copy()
    nan[1, 0] = np.nan
    with pytest.raises(DataError, match=r"a\.wav has a probability that is NaN"):
        _write(tmp_path, None, probabilities=nan)
    with pytest.raises(DataError, match=r"a\.wav is predicted 2 times"):
        _write(tmp_path, None, ids=["a.wav", "a.wav", "c.wav"])
    with pytest.raises(DataError, match="for 3 clips and 3 classes"):
        _write(tmp_path, None, probabilities=PROBABILITIES[:, :2])


def test_an_id_in_several_rows_gets_its_prediction_in_each(tmp_path):
    table = _write(tmp_path, "id,label\na.wav,dog\nc.wav,dog\na.wav,dog\na.wav,dog\n", ids=["b", "a.wav", "c"])
    assert table.label.tolist() == ["dog", "cat", "dog", "dog"]
    table = _write(tmp_path, 'id,cat,dog,"rain, heavy"\na.wav,0,0,0\na.wav,0,0,0\n')
    np.testing.assert_allclose(table[NAMES].to_numpy(), PROBABILITIES[[1, 1]], rtol=1e-6)


# --- class numbers: those of the data set, with gaps


NUMBERS = (41, 0, 7)
AS_NUMBERS = {"a.wav": 41, "b.wav": 0, "c.wav": 7}


def test_a_sample_of_whole_numbers_wants_class_numbers(tmp_path, capsys):
    table = _write(tmp_path, "id,target\nc.wav,0\na.wav,0\nb.wav,0\n", class_numbers=NUMBERS)
    assert dict(table.values.tolist()) == AS_NUMBERS
    assert (tmp_path / "submission.csv").read_text() == "id,target\nc.wav,7\na.wav,41\nb.wav,0\n"
    assert capsys.readouterr().err == ""


def test_unknown_class_numbers_follow_the_order_of_the_classes_and_that_is_said(tmp_path, capsys):
    table = _write(tmp_path, "id,target\na.wav,0\nb.wav,2\nc.wav,1.0\n")
    assert table.target.tolist() == [0, 1, 2]
    assert "class numbers are not known; 0 to 2" in capsys.readouterr().err


def test_numbers_in_the_sample_that_no_class_has_are_named(tmp_path, capsys):
    _write(tmp_path, "id,target\na.wav,0\nb.wav,5\n", class_numbers=NUMBERS)
    assert "holds 5; the classes' numbers are 41, 0, 7" in capsys.readouterr().err


def test_classes_that_are_named_by_numbers_keep_their_names(tmp_path):
    table = _write(tmp_path, "id,label\na.wav,0\nb.wav,0\n", class_names=("07", "1", "20"))
    assert (tmp_path / "submission.csv").read_text() == "id,label\na.wav,07\nb.wav,1\n"
    assert len(table) == 2


@pytest.mark.parametrize("cells", [("dog", "3"), ("", ""), ("x", "y")])
def test_all_other_label_columns_want_names(tmp_path, cells):
    table = _write(tmp_path, f"id,label\na.wav,{cells[0]}\nb.wav,{cells[1]}\n", class_numbers=NUMBERS)
    assert table.label.tolist() == ["dog", "rain, heavy"]


def test_empty_cells_beside_numbers_say_nothing(tmp_path):
    table = _write(tmp_path, "id,label\na.wav,\nb.wav,7\n", class_numbers=NUMBERS)
    assert table.label.tolist() == [41, 0]


def test_fractions_in_the_label_column_ask_what_is_wanted(tmp_path):
    sample = "id,label\na.wav,0.5\nb.wav,0\n"
    with pytest.raises(DataError, match=r"numbers such as 0\.5.*--labels names or --labels numbers"):
        _write(tmp_path, sample, class_numbers=NUMBERS)
    assert _write(tmp_path, sample, class_numbers=NUMBERS, labels="numbers").label.tolist() == [41, 0]
    assert _write(tmp_path, sample, class_numbers=NUMBERS, labels="names").label.tolist() == ["dog", "rain, heavy"]


def test_columns_may_be_named_by_class_numbers(tmp_path):
    table = _write(tmp_path, "\ufeffid,0,41,7\nc.wav,0,0,0\na.wav,0,0,0\n", class_numbers=NUMBERS)
    assert list(table.columns) == ["id", "0", "41", "7"]
    np.testing.assert_allclose(table[["41", "0", "7"]].to_numpy(), PROBABILITIES[[2, 1]], rtol=1e-6)


def test_columns_of_other_numbers_are_named(tmp_path):
    with pytest.raises(DataError, match=r"(?s)by name or by number.*- 1\n.*- 2\n.*- 41\n.*- 7"):
        _write(tmp_path, "id,0,1,2\na.wav,0,0,0\n", class_numbers=NUMBERS)


@pytest.mark.parametrize(
    ("sample", "labels"),
    [("id,label\na.wav,0\n", "probabilities"), ('id,dog,cat,"rain, heavy"\na.wav,0,0,0\n', "numbers")],
)
def test_labels_that_the_sample_has_no_place_for_are_refused(tmp_path, sample, labels):
    with pytest.raises(DataError, match="Leave --labels out"):
        _write(tmp_path, sample, labels=labels)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ("names", 'clip_id,label\nb.wav,"rain, heavy"\na.wav,dog\nc.wav,cat\n'),
        ("numbers", "clip_id,label\nb.wav,0\na.wav,41\nc.wav,7\n"),
        ("probabilities", None),
    ],
)
def test_without_a_sample_labels_are_chosen(tmp_path, labels, text):
    table = _write(tmp_path, None, labels=labels, class_numbers=NUMBERS)
    if text is not None:
        assert (tmp_path / "submission.csv").read_text() == text
        return
    assert list(table.columns) == ["clip_id", *NAMES]
    np.testing.assert_allclose(table[NAMES].to_numpy(), PROBABILITIES, rtol=1e-6)


# --- ids


@pytest.mark.parametrize(
    ("wanted", "had"), [("a.wav", "test/a.wav"), ("test/a.wav", "a.ogg"), ("a", "x/test/a.wav"), ("test/a", "x/test/a")]
)
def test_ids_may_be_named_from_a_folder_further_up(tmp_path, wanted, had):
    table = _write(tmp_path, f"id,label\n{wanted},x\n", ids=["x/b.wav", had, "c.wav"])
    assert table.values.tolist() == [[wanted, "dog"]]


def test_another_folder_is_another_clip(tmp_path):
    with pytest.raises(DataError, match=r"one/a\.wav was not predicted"):
        _write(tmp_path, "id,label\none/a.wav,x\n", ids=["b.wav", "two/a.wav", "c.wav"])
    with pytest.raises(DataError, match=r"a could be one/a\.wav or two/a\.wav"):
        _write(tmp_path, "id,label\na,x\n", ids=["one/a.wav", "two/a.wav", "c.wav"])


def test_no_prediction_serves_two_ids(tmp_path):
    with pytest.raises(DataError, match=r"a\.wav and a\.ogg would both be a\.wav"):
        _write(tmp_path, "id,label\na.wav,x\na.ogg,x\n")
    assert not (tmp_path / "submission.csv").exists()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_order_each_id_gets_its_own_row(tmp_path, data):
    stems = st.text("abcXYZ019_-. ", min_size=1, max_size=6).filter(lambda text: text == text.strip(" ."))
    ids = data.draw(st.lists(stems, min_size=1, max_size=12, unique=True))
    suffixes = [data.draw(st.sampled_from(["", ".wav", ".ogg"])) for _ in ids]
    had = [f"{clip_id}{suffix}" for clip_id, suffix in zip(ids, suffixes, strict=True)]
    probabilities = np.random.default_rng(len(ids)).dirichlet(np.ones(3), len(ids))
    wanted = data.draw(st.permutations(ids))[: data.draw(st.integers(1, len(ids)))]
    body = "".join(f"{clip_id},0,0,0\n" for clip_id in wanted)
    table = _write(tmp_path, f"id,7,41,0\n{body}", ids=had, probabilities=probabilities, class_numbers=NUMBERS)
    table = pd.read_csv(tmp_path / "submission.csv", dtype={"id": str}, keep_default_na=False)
    assert table.id.tolist() == wanted
    for clip_id, row in zip(wanted, table[["41", "0", "7"]].to_numpy(), strict=True):
        np.testing.assert_allclose(row, probabilities[ids.index(clip_id)], rtol=1e-6)


# --- Unicode: composed (NFC) and decomposed (NFD)

SPELLED = ["gr\u00f6\u00dfe", "caf\u00e9", "\u3054\u306f\u3093", "\ud55c\uae00"]


@pytest.mark.parametrize(("of_sample", "of_files"), [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize(("wanted", "had"), [("{}.wav", "{}.wav"), ("{}", "test/{}.wav"), ("test/{}.ogg", "{}.wav")])
def test_ids_match_in_another_unicode_form(tmp_path, of_sample, of_files, wanted, had):
    ids = [had.format(normalize(of_files, name)) for name in SPELLED]
    asked = [wanted.format(normalize(of_sample, name)) for name in SPELLED]
    body = "".join(f"{clip_id},dog\n" for clip_id in asked)
    table = _write(tmp_path, f"id,label\n{body}", ids=ids, probabilities=np.eye(3)[[0, 1, 2, 1]])
    assert table.id.tolist() == asked
    assert table.label.tolist() == ["dog", "rain, heavy", "cat", "rain, heavy"]


def test_an_id_of_the_same_spelling_comes_first(tmp_path):
    ids = [normalize(form, "caf\u00e9.wav") for form in ("NFD", "NFC")]
    body = "".join(f"{clip_id},dog\n" for clip_id in (ids[1], ids[0]))
    table = _write(tmp_path, f"id,label\n{body}", ids=ids, probabilities=np.eye(3)[:2])
    assert table.label.tolist() == ["rain, heavy", "dog"]


@pytest.mark.parametrize(("of_sample", "of_model"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_class_names_are_written_as_the_sample_spells_them(tmp_path, capsys, of_sample, of_model):
    names = tuple(normalize(of_model, name) for name in SPELLED[:3])
    wanted = [normalize(of_sample, name) for name in SPELLED[:3]]
    table = _write(tmp_path, f"id,label\na.wav,{wanted[1]}\nb.wav,{wanted[1]}\n", class_names=names)
    assert table.label.tolist() == [wanted[0], wanted[1]]
    table = _write(tmp_path, f"id,{','.join(wanted[::-1])}\na.wav,0,0,0\n", class_names=names)
    assert list(table.columns) == ["id", *wanted[::-1]]
    np.testing.assert_allclose(table.to_numpy()[0, 1:].astype(float), PROBABILITIES[1, ::-1], rtol=1e-6)
    assert capsys.readouterr().err == ""


# --- several labels in a cell


@pytest.mark.parametrize(
    ("cell", "names", "written"),
    [
        ("cat dog", ("dog", "rain", "cat"), "rain cat"),
        ("cat dog rain", ("dog", "rain", "cat"), "rain cat dog"),
        ("cat,dog", ("dog", "rain", "cat"), "rain,cat"),
        ("cat, dog", ("dog", "rain, heavy", "cat"), "rain, heavy, cat"),
        ("cat; air horn", ("dog", "air horn", "cat"), "air horn; cat"),
        ("cat dog", ("dog", "cat dog", "cat"), "cat dog"),
        ("41 7", tuple(NAMES), "0 7"),
        ("7.0;7;0", tuple(NAMES), "0;7;41"),
    ],
)
def test_cells_of_several_labels_get_the_most_probable_ones(tmp_path, capsys, cell, names, written):
    sample = f'id,label\na.wav,"{cell}"\nb.wav,\nc.wav,"{cell}"\n'
    table = _write(tmp_path, sample, class_names=names, class_numbers=NUMBERS)
    assert table.label.tolist()[1] == written
    assert capsys.readouterr().err == ""


def test_equally_probable_labels_are_in_the_order_of_the_classes(tmp_path):
    table = _write(tmp_path, "id,label\nc.wav,a b\n", class_names=("a", "b", "c"))
    assert table.label.tolist() == ["c a"]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (("silence", "dog"), "silence"),
        (("dog cat", "dog"), "dog cat"),
        (("dog cow", "dog cow"), "dog cow"),
        (("0.5 0.5", ""), "0.5 0.5"),
        (("none", "silence"), "silence"),
        (("Dog", "NaN"), "Dog"),
    ],
)
def test_labels_that_are_no_classes_are_named(tmp_path, capsys, cells, said):
    table = _write(tmp_path, f"id,label\na.wav,{cells[0]}\nb.wav,{cells[1]}\n")
    assert table.label.tolist() == ["dog", "rain, heavy"]
    assert f"sample_submission.csv holds labels that the model lacks: {said}\n" in capsys.readouterr().err


# --- rows that are windows


@pytest.mark.parametrize(
    "ids",
    [
        ["rec_1_5", "rec_1_10", "rec_1_15", "rec_1_20", "rec_2_5"],
        ["rec_1-5.0", "rec_1-10.0", "rec_1-15.0", "rec_1-20.0"],
        ["rec_1_0_5", "rec_1_5_10", "rec_1_10_15", "rec_1_15_20"],
        ["rec_1.wav_5", "rec_1.wav_10", "rec_1.wav_15", "rec_1.wav_20"],
        ["sub/rec_1_5", "sub/rec_1_10", "sub/rec_1_15", "sub/rec_1_20", "other"],
    ],
)
def test_rows_that_are_windows_of_recordings_are_refused_as_such(tmp_path, ids):
    body = "".join(f"{clip_id},dog\n" for clip_id in ids)
    with pytest.raises(DataError) as caught:
        _write(tmp_path, f"row_id,label\n{body}", ids=["sub/rec_1.wav", "sub/rec_2.wav", "c.wav"])
    text = str(caught.value)
    assert "windows of recordings are not supported yet" in text and "was not predicted" not in text
    assert "rec_1" in text and ("ending at 5, 10, 15 ... s" in text or "ending at 5.0, 10.0, 15.0 ... s" in text)


def test_ids_with_numbers_at_the_end_are_no_windows(tmp_path):
    with pytest.raises(DataError, match=r"a_5 was not predicted"):
        _write(tmp_path, "id,label\na_5,dog\nb,dog\nc,dog\n")
    assert len(_write(tmp_path, "id,label\na_5,dog\na,dog\n", ids=["a", "a_5", "c"])) == 2


# --- numbers and names


@pytest.mark.parametrize(
    "text", ["007", "1e3", "1_000", "+5", " 3", "3 ", "\u0663", "inf", "nan", "-0", "3.0", "", "0x1"]
)
def test_what_is_not_written_as_a_number_is_none(text):
    assert number_written(text) is None


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("-3", -3), ("41", 41), ("10000000000000000000", 10**19)])
def test_numbers_are_those_written_as_such(text, number):
    assert number_written(text) == cell_number(text) == cell_number(f"{text}.0") == number


@pytest.mark.parametrize("names", [("007", "1e3", "1_000"), ("+5", "\u0663", "inf"), ("0.5", "1e3", "nan")])
def test_names_that_only_look_like_numbers_are_names(tmp_path, names, capsys):
    _write(tmp_path, f"id,label\na.wav,{names[1]}\nb.wav,{names[0]}\n", class_names=names, class_numbers=NUMBERS)
    assert (tmp_path / "submission.csv").read_text() == f"id,label\na.wav,{names[0]}\nb.wav,{names[1]}\n"
    assert capsys.readouterr().err == ""
    _write(tmp_path, "id,label\na.wav,0\nb.wav,7\n", class_names=names, class_numbers=NUMBERS)
    assert (tmp_path / "submission.csv").read_text() == "id,label\na.wav,41\nb.wav,0\n"


@pytest.mark.parametrize("cells", [("0.0", "7.0"), ("0", "41.0"), ("41.", "nan")])
def test_whole_numbers_as_pandas_writes_them_are_class_numbers(tmp_path, capsys, cells):
    table = _write(tmp_path, f"id,label\na.wav,{cells[0]}\nb.wav,{cells[1]}\n", class_numbers=NUMBERS)
    assert table.label.tolist() == [41, 0]
    assert capsys.readouterr().err == ""


# --- one column of probabilities

TWO = np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("column", "names", "label"),
    [
        *(
            (column, ("noise", "siren"), 1)
            for column in ("probability", "Prob", "score", "target", "pred", "prediction")
        ),
        ("siren", ("noise", "siren"), 1),
        ("noise", ("noise", "siren"), 0),
        ("siren_probability", ("siren", "zebra"), 0),
        ("is_siren", ("siren", "zebra"), 0),
        ("P(fire siren)", ("fire_siren", "zebra"), 0),
        ("target", ("target", "zebra"), 0),
        (normalize("NFD", "caf\u00e9"), ("caf\u00e9", "zebra"), 0),
    ],
)
def test_one_column_of_probabilities_gets_that_of_the_class(tmp_path, capsys, column, names, label):
    for cell in ("0", "0.5", "1e-05"):
        sample = f"clip,{column}\na.wav,{cell}\nb.wav,{cell}\nc.wav,\n"
        table = _write(tmp_path, sample, probabilities=TWO, class_names=names)
        np.testing.assert_allclose(table[column].to_numpy(), TWO[[1, 0, 2], label])
        assert f"gets the probability of {names[label]}; --labels numbers" in capsys.readouterr().err


@pytest.mark.parametrize("cells", ["0,0", "0.5,0.5"])
def test_a_column_of_another_name_gets_labels_unless_probabilities_are_wanted(tmp_path, capsys, cells):
    first, second = cells.split(",")
    sample = f"id,label\na.wav,{first}\nb.wav,{second}\n"
    form: dict[str, Any] = {"probabilities": TWO, "class_names": ("no", "yes"), "class_numbers": (0, 1)}
    if first == "0":
        assert _write(tmp_path, sample, **form).label.tolist() == [0, 1]
        assert "--labels probabilities writes the probability of yes" in capsys.readouterr().err
    else:
        with pytest.raises(DataError, match="--labels names, --labels numbers or --labels probabilities"):
            _write(tmp_path, sample, **form)
    assert _write(tmp_path, sample, labels="probabilities", **form).label.tolist() == [0.5, 0.75]
    assert _write(tmp_path, sample, labels="names", **form).label.tolist() == ["no", "yes"]


@pytest.mark.parametrize("cell", ["2", "dog", "-0.5"])
def test_a_target_of_other_values_holds_labels(tmp_path, cell):
    sample = f"id,target\na.wav,{cell}\nb.wav,{cell}\n"
    if cell == "-0.5":
        with pytest.raises(DataError, match="neither class names nor"):
            _write(tmp_path, sample, probabilities=TWO, class_names=("cat", "dog"))
        return
    table = _write(tmp_path, sample, probabilities=TWO, class_names=("cat", "dog"))
    assert table.target.tolist() == (["cat", "dog"] if cell == "dog" else [0, 1])


def test_of_more_classes_a_column_gets_probabilities_where_that_is_wanted(tmp_path):
    sample = "id,cat\na.wav,0.5\nb.wav,0\n"
    table = _write(tmp_path, sample, labels="probabilities")
    np.testing.assert_allclose(table.cat.to_numpy(), PROBABILITIES[[1, 0], 2], rtol=1e-6)
    with pytest.raises(DataError, match="--labels names, --labels numbers or --labels probabilities"):
        _write(tmp_path, sample)


def test_probabilities_that_a_model_cannot_have_are_noted(tmp_path, capsys):
    table = _write(tmp_path, "id,probability\na.wav,0\nb.wav,0\n", class_numbers=NUMBERS)
    assert table.probability.tolist() == [41, 0]
    assert (
        'column "probability" gets class numbers: of a model with 3 classes it names no class'
        in capsys.readouterr().err
    )

"""The kernel's parts and the whole of it in this process, with a model made by hand."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import shutil
import signal
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.data.audio import decode, fit_to_length, trim_silence
from esc_ensemble.errors import DataError
from esc_ensemble.infer import Classifier
from esc_ensemble.submission import Form, write_submission
from tests.kaggle.imitation import read_rows, write_clips, write_onnx, write_sample

import kaggle_kernel as kernel  # isort: skip - imitation puts the top level on the path

NAMES = ("bark", "rain", "siren", "wind")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def fresh_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the kernel had begun just now, in an environment that says nothing."""
    monkeypatch.setattr(kernel, "START", time.monotonic())
    for name in [name for name in os.environ if name.startswith("ESC_") and name != "ESC_ENSEMBLE_CACHE"]:
        monkeypatch.delenv(name)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An input folder with four test clips, a sample and a model."""
    write_clips(tmp_path / "input" / "sounds" / "test", [f"{n}.wav" for n in range(4)])
    rows = [[str(n), "wind"] for n in (2, 0, 3, 1)]
    write_sample(tmp_path / "input" / "sounds" / "sample_submission.csv", ["id", "label"], rows)
    write_onnx(tmp_path / "input" / "model" / "loud.onnx", NAMES)
    return tmp_path


def run(place: Path, *flags: object) -> int:
    told = ["--input", place / "input", "--output", place / "out", *flags]
    return kernel.main([str(each) for each in told])


def submission(place: Path) -> list[list[str]]:
    return read_rows(place / "out" / "submission.csv")


def expected(model: Path, clips: Sequence[Path]) -> list[str]:
    """What `esc-ens infer` says."""
    return [each.top(1)[0][0] for each in Classifier(model).predict(clips)]


# --- what lies where

LAYOUTS = {
    "slug": ("rain", "weights"),
    "competitions and datasets": ("competitions/rain", "datasets/me/weights"),
    "a Kaggle model": ("competitions/rain", "models/me/loud/onnx/default/1"),
    "nested versions": ("rain/versions/3", "weights/versions/1/exports"),
    "one folder": (".", "."),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_inputs_are_found_wherever_they_are_mounted(tmp_path: Path, capsys: Capture, layout: tuple[str, str]) -> None:
    data, weights = (tmp_path / "input" / each for each in layout)
    clips = write_clips(data / "test_audio", [f"{n:04d}.wav" for n in range(5)])
    ids = [path.name for path in clips]
    write_sample(data / "sample_submission.csv", ["filename", "class"], [[name, "rain"] for name in ids[::-1]])
    model = write_onnx(weights / "loud.onnx", NAMES)
    assert run(tmp_path) == 0
    assert submission(tmp_path) == [
        ["filename", "class"],
        *([name, label] for name, label in zip(ids[::-1], expected(model, clips)[::-1], strict=True)),
    ]
    assert "5 of 5 rows predicted" in capsys.readouterr().out


def test_several_input_folders_may_be_named(place: Path, tmp_path: Path) -> None:
    shutil.move(place / "input" / "model", place / "elsewhere")
    told = f"{place / 'input'}{os.pathsep}{place / 'elsewhere'}"
    assert kernel.main(["--input", told, "--output", str(place / "out"), "--strict"]) == 0


def test_links_that_run_in_circles_are_walked_once(place: Path) -> None:
    (place / "input" / "sounds" / "test" / "again").symlink_to(place / "input")
    assert run(place, "--strict") == 0


def test_names_in_train_and_test_mean_those_of_the_test(tmp_path: Path) -> None:
    train = write_clips(tmp_path / "data" / "train", ["1.wav", "2.wav", "3.wav"])
    test = write_clips(tmp_path / "data" / "audio_test", ["1.wav", "2.wav"])
    assert kernel.match_audio(["1", "2"], [*train, *test]) == test
    assert kernel.match_audio(["train/1", "audio_test/2.wav"], [*train, *test]) == [train[0], test[1]]
    assert kernel.match_audio(["1", "9"], [*train, *test], "data/train") == [train[0], None]


@pytest.mark.parametrize(("of_ids", "of_files"), [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("name", ["caf\u00e9", "gr\u00f6\u00dfe", "\u3054\u306f\u3093", "\ud55c\uae00"])
@pytest.mark.parametrize("written", ["{}", "{}.wav", "gr\u00fcn/{}", "gr\u00fcn/{}.ogg"])
def test_ids_match_in_another_unicode_form(
    of_ids: Literal["NFC", "NFD"], of_files: Literal["NFC", "NFD"], name: str, written: str
) -> None:
    clip_id = normalize(of_ids, written.format(name))
    files = [normalize(of_files, f"gr\u00fcn/{each}.wav") for each in (name, f"x{name}")]
    audio = [Path("/input", file) for file in files]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("esc_ensemble.submission._read_sample", lambda _: (["id", "label"], [[clip_id, ""]]))
        from esc_ensemble.submission import _plan  # noqa: PLC0415

        assert _plan(files, Form(NAMES, sample=Path("sample.csv"))).rows == [0]
    assert kernel.match_audio([clip_id], audio) == kernel.match_audio([clip_id], audio, training=True) == audio[:1]
    both = [Path("/input", normalize(form, files[0])) for form in (of_files, of_ids)]
    if "/" in written:  # else these are two folders
        assert kernel.match_audio([clip_id], both) == both[1:]  # the one spelled alike goes first


def test_the_input_folders_own_name_means_nothing(tmp_path: Path) -> None:
    top = tmp_path / "test"
    train, heard = write_clips(top / "train", ["1.wav", "2.wav"]), write_clips(top / "eval", ["1.wav"])
    assert kernel.match_audio(["1"], [*train, *heard], tops=[top]) == heard
    assert not kernel.called((top / "latest").as_posix(), "test", [top])


names = st.text("abcXYZ0189-_. ", min_size=1, max_size=6).filter(lambda text: text.strip(" .") == text)
suffixes = st.sampled_from([".wav", ".OGG", ".flac"])


@settings(max_examples=60, deadline=None)
@given(
    clips=st.lists(st.tuples(st.sampled_from(["a", "b/c", ""]), names, suffixes), min_size=1, max_size=8, unique=True),
    how=st.sampled_from(["name", "stem", "path"]),
    other=st.sampled_from([".mp3", ".txt", ""]),
)
def test_ids_find_the_clips_that_submissions_find(clips: list[tuple[str, str, str]], how: str, other: str) -> None:
    """Whatever `esc_ensemble.submission` matches without doubt, the kernel matches alike."""
    paths = [f"{folder}/{name}{suffix}".strip("/") for folder, name, suffix in clips]
    ids = [
        {
            "name": Path(path).name,
            "stem": Path(path).stem if other != ".txt" else Path(path).stem + other,
            "path": path,
        }[how]
        for path in paths
    ]
    if len(set(ids)) < len(ids) or len({kernel.stem_of(path) for path in paths}) < len(paths):
        return
    found = kernel.match_audio(ids, [Path("/input", path) for path in paths])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("esc_ensemble.submission._read_sample", lambda _: (["id", "label"], [[each, ""] for each in ids]))
        try:
            from esc_ensemble.submission import _plan  # noqa: PLC0415

            rows = _plan(paths, Form(NAMES, sample=Path("sample.csv"))).rows
        except DataError:
            return
    assert found == [Path("/input", paths[row]) for row in rows]


# --- the submission's form

FORMS = {
    "names": (["id", "label"], ["wind", "", "bark"], (5, 7, 1, 3)),
    "numbers": (["id", "target"], ["7", "1", "3.0"], (5, 7, 1, 3)),
    "numbers that nobody told": (["id", "target"], ["0", "1", "0"], ()),
    "empty": (["id", "label"], ["", "", ""], ()),
    "probabilities": (["id", "wind", "siren", "rain", "bark"], None, ()),
    "probabilities by number": (["id", "1", "3", "5", "7"], None, (5, 7, 1, 3)),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_rows_are_those_that_the_package_writes(
    tmp_path: Path, form: tuple[list[str], list[str] | None, tuple[int, ...]]
) -> None:
    header, cells, numbers = form
    ids = ["c.wav", "a.wav", "b.wav"]
    rows = [[each, *([cells[n]] if cells else ["0.25"] * 4)] for n, each in enumerate(ids)]
    sample = write_sample(tmp_path / "sample_submission.csv", header, rows)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), size=3).astype(np.float32)
    write_submission(tmp_path / "theirs.csv", ids, probabilities, Form(NAMES, numbers, sample))
    made = kernel.Submission(tmp_path / "ours.csv", *kernel.read_sample(sample), [None] * 3, sample)
    made.fill(dict(enumerate(probabilities)), NAMES, numbers)
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "theirs.csv").read_bytes()


TWO = ("noise", "siren")
CAFE = "caf\u00e9"
ACCENTED = tuple(normalize("NFD", name) for name in (CAFE, "gr\u00f6\u00dfe", "rain"))
# Class names, class numbers, header, cells of the rows, and what is set as labels.
MORE_FORMS: dict[str, tuple[tuple[str, ...], tuple[int, ...], list[str], list[str], str]] = {
    "three names": (NAMES, (), ["id", "label"], ["wind rain bark"] * 3, ""),
    "names and commas": (NAMES, (), ["id", "label"], ["wind, rain", "", "bark, rain"], ""),
    "names with spaces and semicolons": (("air horn", "rain", "siren"), (), ["id", "label"], ["air horn;rain"] * 3, ""),
    "a name with a space": (("bell siren", "bell", "siren"), (), ["id", "label"], ["bell siren"] * 3, ""),
    "three numbers": (NAMES, (5, 7, 1, 3), ["id", "label"], ["3 7 1"] * 3, ""),
    "three numbers that nobody knows": (NAMES, (), ["id", "label"], ["3 2 1"] * 3, ""),
    "several names, numbers wanted": (NAMES, (5, 7, 1, 3), ["id", "label"], ["wind rain"] * 3, "numbers"),
    "more labels than classes": (TWO, (), ["id", "label"], ["siren noise siren"] * 3, ""),
    "lists of different lengths": (NAMES, (), ["id", "label"], ["wind rain", "bark", "wind"], ""),
    "no class of the model": (NAMES, (), ["id", "label"], ["silence"] * 3, ""),
    "names in another form": (ACCENTED, (), ["id", "label"], [CAFE] * 3, ""),
    "columns in another form": (ACCENTED, (), ["id", CAFE, "rain", "gr\u00f6\u00dfe"], ["0"] * 3, ""),
    "names that look like numbers": (("007", "1e3", "\u0663", "+5"), (), ["id", "label"], ["1e3", "007", "+5"], ""),
    "class numbers next to them": (("007", "1e3", "\u0663", "+5"), (5, 7, 1, 3), ["id", "label"], ["5", "7", "1"], ""),
    "names of digits": (("07", "1", "20"), (), ["id", "label"], ["0"] * 3, ""),
    "columns of digits": (("07", "1", "20"), (), ["id", "20", "07", "1"], ["0"] * 3, ""),
    "a class called none": (("none", "rain"), (), ["id", "label"], ["none"] * 3, ""),
    "floats": (NAMES, (0, 7, 1, 3), ["id", "target"], ["0.0"] * 3, ""),
    "floats and blanks": (NAMES, (0, 7, 1, 3), ["id", "target"], ["3.0", "nan", ""], ""),
    "fractions": (NAMES, (), ["id", "label"], ["0.5"] * 3, ""),
    "fractions, names wanted": (NAMES, (), ["id", "label"], ["0.5"] * 3, "names"),
    "clip,probability": (TWO, (), ["clip", "probability"], ["0"] * 3, ""),
    "target of a half": (TWO, (), ["id", "target"], ["0.5"] * 3, ""),
    "target, numbers wanted": (TWO, (0, 1), ["id", "target"], ["0"] * 3, "numbers"),
    "column of the first class": (TWO, (), ["id", "noise"], ["0.5"] * 3, ""),
    "column of a class in another form": ((ACCENTED[0], "zebra"), (), ["id", CAFE], ["0.5"] * 3, ""),
    "label of a half": (TWO, (), ["id", "label"], ["0.5"] * 3, ""),
    "label, probabilities wanted": (TWO, (), ["id", "label"], ["0.5"] * 3, "probabilities"),
    "label of four classes, probabilities wanted": (NAMES, (), ["id", "label"], ["0"] * 3, "probabilities"),
    "one of four classes, probabilities wanted": (NAMES, (), ["id", "rain"], ["0"] * 3, "probabilities"),
    "probability of four classes": (NAMES, (), ["id", "probability"], ["0"] * 3, ""),
    "one of four classes": (NAMES, (), ["id", "rain"], ["0"] * 3, ""),
    "half of one of four classes": (NAMES, (), ["id", "rain"], ["0.5"] * 3, ""),
    "binary labels": (TWO, (0, 1), ["id", "label"], ["0"] * 3, ""),
}


@pytest.mark.parametrize("form", MORE_FORMS.values(), ids=MORE_FORMS)
def test_kernel_and_package_agree_on_every_form(
    tmp_path: Path, capsys: Capture, form: tuple[tuple[str, ...], tuple[int, ...], list[str], list[str], str]
) -> None:
    names, numbers, header, cells, labels = form
    ids = ["c.wav", "a.wav", "b.wav"]
    width = len(header) - 1
    sample = write_sample(tmp_path / "sample.csv", header, [[each, *[cells[n]] * width] for n, each in enumerate(ids)])
    probabilities = np.random.default_rng(1).dirichlet(np.ones(len(names)), size=3)
    wanted = Form(names, numbers, sample, labels or None)  # type: ignore[arg-type]
    reason = ""
    try:
        write_submission(tmp_path / "theirs.csv", ids, probabilities, wanted)
    except DataError as error:
        reason = str(error).removeprefix("Sample submission ")
    theirs = capsys.readouterr().err
    made = kernel.Submission(tmp_path / "ours.csv", *kernel.read_sample(sample), [None] * 3, sample, labels)
    if reason:
        with pytest.raises(kernel.KernelError) as caught:
            made.fill(dict(enumerate(probabilities)), names, numbers)
        assert str(caught.value) == reason
        assert made.known(names, numbers) == 0.0
        return
    made.fill(dict(enumerate(probabilities)), names, numbers)
    ours = capsys.readouterr().out
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "theirs.csv").read_bytes()
    for note in (
        "labels that the model lacks: ",
        "gets the probability of ",
        "--labels probabilities writes",
        "it names no class",
    ):
        assert [line.split(note)[1:] for line in theirs.splitlines() if note in line] == [
            line.split(note)[1:] for line in ours.splitlines() if note in line
        ]
    assert (made.known(names, numbers) < 1.0) == ("that the model lacks" in ours or "it names no class" in ours)


def test_copies_in_the_kernel_are_the_packages_text() -> None:
    """The kernel is one file: it carries copies."""
    ours = Path(kernel.__file__).read_text(encoding="utf-8")
    package = Path(kernel.__file__).parent
    copied = re.findall(r"# --- copied from (.*)\n", ours)
    names = ("walk", "streams", "flac_frames", "ogg_pages", "mpeg_frames", "containers")
    assert {f"esc_ensemble/data/{name}.py" for name in names} | {"esc_ensemble/submission_rules.py"} == set(copied)
    for file in copied:
        theirs, end = (package / file).read_text(encoding="utf-8"), "# --- end of the copy"
        start = ours.index(f"# --- copied from {file}\n")
        copy = ours[start : ours.index(end, start)].partition("\n")[2]
        content = theirs[theirs.index("# --- copied into kaggle_kernel.py") : theirs.index(end)].partition("\n")[2]
        assert copy == content, f"copy {file} into the kernel again"


@pytest.mark.parametrize("labels", ["names", "numbers", "probabilities"])
def test_without_a_sample_labels_are_those_that_are_set(place: Path, labels: str) -> None:
    (place / "input" / "sounds" / "sample_submission.csv").unlink()
    assert run(place, "--strict", "--labels", labels) == 0
    files = sorted((place / "input" / "sounds" / "test").iterdir())
    found = list(Classifier(place / "input" / "model" / "loud.onnx").predict(files))
    ids, values = [path.name for path in files], np.array([each.probabilities for each in found])
    theirs = place / "theirs.csv"
    write_submission(theirs, ids, values, Form(NAMES, labels=labels))  # type: ignore[arg-type]
    if labels != "probabilities":
        assert submission(place) == read_rows(theirs)
        return
    assert submission(place)[0] == ["clip_id", *NAMES]
    table = np.array([row[1:] for row in submission(place)[1:]], dtype=float)
    np.testing.assert_allclose(table, values, atol=1e-4)


def test_an_id_in_several_rows_gets_its_prediction_in_each(place: Path) -> None:
    sample = place / "input" / "sounds" / "sample_submission.csv"
    rows = [[str(n), "wind"] for n in (2, 0, 2, 3, 2, 0)]
    write_sample(sample, ["id", "label"], rows)
    assert run(place, "--strict") == 0
    audio = place / "input" / "sounds" / "test"
    clips = [audio / f"{row[0]}.wav" for row in rows]
    labels = dict(zip(map(str, clips), expected(place / "input" / "model" / "loud.onnx", clips), strict=True))
    assert submission(place) == [["id", "label"], *([row[0], labels[str(audio / f"{row[0]}.wav")]] for row in rows)]


@pytest.mark.parametrize("ids", [["0_5", "0_10", "0_15", "0_20", "1_5"], ["0-0-5", "0-5-10", "0-10-15", "0-15-20"]])
def test_rows_that_are_windows_stay_and_are_warned_of(place: Path, capsys: Capture, ids: list[str]) -> None:
    sounds = place / "input" / "sounds"
    rows = [[clip_id, "wind"] for clip_id in ids]
    sample = write_sample(sounds / "sample_submission.csv", ["row_id", "label"], rows)
    assert run(place) == 0
    assert submission(place)[1:] == rows
    warning = capsys.readouterr().out.split("WARNING", 1)[1]
    files = [path.as_posix() for path in sorted((sounds / "test").iterdir())]
    with pytest.raises(DataError) as caught:
        write_submission(place / "theirs.csv", files, np.full((4, 4), 0.25), Form(NAMES, sample=sample))
    theirs = str(caught.value).removeprefix("Sample submission ").split(". `")[0]
    assert "recording 0 has audio, its rows stand for windows ending at 5, 10, 15 ... s" in theirs
    assert theirs in warning


def test_relative_folders_are_those_of_where_it_starts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert kernel.main(["--input", "input", "--output", "out", "--strict"]) == 0
    settings = kernel.read_settings(["--input", f"input{os.pathsep}model/../x", "--output", "./out"])
    assert settings.input == f"{place / 'input'}{os.pathsep}{place / 'x'}"
    assert settings.output == str(place / "out")


def test_a_table_that_is_written_elsewhere_names_clips_by_whole_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clips(tmp_path / "input" / "audio", ["1.wav", "2.wav"])
    write_sample(tmp_path / "input" / "train.csv", ["fname", "label"], [["1.wav", "x"], ["2.wav", "y"]])
    monkeypatch.chdir(tmp_path)
    inputs = kernel.find_inputs([Path(kernel.read_settings(["--input", "input"]).input)], tmp_path / "out")
    assert inputs.audio and all(path.is_absolute() for path in [*inputs.audio, *inputs.tables])


def test_an_input_folder_that_does_not_exist_is_named(place: Path, capsys: Capture) -> None:
    folders = f"{place / 'input'}{os.pathsep}{place / 'gone'}"
    assert kernel.main(["--input", folders, "--output", str(place / "out"), "--strict"]) == 0
    assert f"  - input folder {place / 'gone'} does not exist" in capsys.readouterr().out
    assert kernel.main(["--input", str(place / "gone"), "--output", str(place / "out")]) == 2
    assert f"Nothing was written: input folder {place / 'gone'} does not exist" in capsys.readouterr().out


def test_the_first_file_is_valid_before_anything_is_predicted(tmp_path: Path) -> None:
    rows = [["a", "dog"], ["b", ""], ["c", "NaN"], ["d", "dog"]]
    made = kernel.Submission(tmp_path / "s.csv", ["id", "label"], rows, [None] * 4)
    made.write()
    assert read_rows(tmp_path / "s.csv") == [["id", "label"], *([each, "dog"] for each in "abcd")]
    kernel.Submission(tmp_path / "s.csv", ["id", "label"], [["a", "none"], ["b", ""], ["c", "NaN"]], [None] * 3).write()
    assert read_rows(tmp_path / "s.csv")[1:] == [[each, "none"] for each in "abc"]
    kernel.Submission(tmp_path / "s.csv", ["id", "x", "y"], [["a", "", "nan"]], [None]).write()
    assert read_rows(tmp_path / "s.csv")[1] == ["a", "0.5", "0.5"]


def test_a_write_that_fails_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = kernel.Submission(tmp_path / "s.csv", ["id", "label"], [["a", "dog"]], [None])
    made.write()
    before = (tmp_path / "s.csv").read_bytes()

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="full"):
        made.fill({0: np.array([0.1, 0.9])}, ("dog", "cat"), ())
    assert (tmp_path / "s.csv").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_columns_that_are_no_classes_leave_the_samples_rows(place: Path, capsys: Capture) -> None:
    sample = place / "input" / "sounds" / "sample_submission.csv"
    write_sample(sample, ["id", "cat", "mouse"], [["0", "0.3", "0.7"]])
    assert run(place) == 0
    assert submission(place) == [["id", "cat", "mouse"], ["0", "0.3", "0.7"]]
    printed = capsys.readouterr().out
    assert "not in both: bark, cat, mouse" in printed
    assert "NO PREDICTION" in printed


# --- failures


def test_a_clip_that_cannot_be_read_keeps_its_row_and_is_named(place: Path, capsys: Capture) -> None:
    audio = place / "input" / "sounds" / "test"
    (audio / "3.wav").write_bytes(b"RIFF no sound at all")
    soundfile.write(audio / "1.wav", np.full(100, np.nan), 8000, subtype="FLOAT")
    assert run(place, "--strict") == 0
    rows = dict(submission(place)[1:])
    assert rows["3"] == rows["1"] == "wind"
    assert [rows["0"], rows["2"]] == expected(
        place / "input" / "model" / "loud.onnx", [audio / "0.wav", audio / "2.wav"]
    )
    printed = capsys.readouterr().out
    assert f"No prediction for 3: {audio / '3.wav'}" in printed
    assert f"No prediction for 1: {audio / '1.wav'}: its samples are not finite" in printed
    assert "2 of 4 rows hold the sample's own values" in printed


def test_without_a_sample_every_test_clip_gets_a_row(place: Path) -> None:
    (place / "input" / "sounds" / "sample_submission.csv").unlink()
    assert run(place, "--strict") == 0
    rows = submission(place)
    assert rows[0] == ["clip_id", "label"]
    assert [row[0] for row in rows[1:]] == [f"{n}.wav" for n in range(4)]
    assert {row[1] for row in rows[1:]} <= set(NAMES)


@pytest.mark.parametrize("strict", [False, True])
def test_without_test_audio_the_samples_rows_stand(place: Path, capsys: Capture, strict: bool) -> None:
    shutil.rmtree(place / "input" / "sounds" / "test")
    assert run(place, *["--strict"] * strict) == strict
    assert submission(place)[1:] == [[str(n), "wind"] for n in (2, 0, 3, 1)]
    assert "No audio for 4 of 4 ids: 2, 0, 3, 1" in capsys.readouterr().out


def test_with_neither_sample_nor_audio_nothing_is_written(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "input").mkdir()
    assert run(tmp_path) == 2
    assert not (tmp_path / "out").exists()
    assert "--sample" in capsys.readouterr().out


def test_a_sample_that_cannot_be_used_is_passed_over(place: Path, capsys: Capture) -> None:
    sounds = place / "input" / "sounds"
    shutil.copy(sounds / "sample_submission.csv", sounds / "sample_submission_2.csv")
    (sounds / "sample_submission.csv").write_text("id,label\n0,a,b\n")
    assert run(place, "--strict") == 0
    printed = capsys.readouterr().out
    assert "Passed over" in printed
    assert "sample_submission_2.csv, 4 rows" in printed


def scored(top1: float) -> dict[str, object]:
    return {"scores": [{"name": "chosen", "cross_fitted": True, "metrics": {"top1": top1}}]}


def test_of_two_models_the_better_one_is_taken_and_told(place: Path, capsys: Capture) -> None:
    folder = place / "input" / "model"
    write_onnx(folder / "a-worse.onnx", NAMES, {**scored(0.7), "fitted_on": "selection"})
    write_onnx(folder / "better.onnx", NAMES, scored(0.9))
    assert run(place, "--strict") == 0
    printed = capsys.readouterr().out
    assert f"Model {folder / 'better.onnx'}: 4 classes, 8000 Hz, cross-fitted top-1 0.9000" in printed
    assert "Model " + str(folder / "a-worse.onnx") not in printed  # is opened, not taken
    assert run(place, "--model", "a-worse") == 0
    worse = f"Model {folder / 'a-worse.onnx'}: 4 classes, 8000 Hz, top-1 on its test fold 0.7000"
    assert worse in capsys.readouterr().out


def test_a_model_that_knows_the_samples_classes_goes_before_a_better_one(place: Path, capsys: Capture) -> None:
    write_onnx(place / "input" / "model" / "birds.onnx", ("wren", "robin", "finch", "tit"), scored(0.999))
    assert run(place, "--strict") == 0
    assert {row[1] for row in submission(place)[1:]} <= set(NAMES)
    (place / "input" / "model" / "loud.onnx").unlink()
    assert run(place) == 0
    printed = capsys.readouterr().out
    assert "WARNING" in printed
    assert "holds labels that the model lacks" in printed


def test_a_model_that_fails_makes_room_for_the_next(place: Path, capsys: Capture) -> None:
    folder = place / "input" / "model"
    (folder / "broken.onnx").write_bytes(b"nothing")
    write_onnx(folder / "other.onnx", NAMES, scored(0.99) | {"sample_rate": "none"})
    write_onnx(folder / "odd.onnx", NAMES, {"scores": [{"name": "chosen", "metrics": {"top1": None}}, 5]})
    assert run(place, "--strict") == 0
    printed = capsys.readouterr().out
    assert f"Passed over {folder / 'broken.onnx'}" in printed
    assert f"Predicting with {folder / 'other.onnx'} failed" in printed
    assert "4 of 4 rows predicted" in printed


def test_a_model_of_somebody_else_is_refused(place: Path, capsys: Capture) -> None:
    model = place / "input" / "model" / "loud.onnx"
    model.write_bytes(model.read_bytes().replace(b"esc_ensemble", b"esc_somebody"))
    assert run(place) == 0
    printed = capsys.readouterr().out
    assert "was not made by `esc-ens export`" in printed
    assert "none of the attached models can be used" in printed
    assert "no training data" in printed


def test_the_time_budget_ends_the_work_with_what_is_there(
    place: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear_each = kernel.hear_each

    def slowly(*arguments: object) -> object:
        time.sleep(0.6)
        return hear_each(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(kernel, "hear_each", slowly)
    assert run(place, "--time-budget", 2, "--batch-size", 1) == 0
    printed = capsys.readouterr().out
    assert "TIME_BUDGET is used up after" in printed
    rows = submission(place)[1:]
    assert len(rows) == 4
    assert rows[0][1] != "wind"
    assert rows[3][1] == "wind"


def test_batches_that_do_not_fit_are_heard_one_by_one() -> None:
    def hear(waveforms: np.ndarray) -> np.ndarray:
        if len(waveforms) > 1:
            raise RuntimeError("out of memory")
        return np.full((1, 2), waveforms.mean())

    model = kernel.Model(Path("m"), {}, hear, "")
    heard = kernel.hear_each(model, {0: np.zeros(4), 1: np.ones(4), 2: np.full(3, np.inf)})
    assert [np.asarray(heard[row]).tolist() for row in (0, 1)] == [[0.0, 0.0], [1.0, 1.0]]
    assert heard[2] == "the model gives no number for it"


@pytest.mark.parametrize(
    ("name", "text"),
    [("TIME_BUDGET", "x"), ("ESC_TIME_BUDGET", "-1"), ("ESC_LABELS", "words"), ("ESC_BATCH_SIZE", "0")],
)
def test_settings_that_cannot_be_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, name: str, text: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(SystemExit) as stopped:
        run(place)
    assert stopped.value.code == 2
    assert name.removeprefix("ESC_").lower() in capsys.readouterr().err.lower().replace("-", "_")


def test_flags_beat_the_environment_and_that_the_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIME_BUDGET", "60")
    monkeypatch.setenv("ESC_STRICT", "1")
    assert kernel.read_settings([]).time_budget == 60.0
    assert kernel.read_settings([]).strict
    assert kernel.read_settings(["--time-budget", "5", "--no-strict"]).time_budget == 5.0
    monkeypatch.setenv("ESC_TIME_BUDGET", "70")
    assert kernel.read_settings([]).time_budget == 70.0
    with pytest.raises(SystemExit):
        kernel.read_settings(["--time-bugdet", "5"])


# --- the embedded package


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("no_such_package_anywhere/__init__.py", "ANSWER = 42\n")
    return content.getvalue()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: (content, "0" * 64), "its SHA-256 is"),
        (lambda content: (content[:-9], None), "its SHA-256 is"),
        (lambda content: (content[:40], hashlib.sha256(content[:40]).hexdigest()), "cannot be unpacked"),
    ],
    ids=["wrong SHA", "cut short", "no zip"],
)
def test_a_damaged_package_is_told_and_the_file_stays(
    place: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, spoil: object, reason: str
) -> None:
    whole = zipped()
    content, digest = spoil(whole)  # type: ignore[operator]
    monkeypatch.setattr(kernel, "PACKAGE", base64.encodebytes(content).decode())
    monkeypatch.setattr(kernel, "PACKAGE_SHA256", digest or hashlib.sha256(whole).hexdigest())
    shutil.rmtree(place / "input" / "model")
    for name in NAMES:
        write_clips(place / "input" / "training" / name, [f"{name}-{n}.wav" for n in range(3)])
    assert run(place) == 0
    assert submission(place)[1:] == [[str(n), "wind"] for n in (2, 0, 3, 1)]
    printed = capsys.readouterr().out
    assert reason in printed
    assert "NO PREDICTION" in printed


def test_a_whole_package_is_put_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = zipped()
    monkeypatch.setattr(kernel, "PACKAGE", base64.encodebytes(content).decode())
    monkeypatch.setattr(kernel, "PACKAGE_SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr("sys.path", [])
    kernel.unpack_package(tmp_path)
    assert (tmp_path / "no_such_package_anywhere" / "__init__.py").read_text() == "ANSWER = 42\n"


# --- audio


@pytest.mark.parametrize("rates", [(44100, 32000), (48000, 32000), (8000, 32000), (22050, 16000), (96000, 44100)])
def test_resampling_is_soxrs_below_the_transition(rates: tuple[int, int]) -> None:
    rate, wanted = rates
    seconds = np.arange(rate) / rate
    pass_band = 0.9 * min(rates) / 2
    sweep = 0.5 * np.sin(np.pi * pass_band * seconds**2).astype(np.float32)  # 0 Hz to the pass band's end
    ours, theirs = kernel.resample(sweep, rate, wanted), soxr.resample(sweep, rate, wanted, quality="HQ")
    assert ours.shape == theirs.shape
    inner = slice(wanted // 20, -wanted // 20)  # at the ends, where it begins and stops, filters differ
    assert np.abs(ours - theirs)[inner].max() < 1e-3


@pytest.mark.parametrize("n_samples", [1, 2, 441, 44099, 44100])
def test_any_length_can_be_resampled(n_samples: int) -> None:
    assert len(kernel.resample(np.ones(n_samples, dtype=np.float32), 44100, 32000)) == round(n_samples * 32 / 44.1)


def test_what_cannot_be_heard_is_taken_away() -> None:
    high = np.sin(2 * np.pi * 18_000 * np.arange(44_100) / 44_100).astype(np.float32)
    assert np.abs(kernel.resample(high, 44_100, 32_000)[3200:-3200]).max() < 1e-4


@given(st.integers(1, 1 << 22))
def test_fast_lengths_are_the_next_products_of_2_3_and_5(least: int) -> None:
    found = kernel.fast_length(least)
    assert least <= found < 2 * least
    for factor in (2, 3, 5):
        while found % factor == 0:
            found //= factor
    assert found == 1


def test_of_long_recordings_the_middle_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "MAX_SECONDS", 1.0)
    ramp = np.linspace(-0.5, 0.5, 80_000, dtype=np.float32)
    soundfile.write(tmp_path / "long.wav", ramp, 8000, subtype="FLOAT")
    np.testing.assert_allclose(kernel.read_clip(tmp_path / "long.wav", 8000), ramp[36_000:44_000], atol=1e-6)


def test_one_channel_is_taken_and_channels_that_cancel_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = np.linspace(-0.5, 0.5, 8000, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left], axis=1), 8000, subtype="FLOAT")
    np.testing.assert_array_equal(kernel.read_clip(tmp_path / "a.wav", 8000, 2), -left)
    assert "cancel" not in capsys.readouterr().out
    kernel.note_channels.cache_clear()
    for _ in range(2):
        assert not kernel.read_clip(tmp_path / "a.wav", 8000).any()
    assert capsys.readouterr().out.count("channels of some clips cancel") == 1


def test_real_clips_sound_alike_to_a_network(esc10_dir: Path) -> None:
    """Clips of 44.1 kHz for a network that hears 32: the same classes, probabilities within 1e-2."""
    import torch  # noqa: PLC0415

    from esc_ensemble.config import TrainAConfig  # noqa: PLC0415
    from esc_ensemble.models.registry import ModelSpec, build_model  # noqa: PLC0415

    torch.manual_seed(0)
    names = tuple(str(n) for n in range(10))
    model = build_model(ModelSpec.of(TrainAConfig(), names)).eval()
    paths = sorted((esc10_dir / "audio").iterdir())[::40]
    assert {soundfile.info(str(path)).samplerate for path in paths} == {44100}
    for path in paths:
        ours, theirs = kernel.read_clip(path, 32000), decode(path, 32000)
        assert ours.shape == theirs.shape
        # As the exported file does inside.
        fitted = [fit_to_length(trim_silence(each, 32000, 60.0), 160_000, "tile") for each in (ours, theirs)]
        with torch.inference_mode():
            heard = [model(torch.from_numpy(each)[None]) for each in fitted]
        # Sharpened, so that a network that was not trained has opinions too.
        a, b = (torch.softmax(20.0 * (each - heard[1].mean()), dim=1)[0] for each in heard)
        assert a.argmax() == b.argmax()
        assert float((a - b).abs().max()) < 1e-2


def test_the_kernel_in_the_repository_holds_no_package() -> None:
    assert kernel.PACKAGE == kernel.PACKAGE_SHA256 == ""


def test_clips_at_impossible_rates_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "slow.wav", np.zeros(100), 1)
    with pytest.raises(kernel.KernelError, match="its rate is 1 Hz"):
        kernel.read_clip(tmp_path / "slow.wav", 8000)


def test_test_folders_go_before_fuller_training_folders_and_bare_names_help(tmp_path: Path) -> None:
    train = write_clips(tmp_path / "in" / "train", [f"{n}.wav" for n in range(5)])
    test = write_clips(tmp_path / "in" / "audio_test", [f"{n}.wav" for n in range(4)] + ["Odd.WAV"])
    ids = ["0.wav", "1", "./2.wav", "3.wav", "4", "elsewhere/odd.wav", "absent"]
    found = kernel.match_audio(ids, [*train, *test], tops=[tmp_path])
    assert found == [*test[:4], train[4], test[4], None]
    found = kernel.match_audio(ids, [*train, *test], tops=[tmp_path], training=True)
    assert found == [*train, None, None]  # a guess would be a wrong label


def test_what_stands_in_unpredicted_rows_is_a_class_where_there_is_no_sample(place: Path, capsys: Capture) -> None:
    sounds = place / "input" / "sounds"
    (sounds / "sample_submission.csv").write_text("id;label\n0;a\n")
    next(path for path in sorted((sounds).rglob("*.wav"))).write_bytes(b"no sound")
    assert run(place) == 0
    assert {row[1] for row in submission(place)[1:]} <= set(NAMES)
    printed = capsys.readouterr().out
    assert "WARNING" in printed
    assert "must hold a header of at least two columns" in printed


def test_a_kernel_that_is_stopped_keeps_what_it_heard(
    place: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear_each, before = kernel.hear_each, signal.getsignal(signal.SIGTERM)
    heard = []

    def stop_at_the_second(model: object, clips: dict[int, np.ndarray]) -> object:
        heard.append(clips)
        if len(heard) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return hear_each(model, clips)  # type: ignore[arg-type]

    monkeypatch.setattr(kernel, "hear_each", stop_at_the_second)
    try:
        assert run(place, "--batch-size", 1) == kernel.STOPPED
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "holds 1 predictions" in capsys.readouterr().out
    assert [row[1] != "wind" for row in submission(place)[1:]] == [True, False, False, False]


@pytest.mark.parametrize("flags", ["", "--folders everything --loud"])
def test_data_that_could_mean_two_things_is_said_with_the_setting(place: Path, capsys: Capture, flags: str) -> None:
    shutil.rmtree(place / "input" / "model")
    for label in ("train", "bus", "car"):
        write_clips(place / "input" / "data" / label, [f"{label}{n}x.wav" for n in range(5)])
    assert run(place, f"--data-flags={flags}", "--train-data", "data") == 0
    said = capsys.readouterr().out
    assert "Training failed: " in said
    assert "Traceback" not in said  # what the package refuses, it explains
    if not flags:
        assert 'In this notebook such flags go into DATA_FLAGS, as in DATA_FLAGS = "--folders classes".' in said
    else:
        assert "there is no --loud" in said

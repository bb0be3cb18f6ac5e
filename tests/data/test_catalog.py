from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from esc_ensemble.data.catalog import load_catalog, load_unlabelled
from esc_ensemble.data.rows import ReadOptions
from esc_ensemble.errors import DataError

HEADER = ["filename", "fold", "target", "category", "esc10", "src_file"]


def write_csv(path: Path, header: list[str], rows: list[list[object]], encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([header, *rows])
    return path


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def esc50_rows() -> list[list[object]]:
    """Two classes, two folds, numbers with a gap and against the order of the names."""
    return [
        [f"{fold}-{take}-{target}.wav", fold, target, name, name == "dog", f"{fold}{take}{target}"]
        for fold in (1, 2)
        for target, name in ((10, "rain"), (7, "zebra"), (0, "dog"))
        for take in "AB"
    ]


def esc50(folder: Path, rows: list[list[object]] | None = None, header: list[str] = HEADER) -> Path:
    rows = esc50_rows() if rows is None else rows
    write_csv(folder / "meta" / "esc50.csv", header, rows)
    for row in rows:
        touch(folder / "audio" / str(row[0]))
    return folder


def message(path: Path, **options: int) -> str:
    with pytest.raises(DataError) as caught:
        load_catalog(path, ReadOptions(**options))  # type: ignore[arg-type]
    return str(caught.value)


def test_esc50_is_read_in_order_with_classes_by_number(tmp_path: Path) -> None:
    catalog = load_catalog(esc50(tmp_path / "set"))
    assert catalog.name == "set"
    assert catalog.class_names == ("dog", "zebra", "rain")
    assert catalog.fold_numbers == (1, 2)
    assert catalog.clip_ids.tolist() == [row[0] for row in esc50_rows()]
    assert catalog.labels.tolist() == [2, 2, 1, 1, 0, 0] * 2
    assert catalog.labels.dtype == catalog.folds.dtype == np.int64
    assert catalog.sources[0] == "1A10"


def test_esc10_keeps_the_marked_rows_and_needs_the_column(tmp_path: Path) -> None:
    rows = esc50_rows()
    for row in rows:
        row[4] = row[3] != "rain"
    assert load_catalog(esc50(tmp_path / "a", rows), ReadOptions(esc10=True)).class_names == ("dog", "zebra")
    short = [row[:4] for row in rows]
    assert 'no column "esc10"' in message(esc50(tmp_path / "b", short, HEADER[:4]), esc10=True)


def test_fingerprint_depends_on_content_not_on_order(tmp_path: Path) -> None:
    rows = esc50_rows()
    first = load_catalog(esc50(tmp_path / "a", rows)).fingerprint
    assert len(first) == 12
    assert load_catalog(esc50(tmp_path / "b", rows[::-1])).fingerprint == first
    longer = esc50(tmp_path / "c", rows)
    (longer / "audio" / str(rows[0][0])).write_bytes(b"xx")
    assert load_catalog(longer).fingerprint != first
    rows[0][5] = "another"
    assert load_catalog(esc50(tmp_path / "d", rows)).fingerprint != first


def test_urbansound8k_is_read_by_its_own_columns(tmp_path: Path) -> None:
    rows: list[list[object]] = []
    for fold in (1, 2, 10):
        for number, name in ((3, "dog_bark"), (1, "car_horn")):
            rows.append([f"{fold}-{number}.wav", f"{fold}00{number}", 0.0, 4.0, 1, fold, number, name])
            touch(tmp_path / "audio" / f"fold{fold}" / f"{fold}-{number}.wav")
    header = ["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"]
    write_csv(tmp_path / "metadata" / "UrbanSound8K.csv", header, rows)
    catalog = load_catalog(tmp_path)
    assert catalog.class_names == ("car_horn", "dog_bark")
    assert catalog.fold_numbers == (1, 2, 10)
    assert catalog.sources[0] == "1003"


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    rows = esc50_rows()
    folder = esc50(tmp_path, rows)
    (folder / "audio" / str(rows[0][0])).unlink()
    (folder / "audio" / str(rows[1][0])).write_bytes(b"")
    rows[2][1] = "one"
    rows[3][5] = rows[-1][5]
    rows[4][0] = rows[5][0]
    rows[6][3] = ""
    rows.append(["x.m4a", 1, 0, "dog", True, "7"])
    rows.append(["", 1, 0, "dog", True, "7"])
    write_csv(folder / "meta" / "esc50.csv", HEADER, rows)
    text = message(folder)
    for wanted in (
        "1-A-10.wav does not exist",
        "1-B-10.wav is empty",
        'line 4: fold "one"',
        "is listed 2 times",
        'line 8: no class in column "category"',
        "x.m4a is of a kind that cannot be decoded",
        'no file name in column "filename"',
        "esc50.csv",
    ):
        assert wanted in text, wanted


def test_problems_of_folds_and_classes(tmp_path: Path) -> None:
    def rows(*specs: tuple[str, int, str]) -> list[list[object]]:
        return [[f"{i}.wav", fold, name, source] for i, (name, fold, source) in enumerate(specs)]

    def told(name: str, *specs: tuple[str, int, str]) -> str:
        folder = tmp_path / name
        for row in rows(*specs):
            touch(folder / str(row[0]))
        return message(write_csv(folder / "t.csv", ["filename", "fold", "class", "source"], rows(*specs)))

    assert "2 folds are needed" in told("a", ("x", 1, "1"), ("y", 1, "2"))
    assert '1 class, "x", at least 2' in told("b", ("x", 1, "1"), ("x", 2, "2"))
    text = told("c", ("x", 1, "1"), ("x", 2, "2"), ("y", 1, "3"), ("y", 1, "4"))
    assert 'class "y" is in fold 1 alone' in text
    assert 'class "x"' not in text


def test_contradicting_class_numbers(tmp_path: Path) -> None:
    rows = esc50_rows()
    rows[0][2] = 7
    text = message(esc50(tmp_path, rows))
    assert 'class "rain" has several numbers: 7, 10' in text
    assert "class number 7 has several names: rain, zebra" in text


def test_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    lines = ["Path;Label;Fold"]
    for index in range(8):
        touch(tmp_path / "audio" / f"c{index}.wav")
        lines.append(f'"c{index}" ; {"cat; or lynx" if index % 2 else "dog"!r};{1 + index // 4}.0'.replace("'", '"'))
    text = "\r\n".join([*lines, "", ";;", ""]).replace('; "', ';"').replace('" ;', '";')
    (tmp_path / "t.csv").write_text(text, encoding="utf-8-sig")
    for place in (tmp_path / "t.csv", tmp_path):
        catalog = load_catalog(place)
        assert catalog.class_names == ("cat; or lynx", "dog")
        assert catalog.clip_ids[0] == "c0"
        assert catalog.clips[0].path == tmp_path / "audio" / "c0.wav"
        assert catalog.fold_numbers == (1, 2)


def test_csv_without_folds_needs_n_folds(tmp_path: Path) -> None:
    rows: list[list[object]] = []
    for source in range(12):
        for take in range(1 + source % 3):
            rows.append([touch(tmp_path / f"{source}-{take}.wav").name, "ab"[source % 2], source])
    path = write_csv(tmp_path / "t.csv", ["filename", "label", "src_file"], rows)
    assert "--n-folds 5" in message(path)
    catalog = load_catalog(path, ReadOptions(n_folds=3))
    assert catalog.fold_numbers == (1, 2, 3)
    assert catalog.clips == load_catalog(path, ReadOptions(n_folds=3)).clips
    counts = np.zeros((3, 2))
    np.add.at(counts, (catalog.folds - 1, catalog.labels), 1)
    assert np.ptp(counts, axis=0).max() <= 3
    assert "cannot make 13 folds" in message(path, n_folds=13)
    assert "at least 2" in message(path, n_folds=1)


def test_official_folds_stay_when_n_folds_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = esc50(tmp_path)
    assert load_catalog(folder, ReadOptions(n_folds=5)).clips == load_catalog(folder).clips
    assert "changes nothing" in capsys.readouterr().err


def test_a_tree_of_class_folders(tmp_path: Path) -> None:
    for recording in range(10):
        for cut in range(2):
            touch(tmp_path / "rain" / f"rec{recording}-{cut}.wav")
    for number in range(20):
        touch(tmp_path / "dog" / f"dog_{number:03}.FLAC")
    touch(tmp_path / ".git" / "x.wav")
    touch(tmp_path / "dog" / "._dog_000.wav")
    touch(tmp_path / "dog" / "notes.txt")
    catalog = load_catalog(tmp_path)
    assert catalog.class_names == ("dog", "rain")
    assert catalog.fold_numbers == (1, 2, 3, 4, 5)
    assert len(catalog.clips) == 40
    folds: defaultdict[str, set[int]] = defaultdict(set)
    for clip in catalog.clips:
        folds[clip.source].add(clip.fold)
    assert len(folds) == 30  # ten recordings of rain; dogs are numbered, not cut
    assert all(len(found) == 1 for found in folds.values())
    counts = np.zeros((5, 2))
    np.add.at(counts, (catalog.folds - 1, catalog.labels), 1)
    assert (counts == 4).all()


def test_a_tree_says_what_it_leaves_out(tmp_path: Path) -> None:
    for number in range(6):
        touch(tmp_path / "a" / f"{number}.wav")
        touch(tmp_path / "b" / f"{number}.wav")
    touch(tmp_path / "a" / "more.m4a")
    (tmp_path / "c").mkdir()
    text = message(tmp_path)
    assert "more.m4a is of a kind" in text
    assert 'class folder "c" holds no audio' in text


def test_numeric_class_folders_are_ordered_as_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "2"):
        for number in range(6):
            touch(tmp_path / name / f"{number}.wav")
    assert load_catalog(tmp_path).class_names == ("2", "9", "10")


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "is empty"),
        (b"filename,fold,class\n", "no rows"),
        (b"filename,fold,class\n\x81\xfe,1,a\n", "UTF-8"),
        (b'filename,fold,class\n"a.wav,1,dog\n', "not valid CSV"),
        (b"filename,fold,class,fold\na,1,b,2\n", 'more than one column "fold"'),
        (b"filename,fold\na.wav,1\n", "no column with the classes"),
        (b"class,fold\na,1\n", "no column with the file names"),
        (b"filename,fold,class\na.wav,1\n", "line 2: 2 cells, the header has 3"),
    ],
)
def test_unreadable_tables(tmp_path: Path, content: bytes, wanted: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    text = message(tmp_path / "t.csv")
    assert wanted in text
    assert "t.csv" in text


def test_what_is_no_dataset(tmp_path: Path) -> None:
    assert "does not exist" in message(tmp_path / "no")
    assert "not a CSV file" in message(touch(tmp_path / "a.txt"))
    assert "is not a dataset" in message(tmp_path)
    folder = esc50(tmp_path / "down" / "ESC-50-master")
    assert f"{folder} is. Give that folder" in message(tmp_path / "down")


def test_one_file_under_two_names(tmp_path: Path) -> None:
    rows: list[list[object]] = [["a.wav", 1, "x"], ["./a.wav", 2, "x"], ["b.wav", 1, "y"], ["c.wav", 2, "y"]]
    for name in "abc":
        touch(tmp_path / f"{name}.wav")
    assert 'clips "a.wav", "./a.wav" are one file' in message(
        write_csv(tmp_path / "t.csv", ["file", "fold", "class"], rows)
    )


def test_synthetic_set_is_a_whole_one(synthetic_dir: Path) -> None:
    catalog = load_catalog(synthetic_dir)
    assert len(catalog.clips) == 100
    assert len(catalog.class_names) == 10
    assert np.bincount(catalog.labels).tolist() == [10] * 10


def test_real_esc10(esc10_dir: Path, esc50_dir: Path) -> None:
    catalog = load_catalog(esc10_dir)
    assert catalog.fingerprint == load_catalog(esc50_dir, ReadOptions(esc10=True)).fingerprint
    assert catalog.class_names == (
        "dog", "rooster", "rain", "sea_waves", "crackling_fire",
        "crying_baby", "sneezing", "clock_tick", "helicopter", "chainsaw",
    )  # fmt: skip
    assert len(catalog.clips) == 400
    assert np.bincount(catalog.folds).tolist() == [0, 80, 80, 80, 80, 80]
    assert soundfile.info(catalog.clips[0].path).samplerate == 44100


@pytest.mark.parametrize(
    "names",
    [
        [f"1-{source}-{take}-0.wav" for source in range(100, 106) for take in "AB"],  # ESC-50
        [f"{source}-3-0-{piece}.wav" for source in range(100, 106) for piece in range(2)],  # UrbanSound8K
        [f"yard_{source}x-{piece}.wav" for source in range(6) for piece in range(2)],
    ],
)
def test_made_folds_keep_the_cuts_of_one_recording_together(tmp_path: Path, names: list[str]) -> None:
    for category in ("dog", "rain"):
        for name in names:
            touch(tmp_path / category / f"{name}")
    folds: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    for number, clip in enumerate(load_catalog(tmp_path).clips):
        folds[clip.source, number % len(names) // 2].add(clip.fold)
    assert len(folds) >= len(names) // 2
    assert all(len(found) == 1 for found in folds.values())


def test_file_names_that_tell_no_sources_are_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for category in ("dog", "rain"):
        for number in range(10):
            touch(tmp_path / category / f"{category}_{number:03d}.wav")
    load_catalog(tmp_path)
    assert "name the recordings in a column" in capsys.readouterr().err


# --- the data's own class numbers, and clips without labels


def test_class_numbers_are_the_data_sets_own(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    lines = ["filename,category,target,fold"]
    for number, (name, target) in enumerate([("rain", 10), ("dog", 0), ("rain", 10), ("dog", 0)]):
        (tmp_path / "audio" / f"{number}.wav").write_bytes(b"x")
        lines.append(f"{number}.wav,{name},{target},{number // 2 + 1}")
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    catalog = load_catalog(tmp_path)
    assert (catalog.class_names, catalog.class_numbers) == (("dog", "rain"), (0, 10))
    (tmp_path / "clips.csv").write_text("\n".join(lines).replace("target", "remark"))
    assert load_catalog(tmp_path).class_numbers == ()


def test_unlabelled_clips_are_known_by_their_paths_below_the_folder(tmp_path: Path) -> None:
    for name in ("test/b.wav", "test/deep/a.ogg", "test/._b.wav", "test/notes.txt", "test/c.m4a", "one.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    catalog = load_unlabelled([tmp_path / "test", tmp_path / "one.flac"])
    assert catalog.clip_ids.tolist() == ["b.wav", "c.m4a", "deep/a.ogg", "one.flac"]
    assert set(catalog.labels.tolist()) == {-1}
    assert (catalog.name, catalog.class_names) == ("test", ())


def test_unlabelled_clips_must_differ_in_their_ids_and_be_there(tmp_path: Path) -> None:
    for name in ("one/a.wav", "two/a.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=r'(?s)gone does not exist.*clip "a\.wav" is listed 2 times'):
        load_unlabelled([tmp_path / "one", tmp_path / "two", tmp_path / "gone"])
    assert load_unlabelled([tmp_path]).clip_ids.tolist() == ["one/a.wav", "two/a.wav"]

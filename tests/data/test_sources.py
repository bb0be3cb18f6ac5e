from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from esc_ensemble.data.catalog import Catalog, Clip, load_catalog, load_recordings, thin_out
from esc_ensemble.data.sources import leave_out_shared, read_sources, refuse_shared, write_sources
from esc_ensemble.data.splits import NOTHING_HELD_OUT, split_all
from esc_ensemble.errors import DataError, ModelFileError

Capture = pytest.CaptureFixture[str]


def catalog_of(name: str, *sources: str) -> Catalog:
    clips = tuple(
        Clip(f"{source}-{place}.wav", Path(f"{source}-{place}.wav"), place % 2, place // 2 + 1, f"{source}{place // 2}")
        for source in sources
        for place in range(4)
    )
    return Catalog(name, Path(name), clips, ("dog", "rain"))


def test_clips_of_a_targets_sources_are_left_out_and_named(capsys: Capture) -> None:
    other = catalog_of("other", "1", "2", "3")
    kept, left_out = leave_out_shared(other, [catalog_of("mine", "3", "4"), catalog_of("yours", "1")])
    assert sorted(set(kept.sources.tolist())) == ["20", "21"]
    assert {"10", "11", "30", "31"} <= set(left_out.sources)
    assert len(left_out.clip_ids) == 8
    said = capsys.readouterr().err
    assert 'Left out 8 clips of 12 sources that "mine" and "yours" hold too: 10, 11, 30, 31, ' in said


def test_names_that_are_no_numbers_are_told(capsys: Capture) -> None:
    leave_out_shared(catalog_of("trees", "oak"), [catalog_of("mine", "3")])
    said = capsys.readouterr().err
    assert 'not all clips of "trees" have Freesound numbers' in said
    assert 'clips of "mine"' not in said


def test_a_data_set_that_is_the_target_leaves_nothing() -> None:
    with pytest.raises(DataError, match="none is left"):
        leave_out_shared(catalog_of("other", "1"), [catalog_of("mine", "1", "2")])


def test_what_was_heard_is_read_back_and_refused_by_name(tmp_path: Path) -> None:
    write_sources(tmp_path, ["20", "9", "x", "9"])
    assert (tmp_path / "sources.json").read_text().count('"9"') == 1
    heard = read_sources(tmp_path)
    assert heard == {"9", "20", "x"}
    refuse_shared(tmp_path, heard, catalog_of("mine", "3"))
    with pytest.raises(DataError, match=r'(?s)source.* of "mine".*- 20\n.*--target mine'):
        refuse_shared(tmp_path, heard, catalog_of("mine", "2"))


@pytest.mark.parametrize("source", ["0100032", "100032.0", " 100032", "100032"])
def test_a_number_is_known_however_it_is_written(source: str) -> None:
    clip = Clip("x.wav", Path("x.wav"), 0, 1, source)
    target = Catalog("mine", Path("mine"), (clip,), ("dog",))
    other = catalog_of("other", "1")
    mixed = replace(other, clips=(replace(other.clips[0], source="100032"), *other.clips[1:]))
    assert len(leave_out_shared(mixed, [target])[1].clip_ids) == 1


def test_a_file_is_known_by_its_name_where_the_table_has_no_source(tmp_path: Path) -> None:
    path = Path("plain/1-100032-A-0.wav")
    bare = Catalog("bare", tmp_path, (Clip("plain/1-100032-A-0.wav", path, 0, 1, "plain/1-100032-A-0.wav"),), ("dog",))
    other = catalog_of("other", "1")
    mixed = replace(other, clips=(replace(other.clips[0], source="100032"), *other.clips[1:]))
    assert leave_out_shared(mixed, [bare])[1].sources == ("100032",)


def test_classes_that_are_left_without_clips_go() -> None:
    other = catalog_of("other", "1", "2")
    dogs = replace(other, clips=tuple(clip for clip in other.clips if clip.label == 0))
    kept, _ = leave_out_shared(
        replace(other, clips=tuple(replace(c, source=c.clip_id) for c in other.clips)),
        [replace(dogs, clips=tuple(replace(c, source=c.clip_id) for c in dogs.clips))],
    )
    assert kept.class_names == ("rain",)
    assert set(kept.labels.tolist()) == {0}


def test_what_is_trained_on_whole_needs_no_folds(synthetic_dir: Path, tmp_path: Path) -> None:
    lines = [
        f"{synthetic_dir}/audio/{path.name},{place % 2}"
        for place, path in enumerate(sorted((synthetic_dir / "audio").iterdir())[:8])
    ]
    (tmp_path / "clips.csv").write_text("\n".join(["filename,category", *lines]))
    assert len(load_catalog(tmp_path / "clips.csv", whole=True).clips) == 8
    with pytest.raises(DataError, match="fold"):
        load_catalog(tmp_path / "clips.csv")
    (tmp_path / "only.csv").write_text("\n".join(["filename", *(line.split(",")[0] for line in lines)]))
    assert len(load_recordings(tmp_path / "only.csv").clips) == 8


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema": 1, "sources": []}',
        '{"schema": 1, "sources": "abc"}',
        '{"schema": 1}',
        '{"schema": 2, "sources": []}',
        '{"schema": 1, "sources": [1]}',
    ],
)
def test_a_damaged_list_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "sources.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"sources\.json cannot be read"):
        read_sources(tmp_path)


def test_a_folder_without_a_list_is_no_pretrained_run(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no run of `esc-ens pretrain`"):
        read_sources(tmp_path)


def test_any_folder_of_audio_is_recordings(synthetic_dir: Path, tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    for place, path in enumerate(sorted((synthetic_dir / "audio").iterdir())[:6]):
        (deep / f"100032-3-0-{place}.wav").write_bytes(path.read_bytes())
    (deep / "notes.txt").write_text("no audio")
    found = load_recordings(tmp_path)
    assert len(found.clips) == 6
    assert set(found.sources.tolist()) == {"100032"}
    assert found.class_names == ()
    assert len(thin_out(found, 4).clips) == 4


def test_of_a_data_set_the_sources_are_the_tables(synthetic_dir: Path) -> None:
    assert set(load_recordings(synthetic_dir).sources) == set(load_catalog(synthetic_dir).sources)


@pytest.mark.parametrize(
    ("name", "message"), [("gone", "does not exist"), ("file.wav", "is no folder"), ("empty", "no audio")]
)
def test_what_holds_no_recordings_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.wav").write_bytes(b"x")
    with pytest.raises(DataError, match=message):
        load_recordings(tmp_path / name)


def test_real_sets_share_the_sources_that_are_known_to_be_shared(esc10_dir: Path, urbansound_dir: Path) -> None:
    kept, left_out = leave_out_shared(load_catalog(urbansound_dir), [load_recordings(esc10_dir)])
    assert left_out.sources == ("114587", "180256", "203128")
    assert len(kept.clips) + len(left_out.clip_ids) == 1761


def test_for_pretraining_nothing_is_held_out(synthetic_dir: Path) -> None:
    catalog = load_catalog(synthetic_dir)
    whole = split_all(catalog, 0.0, 0)
    assert (whole.fold, len(whole.train), len(whole.selection), len(whole.test)) == (NOTHING_HELD_OUT, 100, 0, 0)
    parts = split_all(catalog, 0.2, 0)
    assert len(parts.train) + len(parts.selection) == 100 and len(parts.selection) > 5
    assert not set(catalog.sources[parts.train]) & set(catalog.sources[parts.selection])

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from esc_ensemble.errors import WorkError
from esc_ensemble.files import atomic_path, folder_lock, write_json, write_text


def test_a_new_file_appears_whole_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "x")
    (tmp_path / "plain.txt").write_text("x")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == stat.S_IMODE((tmp_path / "plain.txt").stat().st_mode)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_work_that_failed(tmp_path: Path, number: int) -> None:
    with pytest.raises(WorkError, match=r"No space left to write .*a\.txt"), atomic_path(tmp_path / "a.txt"):
        raise OSError(number, "full")
    assert list(tmp_path.iterdir()) == []


def test_a_path_below_a_file_or_at_a_folder_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for path in (tmp_path / "file" / "a.txt", tmp_path / "folder"):
        with pytest.raises(WorkError, match="Cannot write"):
            write_text(path, "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_other_failures_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="else"), atomic_path(tmp_path / "a.txt"):
        raise OSError(errno.EIO, "else")


def test_json_is_utf8_and_refuses_what_is_not_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ä": 1})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "ä": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b.json", {"x": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_readers_see_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path, texts, seen = tmp_path / "a.txt", {"x" * 50000, "y" * 50000}, set()
    write_text(path, "x" * 50000)
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        write_text(path, "xy"[number % 2] * 50000)
    stop.set()
    reader.join()
    assert seen <= texts


def test_a_folder_can_be_held_once_and_again_after(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            folder_lock(tmp_path / "run"),
            pytest.raises(WorkError, match="Another process"),
            folder_lock(tmp_path / "run"),
        ):
            pass


def test_the_lock_goes_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(KeyError), folder_lock(tmp_path):
        raise KeyError
    with folder_lock(tmp_path):
        pass


def test_a_folder_below_a_file_cannot_be_held(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(WorkError, match="Cannot write"), folder_lock(path):
            pass


def test_nothing_is_left_open(tmp_path: Path) -> None:
    fds = Path("/proc/self/fd")
    if not fds.exists():
        pytest.skip("this system lists no open files")
    before = len(os.listdir(fds))  # noqa: PTH208 - iterdir opens one more
    for number in range(20):
        write_text(tmp_path / f"{number}.txt", "x")
    assert len(os.listdir(fds)) <= before + 1  # noqa: PTH208

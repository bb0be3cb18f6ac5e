from __future__ import annotations

import errno
import hashlib
import io
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from esc_ensemble.data.archives import Limits, unpack
from esc_ensemble.data.download import ARCHIVES, Archive, fetch, fetch_archive
from esc_ensemble.errors import ConfigError, DataError, DiskError, WorkError
from esc_ensemble.files import folder_lock


@dataclass
class Site:
    """What the local server holds, how it behaves, and what it was asked."""

    content: bytes = b""
    etag: str = '"v1"'
    ranges: bool = True
    tells_length: bool = True
    cut_after: list[int] = field(default_factory=list)
    """Bytes to send in each of the next answers before hanging up."""
    status: list[int] = field(default_factory=list)
    """Errors to answer with before anything else."""
    asked: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site() -> Iterator[Site]:
    state = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            state.asked.append(wanted)
            if state.status:
                self.send_error(state.status.pop(0))
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.ranges else 0
            if self.headers.get("If-Range", state.etag) != state.etag:
                start = 0
            total = len(state.content)
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            if state.etag:
                self.send_header("ETag", state.etag)
            if state.tells_length:
                self.send_header("Content-Length", str(total - start))
            self.end_headers()
            stop = start + state.cut_after.pop(0) if state.cut_after else total
            self.wfile.write(state.content[start:stop])
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/set.zip"
    yield state
    server.shutdown()
    server.server_close()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


TABLE = b"filename,fold\na.wav,1\nb.wav,2\n"
SET = {
    "ESC-50-abc/meta/esc50.csv": TABLE,
    "ESC-50-abc/audio/1/a.wav": bytes(range(256)) * 12000,
    "ESC-50-abc/audio/2/b.wav": b"x",
}
NOWHERE = "http://127.0.0.1:9/set.zip"


def archive_at(url: str, md5: str = "") -> Archive:
    return Archive(
        url=url,
        file_name="set.zip",
        folder="SET",
        table="meta/esc50.csv",
        clip="audio/{fold}/{filename}",
        n_clips=2,
        megabytes=3,
        md5=md5,
        table_sha256=hashlib.sha256(TABLE).hexdigest(),
    )


def archive_of(site: Site, md5: str = "") -> Archive:
    return archive_at(site.url, md5)


def assert_fetched(folder: Path) -> None:
    assert (folder / "audio" / "1" / "a.wav").read_bytes() == SET["ESC-50-abc/audio/1/a.wav"]
    assert (folder / "meta" / "esc50.csv").is_file()
    assert files_in(folder.parent) == [folder.name]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_fetch_unpacks_and_is_done_once(site: Site, tmp_path: Path) -> None:
    site.content = zipped(SET)
    archive = archive_of(site, hashlib.md5(site.content).hexdigest())
    assert_fetched(fetch_archive(archive, tmp_path / "data"))
    fetch_archive(archive, tmp_path / "data")
    assert site.asked == [""]


def test_a_cut_connection_is_resumed(site: Site, tmp_path: Path) -> None:
    site.content, site.cut_after = zipped(SET), [1 << 20, 1 << 19]
    assert_fetched(fetch_archive(archive_of(site), tmp_path, pause_seconds=0.0))
    assert site.asked == ["", "bytes=1048576-", "bytes=1572864-"]


def test_a_later_run_resumes_too(site: Site, tmp_path: Path) -> None:
    site.content, site.cut_after, site.status = zipped(SET), [1 << 20], []
    site.cut_after += [0] * 5
    with pytest.raises(WorkError, match="Run the command again"):
        fetch_archive(archive_of(site), tmp_path, pause_seconds=0.0)
    assert (tmp_path / "set.zip.part").stat().st_size == 1 << 20
    site.asked.clear()
    assert_fetched(fetch_archive(archive_of(site), tmp_path, pause_seconds=0.0))
    assert site.asked == ["bytes=1048576-"]


def test_a_file_that_changed_meanwhile_is_begun_again(site: Site, tmp_path: Path) -> None:
    site.content, site.cut_after = zipped({"old": bytes(2_000_000)}), [1_000_000] + [0] * 5
    with pytest.raises(WorkError):
        fetch_archive(archive_of(site), tmp_path, pause_seconds=0.0)
    site.content, site.etag = zipped(SET), '"v2"'
    assert_fetched(fetch_archive(archive_of(site), tmp_path, pause_seconds=0.0))


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_version_a_part_is_not_trusted(site: Site, tmp_path: Path, etag: str) -> None:
    site.content, site.cut_after, site.etag = zipped(SET), [1_000_000], etag
    assert_fetched(fetch_archive(archive_of(site), tmp_path, pause_seconds=0.0))
    assert site.asked == ["", ""]


def test_a_server_without_ranges_sends_all_again(site: Site, tmp_path: Path) -> None:
    site.content, site.cut_after, site.ranges = zipped(SET), [1_000_000], False
    assert_fetched(fetch_archive(archive_of(site), tmp_path, pause_seconds=0.0))


def test_a_server_that_tells_no_length(site: Site, tmp_path: Path) -> None:
    site.content, site.tells_length = zipped(SET), False
    assert_fetched(fetch_archive(archive_of(site), tmp_path))


def test_a_whole_part_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    site.content = zipped(SET)
    (tmp_path / "set.zip.part").write_bytes(site.content)
    (tmp_path / "set.zip.part.version").write_text(site.etag)
    assert_fetched(fetch_archive(archive_of(site), tmp_path, pause_seconds=0.0))
    assert len(site.asked) == 1


def test_a_part_longer_than_the_file_is_dropped(site: Site, tmp_path: Path) -> None:
    site.content = zipped(SET)
    (tmp_path / "set.zip.part").write_bytes(site.content + b"x")
    (tmp_path / "set.zip.part.version").write_text(site.etag)
    assert_fetched(fetch_archive(archive_of(site), tmp_path, pause_seconds=0.0))


def test_a_busy_server_is_asked_again_and_a_wrong_address_is_not(site: Site, tmp_path: Path) -> None:
    site.content, site.status = zipped(SET), [503, 429]
    assert_fetched(fetch_archive(archive_of(site), tmp_path / "a", pause_seconds=0.0))
    site.status, site.asked = [404], []
    with pytest.raises(WorkError, match=r"404.*fetch that file by hand and put it at .*set\.zip"):
        fetch_archive(archive_of(site), tmp_path / "b", pause_seconds=0.0)
    assert len(site.asked) == 1


def test_no_connection_says_what_to_do(tmp_path: Path) -> None:
    archive = archive_at(NOWHERE)
    with pytest.raises(WorkError, match=r"http://127\.0\.0\.1:9/set\.zip: no connection.*by hand"):
        fetch_archive(archive, tmp_path, pause_seconds=0.0)


def test_a_file_put_there_by_hand_is_used_and_kept(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(zipped(SET))
    assert (fetch_archive(archive_at(NOWHERE), tmp_path) / "audio" / "1" / "a.wav").is_file()
    assert (tmp_path / "set.zip").is_file()


def test_a_wrong_checksum_is_refused(site: Site, tmp_path: Path) -> None:
    site.content = zipped(SET)
    with pytest.raises(DataError, match="wrong checksum"):
        fetch_archive(archive_of(site, md5="0" * 32), tmp_path)
    assert not (tmp_path / "SET").exists()
    good = archive_of(site, hashlib.md5(site.content).hexdigest())
    assert (fetch_archive(good, tmp_path) / "audio" / "1" / "a.wav").is_file()


def without(name: str) -> dict[str, bytes]:
    return {path: content for path, content in SET.items() if path != name}


WRONG_CONTENT = {
    "another table": (
        SET | {"ESC-50-abc/meta/esc50.csv": TABLE + b"\n"},
        r"esc50\.csv has SHA-256 \w+, published \w+\.",
    ),
    "missing": (without("ESC-50-abc/audio/2/b.wav"), r"does not hold its 2 clips:\n  - audio/2/b\.wav is missing"),
    "empty": (SET | {"ESC-50-abc/audio/2/b.wav": b""}, r"does not hold its 2 clips:\n  - audio/2/b\.wav is empty"),
    "damaged": ({}, "holds no"),
}


@pytest.mark.parametrize("name", WRONG_CONTENT)
def test_content_that_is_not_the_published_one_is_refused(site: Site, tmp_path: Path, name: str) -> None:
    files, message = WRONG_CONTENT[name]
    site.content = zipped(files)
    with pytest.raises(DataError, match=message) as caught:
        fetch_archive(archive_of(site), tmp_path)
    assert "Run the command again" in str(caught.value)
    assert files_in(tmp_path) == ["set.zip.wrong"]
    site.content = zipped(SET)
    assert (fetch_archive(archive_of(site), tmp_path) / "audio" / "2" / "b.wav").is_file()


def test_a_table_that_names_too_few_clips(site: Site, tmp_path: Path) -> None:
    site.content = zipped(SET)
    with pytest.raises(DataError, match=r"does not hold its 3 clips:\n  - meta/esc50\.csv names 2 clips"):
        fetch_archive(replace(archive_of(site), n_clips=3), tmp_path)
    assert not (tmp_path / "SET").exists()


def test_a_folder_that_lost_a_clip_is_not_taken_for_whole(site: Site, tmp_path: Path) -> None:
    site.content = zipped(SET)
    folder = fetch_archive(archive_of(site), tmp_path)
    (folder / "audio" / "2" / "b.wav").unlink()
    with pytest.raises(DataError, match=r"SET exists, but (.|\n)*b\.wav is missing(.|\n)*Move it away"):
        fetch_archive(archive_of(site), tmp_path)
    assert (folder / "audio" / "1" / "a.wav").is_file()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_stopped_while_unpacking_it_goes_on_without_a_download(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    site.content = zipped(SET)

    def stop(packed: Path, folder: Path) -> None:
        (folder / "meta").mkdir()
        (folder / "meta" / "esc50.csv").write_bytes(TABLE)
        raise error

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, DiskError)):
        patch.setattr("esc_ensemble.data.download.unpack", stop)
        fetch_archive(archive_of(site), tmp_path)
    assert files_in(tmp_path) == ["set.zip.whole"]
    assert_fetched(fetch_archive(archive_at(NOWHERE), tmp_path))


def test_killed_while_unpacking_it_goes_on_and_tidies_up(site: Site, tmp_path: Path) -> None:
    site.content = zipped(SET)
    (tmp_path / "set.zip.whole").write_bytes(site.content)
    (tmp_path / ".SET-abcdef.part" / "new" / "audio").mkdir(parents=True)
    assert_fetched(fetch_archive(archive_of(site), tmp_path))


def test_one_process_at_a_time(site: Site, tmp_path: Path) -> None:
    with folder_lock(tmp_path), pytest.raises(WorkError, match=r"Another process .* choose another folder with --out"):
        fetch_archive(archive_of(site), tmp_path)
    assert site.asked == []


def test_without_requests_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "esc_ensemble.data.transfer", raising=False)
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(ConfigError, match=r'requests is not installed.*pip install "esc_ensemble\[train\]"'):
        fetch("esc50", tmp_path)


def test_a_stranger_in_the_way_is_not_touched(site: Site, tmp_path: Path) -> None:
    (tmp_path / "SET").mkdir()
    (tmp_path / "SET" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="Move it away"):
        fetch_archive(archive_of(site), tmp_path)
    assert (tmp_path / "SET" / "thesis.txt").is_file()


def test_an_archive_of_something_else(site: Site, tmp_path: Path) -> None:
    site.content = zipped({"readme": b"x"})
    with pytest.raises(DataError, match=r"holds no meta/esc50\.csv"):
        fetch_archive(archive_of(site), tmp_path)
    assert not (tmp_path / "SET").exists()


def link(kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, "/etc/passwd"
    return info, b""


def zip_link() -> bytes:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


EVIL: dict[str, tuple[Callable[[], bytes], str]] = {
    "zip up": (lambda: zipped({"../evil": b"x"}), "leads out"),
    "zip deep up": (lambda: zipped({"a/../../evil": b"x"}), "leads out"),
    "zip absolute": (lambda: zipped({"/evil": b"x"}), "leads out"),
    "zip windows": (lambda: zipped({"C:/evil": b"x"}), "leads out"),
    "zip link": (zip_link, "link or device"),
    "tar up": (lambda: tarred((tarfile.TarInfo("../evil"), b"x")), "leads out"),
    "tar absolute": (lambda: tarred((tarfile.TarInfo("/evil"), b"x")), "leads out"),
    "tar symlink": (lambda: tarred(link(tarfile.SYMTYPE)), "link or device"),
    "tar hard link": (lambda: tarred(link(tarfile.LNKTYPE)), "link or device"),
    "tar device": (lambda: tarred(link(tarfile.CHRTYPE)), "link or device"),
    "tar twice": (lambda: tarred((tarfile.TarInfo("a"), b"x"), (tarfile.TarInfo("a"), b"y")), "twice"),
    "bomb": (lambda: zipped({"a": bytes(5000)}), "would unpack to more"),
    "many": (lambda: zipped({str(i): b"" for i in range(9)}), "would unpack to more"),
    "tar cut": (lambda: tarred((tarfile.TarInfo("a"), bytes(range(256)) * 8))[:-40], "damaged"),
    "tar cut between": (lambda: tarred((tarfile.TarInfo("a"), b"x"))[:-9], "damaged"),
    "zip cut": (lambda: zipped({"a": b"x" * 99})[:-30], "damaged"),
    "zip bits": (lambda: zipped({"a": b"xyzw" * 99}).replace(b"xyzw", b"xyzv", 1), "damaged"),
    "text": (lambda: b"<html>Please log in</html>" * 99, "damaged"),
    "nothing": (lambda: b"", "damaged"),
}


@pytest.mark.parametrize("name", EVIL)
def test_evil_and_damaged_archives_are_refused(tmp_path: Path, name: str) -> None:
    make, wanted = EVIL[name]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out").mkdir()
    (tmp_path / "packed").write_bytes(make())
    with pytest.raises(DataError, match=wanted):
        unpack(tmp_path / "packed", tmp_path / "in" / "out", Limits(n_bytes=4096, n_files=8))
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["out"]
    assert not any(path.is_symlink() for path in (tmp_path / "in" / "out").rglob("*"))


def test_a_tar_is_unpacked_like_a_zip(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("UrbanSound8K/metadata")
    folder.type = tarfile.DIRTYPE
    (tmp_path / "packed").write_bytes(tarred((folder, b""), (tarfile.TarInfo("UrbanSound8K/metadata/a"), b"x")))
    unpack(tmp_path / "packed", tmp_path / "out")
    assert (tmp_path / "out" / "UrbanSound8K" / "metadata" / "a").read_bytes() == b"x"


def test_names_of_datasets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match='Did you mean "esc50"'):
        fetch("esc-50", tmp_path)
    assert ARCHIVES["esc10"] == ARCHIVES["esc50"]
    (tmp_path / "ESC-50" / "meta").mkdir(parents=True)
    (tmp_path / "ESC-50" / "meta" / "esc50.csv").write_text("x")
    with pytest.raises(DataError, match="published ca660da"):
        fetch("esc10", tmp_path)
    assert "--esc10" in capsys.readouterr().err

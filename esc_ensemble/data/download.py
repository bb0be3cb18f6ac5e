"""The official archives: fetched with resuming, checked, unpacked."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from esc_ensemble.data.archives import unpack
from esc_ensemble.data.folders import whole_folder
from esc_ensemble.data.transfer import Transfer, download
from esc_ensemble.errors import ConfigError, DataError, WorkError, did_you_mean
from esc_ensemble.progress import say


@dataclass(frozen=True)
class Archive:
    """A dataset as one file on the web."""

    url: str
    file_name: str
    folder: str
    """What its unpacked folder is called here."""
    table: str
    """A file in that folder without which it is not the dataset."""
    megabytes: int
    """Its size, for the progress bar where the server does not tell."""
    md5: str = ""
    """Published checksum; GitHub's archives have none."""


ESC50 = Archive(
    url="https://github.com/karoldvl/ESC-50/archive/master.zip",
    file_name="ESC-50-master.zip",
    folder="ESC-50",
    table="meta/esc50.csv",
    megabytes=650,
)
ARCHIVES = {
    "esc50": ESC50,
    "esc10": ESC50,
    "urbansound8k": Archive(
        url="https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz?download=1",
        file_name="UrbanSound8K.tar.gz",
        folder="UrbanSound8K",
        table="metadata/UrbanSound8K.csv",
        megabytes=6024,
        md5="9aa69802bbf37fb986f71ec1483a196e",
    ),
}


def fetch(name: str, out: Path) -> Path:
    """Downloads and unpacks a dataset, unless it is there already.

    Args:
        name: esc50, esc10 (the same archive; its ten classes are chosen with --esc10) or urbansound8k.
        out: the folder to put the dataset's folder in.

    Returns:
        The dataset's folder, for `load_catalog`.

    Raises:
        ConfigError: there is no such dataset.
        DataError: the archive is damaged, or something else stands where the dataset should go.
        WorkError: the download failed, the disk is full, or another process is at it. A download that was
            broken off goes on where it stopped.
    """
    if name not in ARCHIVES:
        raise ConfigError(f'There is no dataset "{name}" to fetch.{did_you_mean(name, ARCHIVES)}')
    if name == "esc10":
        say("ESC-10 is the part of ESC-50 that --esc10 chooses; fetching ESC-50.")
    return fetch_archive(ARCHIVES[name], out)


def fetch_archive(archive: Archive, out: Path, pause_seconds: float = 2.0) -> Path:
    """Does what `fetch` does for any archive. `pause_seconds` is the first wait before a new try; it doubles.

    Raises:
        DataError: as for `fetch`.
        WorkError: as for `fetch`.
    """
    target = out / archive.folder
    if (target / archive.table).is_file():
        say(f"{target} is there already.")
        return target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target} exists but has no {archive.table}. Move it away or choose another folder.")
    packed = out / archive.file_name
    with _only_fetcher(out, archive.file_name):
        by_hand = packed.is_file()
        if not by_hand:
            download(Transfer(archive.url, packed, archive.megabytes), pause_seconds)
        _check_md5(packed, archive)
        with whole_folder(target) as folder:
            unpack(packed, folder)
            _lift(folder, archive)
        if not by_hand:
            packed.unlink()
    return target


@contextmanager
def _only_fetcher(out: Path, file_name: str) -> Iterator[None]:
    from filelock import FileLock, Timeout  # noqa: PLC0415 - only a download needs it

    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / f".{file_name}.lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise WorkError(f"Another process is fetching {file_name} into {out}. Wait for it to end.") from error
    except OSError as error:
        raise WorkError(f"Cannot write to {out}: {error.strerror or error}. Choose another folder.") from error
    try:
        yield
    finally:
        lock.release()


def _check_md5(packed: Path, archive: Archive) -> None:
    if not archive.md5:
        return
    with packed.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found == archive.md5:
        return
    wrong = packed.with_name(packed.name + ".wrong")
    packed.replace(wrong)
    raise DataError(
        f"{packed} has the wrong checksum: md5 {found}, published {archive.md5}. "
        f"It was set aside as {wrong.name}. Run the command again, or fetch {archive.url} "
        f"by hand and put it at {packed}."
    )


def _lift(folder: Path, archive: Archive) -> None:
    """Moves the content of the archive's one top folder up into `folder`."""
    if (folder / archive.table).is_file():
        return
    tops = [top for top in folder.iterdir() if (top / archive.table).is_file()]
    if not tops:
        raise DataError(f"{archive.file_name} holds no {archive.table}; it is not {archive.folder}.")
    for item in list(tops[0].iterdir()):
        shutil.move(item, folder / item.name)
    tops[0].rmdir()

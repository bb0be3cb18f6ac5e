"""The official data sets: downloaded, unpacked and checked."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from esc_ensemble.data.archives import unpack
from esc_ensemble.data.folders import whole_folder
from esc_ensemble.data.tables import read_csv
from esc_ensemble.errors import ConfigError, DataError, did_you_mean, list_problems
from esc_ensemble.files import folder_lock
from esc_ensemble.progress import say


@dataclass(frozen=True)
class Archive:
    """A data set as one file on the web."""

    url: str
    file_name: str
    folder: str
    """Name of its unpacked folder."""
    table: str
    """Its table of clips, in that folder."""
    clip: str
    """Path of a clip in that folder, with the table's columns in braces."""
    n_clips: int
    megabytes: int
    """Its size, for the progress bar where the server does not send it."""
    md5: str = ""
    """Published checksum of the archive; those that GitHub makes on request have none."""
    table_sha256: str = ""
    """Digest of the table, for an archive without a checksum."""


# The newest commit of the repository under its present owner; karoldvl was the same person's earlier name.
ESC50_COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"
ESC50 = Archive(
    url=f"https://github.com/karolpiczak/ESC-50/archive/{ESC50_COMMIT}.zip",
    file_name=f"ESC-50-{ESC50_COMMIT}.zip",
    folder="ESC-50",
    table="meta/esc50.csv",
    clip="audio/{filename}",
    n_clips=2000,
    megabytes=646,
    # Of the file at that commit, 93,742 bytes with LF line endings, which GitHub's archives do not change.
    table_sha256="ca660da60191a97de289983a05821c9382d852a38a2ba8428980816b68cf6246",
)
ARCHIVES = {
    "esc50": ESC50,
    "esc10": ESC50,
    # No digest of the table: copies of it differ in how they write numbers, and the archive's checksum covers it.
    "urbansound8k": Archive(
        url="https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz?download=1",
        file_name="UrbanSound8K.tar.gz",
        folder="UrbanSound8K",
        table="metadata/UrbanSound8K.csv",
        clip="audio/fold{fold}/{slice_file_name}",
        n_clips=8732,
        megabytes=6024,
        md5="9aa69802bbf37fb986f71ec1483a196e",
    ),
}


def fetch(name: str, out: Path) -> Path:
    """Download and unpack a data set, unless it is there already.

    Args:
        name: esc50, esc10 (the same archive; its ten classes are chosen with --esc10) or urbansound8k.
        out: the folder to put the data set's folder in.

    Returns:
        The data set's folder, for `load_catalog`.

    Raises:
        ConfigError: there is no such data set, or `requests` is not installed.
        DataError: the archive is not the published one, or something else is where the data set should go.
        WorkError: the download failed, the disk is full, or another process writes to `out`. A download that
            was stopped continues the next time.
    """
    if name not in ARCHIVES:
        raise ConfigError(f'There is no dataset "{name}" to fetch.{did_you_mean(name, ARCHIVES)}')
    if name == "esc10":
        say("ESC-10 is the part of ESC-50 that --esc10 chooses; fetching ESC-50.")
    return fetch_archive(ARCHIVES[name], out)


def fetch_archive(archive: Archive, out: Path, pause_seconds: float = 2.0) -> Path:
    """Do what `fetch` does for any archive. `pause_seconds` is the first wait before a new try; it doubles.

    Raises:
        EscError: as for `fetch`.
    """
    try:
        from esc_ensemble.data.transfer import Transfer, download  # noqa: PLC0415 - no other command needs requests
    except ModuleNotFoundError as error:
        raise ConfigError(f'{error.name} is not installed. Install it: pip install "esc_ensemble[train]"') from error

    target, by_hand = out / archive.folder, out / archive.file_name
    if _is_there(target, archive):
        return target
    with folder_lock(out, "or choose another folder with --out"):
        if _is_there(target, archive):  # another process was faster
            return target
        for left in out.glob(f".{archive.folder}-*.part"):  # by a process that was killed while unpacking
            shutil.rmtree(left, ignore_errors=True)
        packed = by_hand
        if not by_hand.is_file():
            packed = download(Transfer(archive.url, by_hand, archive.megabytes), pause_seconds)
        try:
            _check_md5(packed, archive)
            with whole_folder(target) as folder:
                unpack(packed, folder)
                _lift(folder, archive)
                _check_content(folder, archive)
        except DataError as error:
            wrong = by_hand.with_name(by_hand.name + ".wrong")
            packed.replace(wrong)
            raise DataError(
                f"{error}\nThe archive was set aside as {wrong}. Run the command again, or fetch {archive.url} "
                f"by hand and put it at {by_hand}."
            ) from error
        if packed != by_hand:
            packed.unlink()
    return target


def _is_there(target: Path, archive: Archive) -> bool:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    try:
        _check_content(target, archive)
    except DataError as error:
        raise DataError(f"{target} exists, but {error}\nMove it away or choose another folder with --out.") from error
    say(f"{target} is there already.")
    return True


def _check_md5(packed: Path, archive: Archive) -> None:
    if not archive.md5:
        return
    with packed.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != archive.md5:
        raise DataError(f"{packed} has the wrong checksum: MD5 {found}, published {archive.md5}.")


def _lift(folder: Path, archive: Archive) -> None:
    """Move the content of the archive's one top folder up into `folder`."""
    tops = [top for top in folder.iterdir() if (top / archive.table).is_file()]
    for top in tops[:1]:
        for item in list(top.iterdir()):
            shutil.move(item, folder / item.name)
        top.rmdir()


def _check_content(folder: Path, archive: Archive) -> None:
    """Raise a `DataError` where the table is not the published one, or a clip is missing or empty."""
    table = folder / archive.table
    if not table.is_file():
        raise DataError(f"{archive.folder} holds no {archive.table}.")
    found = hashlib.sha256(table.read_bytes()).hexdigest()
    if archive.table_sha256 not in ("", found):
        raise DataError(f"{archive.folder}/{archive.table} has SHA-256 {found}, published {archive.table_sha256}.")
    try:
        clips = [archive.clip.format_map(cells) for _, cells in read_csv(table).rows]
    except KeyError as error:
        raise DataError(f"{archive.folder}/{archive.table} has no column {error}.") from error
    sizes = {clip: (folder / clip).stat().st_size if (folder / clip).is_file() else None for clip in clips}
    problems = [f"{clip} is {'missing' if n is None else 'empty'}" for clip, n in sizes.items() if not n]
    if len(sizes) != archive.n_clips:
        problems.insert(0, f"{archive.table} names {len(sizes)} clips")
    if problems:
        raise DataError(list_problems(f"{archive.folder} does not hold its {archive.n_clips} clips:", problems))

"""The one walk over a folder: which files are taken, which are audio, and what is passed over.

Training, `infer`, `predict` and the Kaggle kernel use the same rules; `kaggle_kernel.py` carries a copy of the part
between the two marks, and a test compares the texts.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

# --- copied into kaggle_kernel.py

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64"),
)
"""Endings of file names, in lower case, that are decoded here."""
OTHER_AUDIO_SUFFIXES = (
    *(".m4a", ".m4b", ".aac", ".mp4", ".wma", ".webm", ".amr", ".ape", ".wv", ".mka", ".3gp", ".mp2", ".ac3", ".dsf"),
    *(".weba", ".spx", ".tta", ".dff"),
)
"""Endings of audio that cannot be decoded here: such files are named, not passed over."""
POINTER_BYTES = 1024
"""A file larger than this is no pointer of Git LFS or git-annex."""


@dataclass
class Walk:
    """Contents of a folder."""

    files: list[Path] = field(default_factory=list)
    """All files, sorted by path, without hidden ones."""
    dead_links: list[Path] = field(default_factory=list)
    """Links that lead nowhere, such as git-annex leaves where a file was not fetched."""
    n_hidden: int = 0
    """Files and folders passed over because their name begins with a dot or is __MACOSX."""
    n_special: int = 0
    """Pipes, sockets and devices."""
    unreadable: list[Path] = field(default_factory=list)
    """Folders that may not be listed."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is passed over for its name: `.name`, and what macOS puts into archives."""
    return name.startswith(".") or name == "__MACOSX"


def folder_id(folder: str | Path) -> tuple[int, int]:
    """Returns what is the same for all paths to one folder: its device and its number there."""
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def walk(top: Path, leave_out: Path | None = None) -> Walk:
    """Lists all files below a folder; links to folders are followed, each folder once, real ones first.

    Args:
        top: the folder, whose own name may be anything.
        leave_out: a folder to pass over.
    """
    found = Walk()
    seen = {folder_id(leave_out)} if leave_out is not None and leave_out.is_dir() else set()
    if top.is_dir():  # a link to a folder above the top leads in a circle
        seen |= {folder_id(above) for above in Path(os.path.realpath(top)).parents}
    folders, links = deque([os.fspath(top)]), deque[str]()
    while folders or links:
        folder = (folders or links).popleft()
        try:
            identity = folder_id(folder)
            if identity in seen:
                continue
            seen.add(identity)
            entries = list(os.scandir(folder))
        except OSError:
            found.unreadable.append(Path(folder))
            continue
        for entry in entries:
            if is_hidden(entry.name):
                found.n_hidden += 1
            elif entry.is_dir():
                (links if entry.is_symlink() else folders).append(entry.path)
            elif entry.is_file():
                found.files.append(Path(entry.path))
            elif entry.is_symlink():
                found.dead_links.append(Path(entry.path))
            else:
                found.n_special += 1
        links = deque(sorted(links))
    for paths in (found.files, found.dead_links):
        paths.sort(key=lambda path: path.parts)  # quicker than comparing paths themselves
    return found


def is_audio(path: Path, suffixes: Iterable[str] = (*AUDIO_SUFFIXES, *OTHER_AUDIO_SUFFIXES)) -> bool:
    """Whether a file is audio by its ending, whatever the case of its letters."""
    return path.name.lower().endswith(tuple(suffixes))


def pointer_in(path: Path) -> str:
    """Names the program that left a small text in the place of a file: Git LFS or git-annex; empty for a real file."""
    try:
        if path.stat().st_size > POINTER_BYTES:
            return ""
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return ""
    if head.startswith(b"version https://git-lfs.github.com/"):
        return "Git LFS"
    return "git-annex" if head.startswith(b"/annex/objects/") else ""


# --- end of the copy


def absence(path: Path) -> str:
    """Why a file cannot be read at all, as the end of a sentence that names it; empty where nothing is wrong.

    A missing file, a link that leads nowhere, an empty file, and what Git LFS or git-annex left in its place.
    """
    try:
        n_bytes = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            return f"is a link to {path.readlink()}, which does not exist (with git-annex: git annex get)"
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if n_bytes == 0:
        return "is empty (0 bytes)"
    program = pointer_in(path) if n_bytes <= POINTER_BYTES else ""
    if program:
        command = "git lfs pull" if program == "Git LFS" else "git annex get"
        return f"is a pointer of {program}, not audio: fetch the file with `{command}`"
    return ""


def describe_passed_over(found: Walk, root: Path) -> str:
    """Counts what a walk did not take as audio, in one sentence; empty where it took everything."""
    other = [path for path in found.files if not is_audio(path)]
    parts = []
    if other:
        kinds = Counter(path.suffix.lower() or "no ending" for path in other)
        listed = ", ".join(f"{kind} {n}" for kind, n in kinds.most_common(6))
        parts.append(f"{len(other)} {'file' if len(other) == 1 else 'files'} of other kinds ({listed})")
    if found.n_special:
        parts.append(f"{found.n_special} that are no files (pipes, sockets)")
    if found.n_hidden:
        parts.append(f"{found.n_hidden} hidden {'one' if found.n_hidden == 1 else 'ones'}")
    if found.unreadable:
        parts.append(f"{len(found.unreadable)} folders that may not be read, such as {found.unreadable[0]}")
    return f"Passed over below {root}: {' and '.join(parts)}." if parts else ""


def has_audio(folder: Path) -> bool:
    """Whether there is audio below a folder; looks no further than the first file."""
    for below, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        if any(not is_hidden(name) and is_audio(Path(below, name)) for name in names):
            return True
    return False


def folders_in(root: Path) -> list[Path]:
    """Lists the folders in a folder by name, hidden ones apart."""
    return sorted(item for item in root.iterdir() if item.is_dir() and not is_hidden(item.name))


def files_in(root: Path) -> list[Path]:
    """Lists the files in a folder by name, hidden ones apart."""
    return sorted(item for item in root.iterdir() if item.is_file() and not is_hidden(item.name))

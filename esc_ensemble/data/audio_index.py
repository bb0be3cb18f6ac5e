"""Audio files by the names that a table has for them."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from esc_ensemble.data.walk import AUDIO_SUFFIXES, OTHER_AUDIO_SUFFIXES, Walk, is_audio, walk
from esc_ensemble.errors import DataError

SUFFIXES = frozenset((*AUDIO_SUFFIXES, *OTHER_AUDIO_SUFFIXES))


def same_text(name: str) -> str:
    """Returns a name in the form in which names are compared: composed (NFC), since macOS stores them decomposed."""
    return unicodedata.normalize("NFC", name)


def parts_of(name: str) -> tuple[str, ...]:
    """Splits the name of a file as a table has it, with slashes or backslashes: folders and file, without `.`."""
    parts = same_text(name).replace("\\", "/").split("/")
    return tuple(part for part in parts if part not in ("", "."))


def stem_of(name: str) -> str:
    """Cuts the ending of an audio file off a name; a name may hold dots of its own."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in SUFFIXES else name


@dataclass(frozen=True)
class Located:
    """Files found for a list of names."""

    paths: list[Path | None]
    """The file of each name; None where there is none, or several."""
    ambiguous: dict[int, list[Path]]
    """Position of a name that several files fit -> the files."""


class AudioIndex:
    """All audio below some folders, by name.

    Args:
        roots: the folders.
        leave_out: files that are not to be found.
    """

    def __init__(self, roots: Sequence[Path], leave_out: Collection[Path] = ()) -> None:
        self.walks: list[Walk] = [walk(root) for root in dict.fromkeys(roots)]
        hidden = frozenset(leave_out)
        everything = dict.fromkeys(path for found in self.walks for path in (*found.files, *found.dead_links))
        self.files = [path for path in everything if is_audio(path) and path not in hidden]

    @cached_property
    def _by_stem(self) -> dict[str, list[tuple[tuple[str, ...], Path]]]:
        """Name without its ending, in small letters -> parts of the path, and the path."""
        found: defaultdict[str, list[tuple[tuple[str, ...], Path]]] = defaultdict(list)
        for path in self.files:
            parts = Path(same_text(os.fspath(path))).parts
            found[stem_of(parts[-1]).casefold()].append((parts, path))
        return found

    def find(self, names: Sequence[str], prefer: Collection[str] = (), *, exact: bool = False) -> Located:
        """Finds the file of each name.

        Of the files with the name (its ending apart, and upper and lower case) those fit best whose folders are also
        the name's, from the last on; then those whose name is the same to the letter. Of several, one whose folder is
        called as `prefer` says is taken, or one in whose folder the others lie further down: those are copies.

        Args:
            names: as a table has them.
            prefer: names of folders, such as that of a clip's fold, one a name; or none.
            exact: whether all folders in a name have to be the file's; without it, as many as are for any other name.
        """
        wanted = [parts_of(name) for name in names]
        found = [self._best(parts) for parts in wanted]
        needed = max((depth for depth, best in found if best), default=0)
        preferred = list(prefer) or [""] * len(wanted)
        paths: list[Path | None] = []
        ambiguous: dict[int, list[Path]] = {}
        for position, (parts, (depth, best), folder) in enumerate(zip(wanted, found, preferred, strict=True)):
            n_folders = len(parts) - 1
            fits = best if depth >= (n_folders if exact else min(needed, n_folders)) else []
            if len(fits) > 1:
                fits = [path for path in fits if path.parent.name == folder] or fits
            if len(fits) > 1:
                fits = _without_copies(fits)
            paths.append(fits[0] if len(fits) == 1 else None)
            if len(fits) > 1:
                ambiguous[position] = fits
        return Located(paths, ambiguous)

    def _best(self, wanted: tuple[str, ...]) -> tuple[int, list[Path]]:
        """Returns how many folders the best files share with a name, and these files."""
        if not wanted:
            return 0, []
        ranked: dict[tuple[int, bool, bool], list[Path]] = {}
        stem = stem_of(wanted[-1])
        for parts, path in self._by_stem.get(stem.casefold(), ()):
            depth = 0
            while depth + 1 < min(len(wanted), len(parts)) and wanted[-2 - depth] == parts[-2 - depth]:
                depth += 1
            ranked.setdefault((depth, parts[-1] == wanted[-1], stem_of(parts[-1]) == stem), []).append(path)
        return (max(ranked)[0], ranked[max(ranked)]) if ranked else (0, [])


def _without_copies(paths: list[Path]) -> list[Path]:
    """Returns the uppermost of several files alone where the others are further down in its folder, as copies are."""
    top = min(paths, key=lambda path: len(path.parts))
    others = [path for path in paths if path is not top]
    nested = all(top.parent in path.parents and path.parent != top.parent for path in others)
    return [top] if nested else paths


def find_folder(root: Path, name: str) -> Path:
    """Finds the folder of audio that a user names: below the data set, anywhere, or the one of that name.

    Raises:
        DataError: there is none, or there are several of that name.
    """
    for place in (root / name, Path(name)):
        if place.is_dir():
            return place
    audio = [path for path in walk(root).files if is_audio(path)]
    holding = {folder for path in audio for folder in path.parents if root in folder.parents}
    same = sorted(folder for folder in holding if folder.name == name)
    if len(same) == 1:
        return same[0]
    listed = ", ".join(os.path.relpath(folder, root) for folder in (same or sorted(holding))[:8])
    what = f"{len(same)} folders of that name" if same else "no such folder; those with audio are"
    raise DataError(f"--audio {name}: {root} has {what}: {listed or 'none'}.")

"""Every clip decoded once, into one memory-mapped array of 16-bit samples that training reads from."""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from esc_ensemble.data.audio import LONG_SAMPLES, Recipe
from esc_ensemble.data.catalog import Catalog, subset
from esc_ensemble.data.decoding import Decoded, decode_all
from esc_ensemble.data.duplicates import same_audio
from esc_ensemble.data.parquet import is_row
from esc_ensemble.errors import ConfigError, DataError, DiskError, WorkError, list_problems
from esc_ensemble.files import atomic_path, cache_lock, write_json
from esc_ensemble.home import can_write, expand_home, is_spare, spare_home, user_cache_dir
from esc_ensemble.progress import progress, say

if TYPE_CHECKING:
    from esc_ensemble.config import DataConfig

FORMAT_VERSION = 3
MAX_WARNED = 5
N_SCRATCH = 16
"""Long clips that are in files of their own for a while."""


@dataclass(frozen=True)
class WaveformCache:
    """The waveforms of a catalog's clips, in their order.

    `waveforms` is (N, T) int16, memory-mapped and read-only; divided by 32768 it lies in [-1, 1).
    """

    waveforms: npt.NDArray[np.int16]
    sample_rate: int
    path: Path
    """The file; its name tells these waveforms from all others."""

    @property
    def n_samples(self) -> int:
        """Length T of a waveform."""
        return int(self.waveforms.shape[1])

    def batch(self, index: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
        """Copies the waveforms at `index` (B,) into memory, as (B, T) int16."""
        return np.asarray(self.waveforms[index])

    def windows(
        self, index: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], n_window: int
    ) -> npt.NDArray[np.int16]:
        """Copies `n_window` samples from `starts` (B,) on of the waveforms at `index` (B,), as (B, n_window) int16.

        Recordings of which windows are read may be larger than memory: what was read stays with the system alone.
        """
        read = np.lib.stride_tricks.sliding_window_view(self.waveforms, n_window, axis=1)[index, starts]
        if isinstance(self.waveforms.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self.waveforms.base.madvise(mmap.MADV_DONTNEED)
        return np.asarray(read)


def build_cache(
    catalog: Catalog,
    data: DataConfig,
    *,
    cache_dir: Path | None = None,
    n_workers: int = 0,
    skip_bad: bool = False,
) -> tuple[WaveformCache, Catalog]:
    """Opens the waveforms of a catalog, decoding its clips first where that was not done before.

    A cache is known by its clips' names, sizes and times of change and by every setting that shapes a
    waveform. Two processes that want the same one take turns.

    Args:
        catalog: the clips.
        data: rate, length, fit and trim.
        cache_dir: where caches lie; by default $ESC_ENSEMBLE_CACHE, else esc_ensemble in the user's cache
            folder.
        n_workers: processes that decode; 0 takes the free cores.
        skip_bad: leave out clips that cannot be decoded or whose audio stands under another name too.

    Returns:
        The cache, and the catalog of the clips in it. With `skip_bad` its `skipped` says what was left out.

    Raises:
        DataError: clips cannot be decoded or the same audio stands in two folds or classes (all listed
            together), or what skipping leaves cannot be cross-validated.
        WorkError: the disk is full, the cache folder cannot be written, or a worker process runs the calling
            script again because its work does not stand under `if __name__ == "__main__":`.
    """
    _check_not_a_worker()
    recipe = Recipe(data.sample_rate, data.n_samples, data.fit, data.trim_db, data.channel)
    folder = cache_dir if cache_dir is not None else default_cache_dir()
    path = folder / f"waveforms-{_key(catalog, recipe)}.npy"
    with cache_lock(path):
        content = _read(path, catalog, recipe)
        if content is None or (content.bad and not skip_bad):
            content = _build(path, catalog, recipe, n_workers, skip_bad=skip_bad)
    return _audited(content, catalog, data, path, n_workers, skip_bad=skip_bad)


def _check_not_a_worker() -> None:
    """Refuses a worker that runs the calling script anew: it would wait for ever for the lock of its parent."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # what multiprocessing itself asks
        raise WorkError('A script that decodes clips needs `if __name__ == "__main__":` around its work.')


def default_cache_dir() -> Path:
    """Return $ESC_ENSEMBLE_CACHE, else esc_ensemble in $XDG_CACHE_HOME or ~/.cache.

    Where the last two cannot be written to, or there is no home folder, it is one in the folder for temporary files,
    which is reported.

    Raises:
        ConfigError: ESC_ENSEMBLE_CACHE begins with a home folder that is unknown.
        DiskError: no folder can be written to.
    """
    chosen = os.environ.get("ESC_ENSEMBLE_CACHE")
    if chosen:
        path = expand_home(chosen)
        if path.parts[:1] and path.parts[0].startswith("~"):
            raise ConfigError(
                f"ESC_ENSEMBLE_CACHE is {chosen}, and that home folder is unknown. Set it to a whole path."
            )
        return path
    base = user_cache_dir()
    folder = base / "esc_ensemble" if base is not None else None
    if folder is None or not can_write(folder):
        try:
            folder = spare_home() / ".cache" / "esc_ensemble"
        except DiskError as error:
            raise DiskError(
                f"There is no folder for decoded clips: neither the user's cache folder nor one for temporary files "
                f"can be written to ({error}) Set ESC_ENSEMBLE_CACHE to a folder you can write to."
            ) from error
    if is_spare(folder):
        say(
            f"The user's cache folder cannot be written to: decoded clips are stored in {folder}. Set "
            "ESC_ENSEMBLE_CACHE to a folder that lasts."
        )
    return folder


@dataclass(frozen=True)
class _Content:
    """What lies on disk: the waveforms (n_good, T), a digest for each, and why the other clips have none."""

    waveforms: npt.NDArray[np.int16]
    digests: tuple[str, ...]
    bad: dict[int, str]
    """Position in the catalog -> message."""


def _audited(
    content: _Content, catalog: Catalog, data: DataConfig, path: Path, n_workers: int, *, skip_bad: bool
) -> tuple[WaveformCache, Catalog]:
    if content.bad:
        keep = [index for index in range(len(catalog.clips)) if index not in content.bad]
        catalog = subset(catalog, keep, list(content.bad.values()))
    found = same_audio(catalog, content.digests)
    if found.harmless:
        more = f" and {len(found.harmless) - MAX_WARNED} more" if len(found.harmless) > MAX_WARNED else ""
        say(f"Same audio twice, kept: {'; '.join(found.harmless[:MAX_WARNED])}{more}.")
    if found.n_silent > 1:
        say(f"{found.n_silent} clips are digital silence; they are not compared with each other.")
    if found.shared:
        groups = "; ".join(" = ".join(group) for group in found.shared[:MAX_WARNED])
        more = f" and {len(found.shared) - MAX_WARNED} more" if len(found.shared) > MAX_WARNED else ""
        say(f"Same audio in several published folds, taken as one recording: {groups}{more}.")
        catalog = replace(catalog, same_audio=found.shared)
    if not found.problems:
        if catalog.skipped:
            say(list_problems(f"Skipped {len(catalog.skipped)} of the clips:", catalog.skipped))
        return WaveformCache(content.waveforms, data.sample_rate, path), catalog
    if not skip_bad:
        raise DataError(
            list_problems(
                f'"{catalog.name}" holds the same audio under several names:',
                found.problems,
                "Remove all but one of each, or pass --skip-bad to leave out those that contradict.",
            )
        )
    # What is a duplicate depends on folds and labels, which are no part of the key: the rest gets a cache of
    # its own.
    keep = [index for index in range(len(catalog.clips)) if index not in found.drop]
    rest = subset(catalog, keep, list(found.drop.values()))
    return build_cache(rest, data, cache_dir=path.parent, n_workers=n_workers, skip_bad=True)


def _key(catalog: Catalog, recipe: Recipe) -> str:
    files = []
    for clip in catalog.clips:
        try:
            status = (clip.path.parent if is_row(clip.path) else clip.path).stat()
        except OSError:  # gone since the catalog was read; decoding will name it with all the others
            files.append([clip.clip_id, -1, -1])
        else:
            files.append([str(clip.path.resolve()), status.st_size, status.st_mtime_ns])
    text = json.dumps([FORMAT_VERSION, *astuple(recipe), files])
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _read(path: Path, catalog: Catalog, recipe: Recipe) -> _Content | None:
    """Opens a cache, or gives None where there is none that is whole."""
    try:
        described: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        digests = tuple(str(digest) for digest in described["digests"])
        bad = {int(index): str(message) for index, message in described["bad"].items()}
        waveforms = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        say(f"The cache {path} is damaged; decoding again.")
        return None
    n_good = len(catalog.clips) - len(bad)
    whole = (
        waveforms.shape == (n_good, recipe.n_samples)
        and waveforms.dtype == np.int16
        and waveforms.flags.c_contiguous
        and len(digests) == n_good
    )
    if not whole:
        say(f"The cache {path} is damaged; decoding again.")
        return None
    return _Content(waveforms, digests, bad)


def _build(path: Path, catalog: Catalog, recipe: Recipe, n_workers: int, *, skip_bad: bool) -> _Content:
    """Decodes all clips into a new cache.

    Samples are written with plain writes, in order: on a full disk a write fails with an error that can be
    told, where storing into a memory map would kill the process.
    """
    n_clips = len(catalog.clips)
    digests: list[str] = []
    notes: list[str] = []
    bad: dict[int, str] = {}
    # Left by a process that was killed: this one has the lock.
    for leftover in path.parent.glob(f".{path.stem}-*"):
        leftover.unlink()
    n_held = n_clips + (N_SCRATCH if recipe.n_samples > LONG_SAMPLES else 0)
    _require_space(path, n_held * recipe.n_samples * 2)
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file, progress("Decoding", n_clips) as advance:
            file.write(_header(n_clips, recipe.n_samples))
            for index, result in enumerate(_decoded(catalog, recipe, n_workers, path)):
                if isinstance(result, str):
                    bad[index] = result
                else:
                    _append(file, result.samples)
                    digests.append(result.digest)
                    notes += [result.note] if result.note else []
                advance()
            if notes:
                say(list_problems(f"{len(notes)} of the {n_clips} clips are worth a look:", notes))
            if bad and not skip_bad:
                advice = "Replace or remove them, or pass --skip-bad to leave them out."
                raise DataError(
                    list_problems(
                        f'{len(bad)} of the {n_clips} clips of "{catalog.name}" cannot be used:',
                        list(bad.values()),
                        advice,
                    )
                )
            if bad and not digests:
                raise DataError(f'None of the {n_clips} clips of "{catalog.name}" can be used: {bad[0]}')
            file.seek(0)
            file.write(_header(len(digests), recipe.n_samples))
            file.flush()
            os.fsync(file.fileno())
        # Until the new description stands there is none: the old one would not fit the new waveforms.
        path.with_suffix(".json").unlink(missing_ok=True)
    write_json(path.with_suffix(".json"), {"digests": digests, "bad": {str(i): text for i, text in bad.items()}})
    waveforms = np.load(path, mmap_mode="r")
    return _Content(waveforms, tuple(digests), bad)


def _decoded(catalog: Catalog, recipe: Recipe, n_workers: int, path: Path) -> Iterator[Decoded | str]:
    scratch = path.parent / f".{path.stem}-"  # as the cache's own unfinished file, so that leftovers are found
    return decode_all([clip.path for clip in catalog.clips], recipe, n_workers, str(scratch))


def _append(file: BinaryIO, samples: bytes | Path) -> None:
    if isinstance(samples, bytes):
        file.write(samples)
        return
    with samples.open("rb") as part:
        shutil.copyfileobj(part, file, 1 << 20)
    samples.unlink()


def _require_space(path: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < n_bytes:
        raise WorkError(
            f"The cache needs {n_bytes / 1e6:.0f} MB, {path.parent} has {free / 1e6:.0f} MB left. "
            "Free some space, or set ESC_ENSEMBLE_CACHE to a folder on another disk."
        )


def _header(n_clips: int, n_samples: int) -> bytes:
    """Gives the header of an .npy file; it is padded, so that the number of clips can be corrected."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<i2", "fortran_order": False, "shape": (n_clips, n_samples)}
    )
    return buffer.getvalue()

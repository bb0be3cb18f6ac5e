"""The frozen trunk's output for fixed views of each clip, computed once and kept on disk.

View 0 is the clip itself, every other one an augmented version of it, which follows from (seed, clip, view) alone:
so all folds share them, and they are the same whether they are kept or computed anew in each epoch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from esc_ensemble.augment.waveform import augment_waveform
from esc_ensemble.config import AugmentConfig
from esc_ensemble.errors import DiskError
from esc_ensemble.files import cache_lock, disk_errors
from esc_ensemble.memory import free_unused, is_out_of_memory
from esc_ensemble.models.base import digest_weights
from esc_ensemble.predict import to_waveform
from esc_ensemble.progress import progress, say

FORMAT_VERSION = 1
BATCH_SIZE = 8
LARGEST_HALF = 65504.0


@dataclass(frozen=True)
class Trunk:
    """The frozen part of a network, and what it hears.

    `read_batch` takes clip numbers (B,) and gives int16 waveforms (B, T).
    """

    network: nn.Module
    """Waveform (B, T) to states (B, S, D, L)."""
    read_batch: Callable[[np.ndarray], np.ndarray]
    n_clips: int
    sample_rate: int
    augment: AugmentConfig
    n_views: int
    seed: int
    accelerator: Accelerator

    def waveform(self, clip: int, view: int) -> Tensor:
        """Gives one view (T,) of a clip, on the CPU: the same on every device."""
        waveform = to_waveform(self.read_batch(np.array([clip])), torch.device("cpu"))
        if view:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(np.random.default_rng([self.seed, clip, view]).integers(2**62)))
                waveform = augment_waveform(waveform, self.augment, self.sample_rate)
        return waveform[0]

    @torch.no_grad()
    def states(self, clips: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> Tensor:
        """Computes states (B, S, D, L) of views (B,) of clips (B,), in half precision."""
        pairs = zip(clips.tolist(), views.tolist(), strict=True)
        waveform = torch.stack([self.waveform(clip, view) for clip, view in pairs])
        with self.accelerator.autocast():
            states = self.network(waveform.to(self.accelerator.device))
        return states.clamp(-LARGEST_HALF, LARGEST_HALF).half()

    def __call__(self, clips: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> Tensor:
        """Gives states (B, S, D, L) float32 on the device."""
        return self.states(clips, views).float()

    def key(self, of_waveforms: str) -> str:
        """Names everything that the states follow from; `of_waveforms` names the waveforms."""
        how = [
            FORMAT_VERSION,
            of_waveforms,
            digest_weights(self.network),
            repr(self.network),
            [getattr(self.network, name, None) for name in ("normalize", "last_alone", "frame_pool")],
            self.augment.model_dump(mode="json"),
            self.n_views,
            self.seed,
            self.accelerator.mixed_precision,
        ]
        return hashlib.sha256(json.dumps(how).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class TrunkCache:
    """States on disk, memory-mapped and read-only: (N·K, S, D, L) float16, the K views of a clip one after another."""

    states: npt.NDArray[np.float16]
    n_views: int
    device: torch.device

    def __call__(self, clips: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> Tensor:
        """Gives states (B, S, D, L) float32 on the device; the caller knows that they are there."""
        states = torch.from_numpy(np.asarray(self.states[clips * self.n_views + views]))
        return states.to(self.device, non_blocking=True).float()


def build_trunk_cache(trunk: Trunk, waveforms: Path, clips: npt.NDArray[np.int64]) -> TrunkCache:
    """Opens the states of all views of `clips`, after computing those that are not on disk yet.

    What was computed stays, also when the process is killed; two processes that want the same take turns.

    Args:
        trunk: the network and its views.
        waveforms: the file of the waveforms' own cache; the states' is put beside it.
        clips: numbers of the clips that are needed.

    Raises:
        DiskError: there is no space, or the folder cannot be written.
    """
    path = waveforms.with_name(f"trunk-{trunk.key(waveforms.stem)}.npy")
    wanted = (clips[:, None] * trunk.n_views + np.arange(trunk.n_views)).ravel()  # (N, K) -> (N·K,)
    with cache_lock(path), disk_errors(path):
        states, done = _open(path, trunk)
        missing = wanted[~done[wanted]]
        if len(missing):
            _require_space(path, states[0].nbytes * len(missing), len(missing), trunk)
            _compute(path, trunk, missing, states[0].nbytes)
    return TrunkCache(np.load(path, mmap_mode="r"), trunk.n_views, trunk.accelerator.device)


def _open(path: Path, trunk: Trunk) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]]:
    """The states so far and which of them are there; an empty file of the right size where there is none."""
    shape = (trunk.n_clips * trunk.n_views, *_shape_of_one(trunk))
    flags = path.with_suffix(".done")
    try:
        states = np.load(path, mmap_mode="r")
        done = np.frombuffer(flags.read_bytes(), dtype=np.bool_)
        if states.shape == shape and states.dtype == np.float16 and len(done) == shape[0]:
            return states, done
        say(f"The cache {path} is damaged; computing it again.")
    except FileNotFoundError:
        pass
    except (ValueError, EOFError):
        say(f"The cache {path} is damaged; computing it again.")
    flags.unlink(missing_ok=True)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + 2 * int(np.prod(shape)))  # sparse: takes space as it is filled
    flags.write_bytes(bytes(shape[0]))
    return np.load(path, mmap_mode="r"), np.zeros(shape[0], dtype=np.bool_)


def _shape_of_one(trunk: Trunk) -> tuple[int, ...]:
    first = np.zeros(1, dtype=np.int64)
    return tuple(trunk.states(first, first).shape[1:])


def _compute(path: Path, trunk: Trunk, missing: npt.NDArray[np.int64], n_bytes_each: int) -> None:
    """Fills in what is missing with plain writes, a flag after each: on a full disk a write fails with an error."""
    n_clips = len(missing) // trunk.n_views
    batch_size = BATCH_SIZE
    title = f"Frozen trunk, {trunk.n_views} views of {n_clips} clips"
    with path.open("r+b") as file, path.with_suffix(".done").open("r+b") as flags:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        start_of_data = file.tell()
        with progress(title, len(missing), "views") as advance:
            start = 0
            while start < len(missing):
                part = missing[start : start + batch_size]
                states = _states_if_they_fit(trunk, part)
                if states is None:
                    batch_size = max(1, len(part) // 2)
                    free_unused(trunk.accelerator.device)
                    continue
                for place, state in zip(part.tolist(), states, strict=True):
                    file.seek(start_of_data + place * n_bytes_each)
                    file.write(state)
                file.flush()
                for place in part.tolist():
                    flags.seek(place)
                    flags.write(b"\1")
                flags.flush()
                start += len(part)
                advance(len(part))
        os.fsync(file.fileno())


def _states_if_they_fit(trunk: Trunk, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float16] | None:
    """States of a batch, or None where the memory ran out."""
    try:
        states = trunk.states(places // trunk.n_views, places % trunk.n_views)
        return np.ascontiguousarray(states.cpu().numpy())
    except RuntimeError as error:
        if len(places) == 1 or not is_out_of_memory(error):
            raise
        return None


def _require_space(path: Path, n_bytes: int, n_missing: int, trunk: Trunk) -> None:
    free = shutil.disk_usage(path.parent).free
    say(
        f"The frozen trunk's output of {n_missing // trunk.n_views} clips in {trunk.n_views} views takes "
        f"{n_bytes / 1e9:.1f} GB in {path.parent} ({free / 1e9:.1f} GB free)."
    )
    if free < n_bytes:
        raise DiskError(
            "That is more than there is. Set a smaller frontend.views, model.fuse last, frontend.cache false, or "
            "ESC_ENSEMBLE_CACHE to a folder on another disk."
        )

"""Where and in which precision to train, from what the machine really has."""

from __future__ import annotations

import ctypes
import sys

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from esc_ensemble.config import LoopConfig
from esc_ensemble.cores import free_cores
from esc_ensemble.errors import ConfigError

# Parameters of glibc's mallopt (malloc.h). A trim threshold of -1 never gives memory back.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def build_accelerator(train: LoopConfig, threads: int = 0) -> Accelerator:
    """Gives the accelerator for these settings and sets the number of CPU threads.

    Args:
        train: device, precision and threads.
        threads: CPU threads in the place of those of the settings, where not 0.

    Raises:
        ConfigError: a GPU is asked for that is not there.
    """
    use_cpu = train.device == "cpu" or not torch.cuda.is_available()
    if train.device == "cuda" and use_cpu:
        raise ConfigError('train.device is "cuda", but torch sees no GPU here. Set it to auto.')
    torch.set_num_threads(threads or train.threads or free_cores())
    if use_cpu:
        keep_freed_memory()
    AcceleratorState._reset_state(reset_partial_state=False)  # it is a singleton, and precision differs between runs
    precision = choose_precision(train.precision, use_cpu=use_cpu)
    return Accelerator(cpu=use_cpu, mixed_precision="no" if precision == "fp32" else precision)


def choose_precision(wanted: str, *, use_cpu: bool) -> str:
    """Gives fp32, bf16 or fp16; `auto` takes half precision only where the hardware has it.

    A CPU without bf16 instructions emulates them many times slower than fp32.

    Raises:
        ConfigError: fp16 is asked for on a CPU.
    """
    if wanted == "fp16" and use_cpu:
        raise ConfigError("train.precision fp16 needs a GPU. Set it to auto.")
    if wanted != "auto":
        return wanted
    if use_cpu:
        return "bf16" if _cpu_has_bf16() else "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def keep_freed_memory() -> None:
    """Tells glibc's allocator to keep freed memory for the next tensor; elsewhere does nothing.

    By default it maps each large tensor anew, and the page faults take half of the time of augmentation.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 64 << 20)):
            mallopt(parameter, value)


def _cpu_has_bf16() -> bool:
    # Private names, so asked for with care: without them the answer is no, which is only slower.
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)

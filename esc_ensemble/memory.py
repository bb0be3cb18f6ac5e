"""Running out of memory: how it shows, and what to free before trying again with less."""

from __future__ import annotations

import torch

# Only torch's own allocator raises a kind of error of its own; of others only the text tells.
OUT_OF_MEMORY = (
    "out of memory",
    "alloc_failed",  # CUDNN_STATUS_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED
    "can't allocate memory",
    "not enough memory",
    "could not create a memory object",
)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(part in text for part in OUT_OF_MEMORY)


def free_unused(device: torch.device) -> None:
    """Gives memory back that torch keeps for later. Call it outside of `except`, whose traceback holds tensors."""
    if device.type == "cuda":
        torch.cuda.empty_cache()

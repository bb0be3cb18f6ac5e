from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from esc_ensemble.data.audio import decode, fit_to_length

SAMPLE_RATE = 16000
N_CLIPS = 4


@pytest.fixture(scope="session")
def waves(request: pytest.FixtureRequest) -> np.ndarray:
    """(B, T) float32 at 16 kHz, 3 s each: real clips of ESC-10 where there are any, else synthetic ones."""
    folder: Path = request.getfixturevalue("esc10_dir" if os.environ.get("ESC50_DIR") else "synthetic_dir")
    files = sorted((folder / "audio").iterdir())
    chosen = files[:: len(files) // N_CLIPS][:N_CLIPS]
    return np.stack([fit_to_length(decode(file, SAMPLE_RATE), 3 * SAMPLE_RATE, "tile") for file in chosen])

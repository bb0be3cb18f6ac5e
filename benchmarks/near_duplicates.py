"""Finding near-duplicate clips against decoding the clips once.

In one process, once each: decoding every clip to 32 kHz, then the search over the clips, and over two and four
times as many, of which the others are the same clips with as much noise as sound.
"""

from __future__ import annotations

import time

import numpy as np
import timing

from esc_ensemble.config import DataConfig
from esc_ensemble.data.audio import Recipe
from esc_ensemble.data.decoding import Decoded, decode_all
from esc_ensemble.data.near_duplicates import find_near_duplicates


def main() -> None:
    options = timing.parser(__doc__, repeats=1)
    options.add_argument("--times", type=int, nargs="*", default=[1, 2, 4], help="sizes, in multiples of the set")
    arguments = options.parse_args()
    data = DataConfig()
    recipe = Recipe(data.sample_rate, data.n_samples, data.fit, data.trim_db)
    with timing.data_folder(arguments) as folder:
        paths = sorted((folder / "audio").iterdir())
        start = time.process_time()
        clips = [clip.samples for clip in decode_all(paths, recipe, 1) if isinstance(clip, Decoded)]
        decoded = [samples for samples in clips if isinstance(samples, bytes)]
        figures: dict[str, float | int] = {"clips": len(decoded), "decoding, CPU s": time.process_time() - start}
    waveforms = np.frombuffer(b"".join(decoded), dtype="<i2").reshape(len(decoded), -1)

    def read_batch(index: np.ndarray) -> np.ndarray:
        batch = waveforms[index % len(waveforms)]
        noisy = index >= len(waveforms)
        if noisy.any():
            noise = np.random.default_rng(index).standard_normal(batch.shape, dtype=np.float32)
            level = batch.std(axis=1, keepdims=True) * noisy[:, None]
            batch = np.clip(0.5 * (batch + level * noise), -32768, 32767).astype(np.int16)
        return batch

    for times in arguments.times:
        n_clips = times * len(waveforms)
        start = time.process_time()
        for first in range(0, n_clips, 16):
            read_batch(np.arange(first, min(first + 16, n_clips)))
        reading = time.process_time() - start
        start = time.process_time()
        found = find_near_duplicates(read_batch, n_clips, data.sample_rate)
        figures[f"{n_clips} clips, CPU s"] = time.process_time() - start - reading
        figures[f"{n_clips} clips, pairs"] = len(found)
    timing.print_result("near_duplicates", figures, arguments)


if __name__ == "__main__":
    main()

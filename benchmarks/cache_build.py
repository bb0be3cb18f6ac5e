"""Building the waveform cache against decoding every clip with librosa.

In one run: the cache built by one process, by one a core, and opened again; and `librosa.load(sr=16000)` of
the same clips in one process, which is what each epoch without a cache would pay.
"""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path

import timing

from esc_ensemble.config import DataConfig
from esc_ensemble.data.cache import build_cache
from esc_ensemble.data.catalog import Catalog, load_catalog

DATA = DataConfig(sample_rate=16000)


def main() -> None:
    options = timing.parser(__doc__, repeats=3)
    options.add_argument("--librosa-clips", type=int, default=64, help="clips that librosa decodes")
    arguments = options.parse_args()
    import librosa  # noqa: PLC0415 - the workers import this file too, and would load it for nothing

    with timing.data_folder(arguments) as data, tempfile.TemporaryDirectory() as scratch:
        catalog = load_catalog(data)
        clips = catalog.clips[:: max(1, len(catalog.clips) // arguments.librosa_clips)]
        n_workers = timing.n_threads(arguments)
        folders = (Path(scratch) / str(number) for number in count())
        times = timing.take_turns(
            {
                "librosa.load": timing.timed(lambda: [librosa.load(clip.path, sr=16000) for clip in clips]),
                "1 worker": timing.timed(lambda: build_cache(catalog, DATA, cache_dir=next(folders), n_workers=1)),
                "all workers": timing.timed(
                    lambda: build_cache(catalog, DATA, cache_dir=next(folders), n_workers=n_workers)
                ),
                "reopen": timing.timed(lambda: _reopen(catalog, Path(scratch) / "0")),
            },
            arguments.repeats,
        )
    n_clips = {name: len(clips) if name == "librosa.load" else len(catalog.clips) for name in times}
    ms = {name: 1e3 * found.best / n_clips[name] for name, found in times.items()}
    figures = {
        "clips": len(catalog.clips),
        "workers": n_workers,
        **{f"{name}, ms per clip": value for name, value in ms.items()},
        "librosa / 1 worker": ms["librosa.load"] / ms["1 worker"],
        "librosa / all workers": ms["librosa.load"] / ms["all workers"],
        "librosa / reopen": ms["librosa.load"] / ms["reopen"],
    }
    timing.print_result("cache_build", figures, arguments)


def _reopen(catalog: Catalog, folder: Path) -> None:
    cache, _ = build_cache(catalog, DATA, cache_dir=folder)
    assert len(cache.waveforms) == len(catalog.clips)


if __name__ == "__main__":
    main()

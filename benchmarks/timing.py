"""What all benchmarks share: contestants timed in turns, the data, the printing.

Contestants take turns (A B A B ...), so that whatever else the machine does hits all of them; compared are
the best times, or the medians, of one run. Figures of different runs are not comparable.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd

from esc_ensemble.cores import free_cores
from esc_ensemble.data.synthetic import make_synthetic

# Before torch is loaded, as the command line does: spinning threads slow a busy machine down tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

Round = Callable[[], float]
"""Does the work once and gives the seconds it took."""


@dataclass(frozen=True)
class Times:
    """Seconds of each round of one contestant."""

    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The least disturbed round."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.seconds)


def timed(work: Callable[[], object]) -> Round:
    """Makes a round out of a function: it is called once and timed by the wall clock."""

    def one_round() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return one_round


def take_turns(contestants: Mapping[str, Round], repeats: int, *, warm_up: bool = True) -> dict[str, Times]:
    """Runs A B A B ..., after one round of each that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(repeats + warm_up):
        for name, one_round in contestants.items():
            taken = one_round()
            if number >= warm_up:
                seconds[name].append(taken)
    return {name: Times(tuple(values)) for name, values in seconds.items()}


@contextmanager
def in_processes(makers: Mapping[str, tuple[Callable[..., Round], tuple[Any, ...]]]) -> Iterator[dict[str, Round]]:
    """Gives each contestant a process of its own, so that none profits from what another set up.

    Args:
        makers: for each name a top-level function that prepares everything and gives a round, and its arguments.
    """
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        rounds: dict[str, Round] = {}
        for name, (make, arguments) in makers.items():
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
            process.start()
            theirs.close()
            stack.callback(process.join)
            stack.callback(ours.close)
            ours.recv()  # prepared
            rounds[name] = _remote(ours)
        yield rounds


def _remote(connection: Connection) -> Round:
    def one_round() -> float:
        connection.send(None)
        return float(connection.recv())

    return one_round


def together(rounds: Sequence[Round]) -> Round:
    """Makes one round of several that run at once in processes of their own: the longest, divided by how many."""

    def one_round() -> float:
        with ThreadPoolExecutor(len(rounds)) as pool:
            seconds = [future.result() for future in [pool.submit(each) for each in rounds]]
        return max(seconds) / len(rounds)

    return one_round


def _serve(connection: Connection, make: Callable[..., Round], arguments: tuple[Any, ...]) -> None:
    one_round = make(*arguments)
    connection.send(None)
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        connection.send(one_round())


def parser(description: str | None, *, repeats: int, data: bool = True) -> argparse.ArgumentParser:
    """Gives the options that all benchmarks have."""
    options = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    if data:
        help_text = "data set; default the ESC-10 clips of $ESC50_DIR, else a synthetic one"
        options.add_argument("--data", type=Path, help=help_text)
    options.add_argument("--threads", type=int, default=0, help="CPU threads of every contestant; 0 takes all cores")
    options.add_argument("--repeats", type=int, default=repeats, help="rounds of each contestant")
    options.add_argument("--json", action="store_true", help="print JSON instead of text")
    return options


def n_threads(arguments: argparse.Namespace) -> int:
    """Gives the number of threads asked for."""
    return int(arguments.threads or free_cores())


@contextmanager
def data_folder(arguments: argparse.Namespace, clips_per_class: int = 20) -> Iterator[Path]:
    """Gives the data set asked for, or a synthetic one in a folder that is gone afterwards."""
    if arguments.data is not None:
        yield arguments.data
        return
    with tempfile.TemporaryDirectory() as folder:
        if os.environ.get("ESC50_DIR"):
            yield link_esc10(Path(os.environ["ESC50_DIR"]), Path(folder) / "ESC-10")
        else:
            yield make_synthetic(Path(folder) / "synthetic", clips_per_class=clips_per_class)


def link_esc10(esc50: Path, folder: Path) -> Path:
    """Makes a folder in ESC-50's layout that holds ESC-10's rows alone, and links to their audio."""
    for name in ("meta", "audio"):
        (folder / name).mkdir(parents=True)
    table = pd.read_csv(esc50 / "meta" / "esc50.csv", dtype=str)
    table = table[table["esc10"].str.lower() == "true"]
    table.to_csv(folder / "meta" / "esc50.csv", index=False)
    for name in table["filename"]:
        (folder / "audio" / name).symlink_to((esc50 / "audio" / name).resolve())
    return folder


def print_result(title: str, figures: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    """Prints named figures, one a line, or as JSON."""
    if arguments.json:
        print(json.dumps({"benchmark": title, "threads": n_threads(arguments), **figures}, indent=2))
        return
    print(f"{title} ({n_threads(arguments)} threads, {arguments.repeats} rounds)")
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"  {name:<{width}}  {f'{value:.3g}' if isinstance(value, float) else value}")

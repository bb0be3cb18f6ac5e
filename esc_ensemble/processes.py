"""Work in other processes that end with this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

from esc_ensemble.errors import EscError, WorkError

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")


def can_spawn() -> bool:
    """Whether a new process could start: it imports the main module again, and a piped script has none."""
    main_file = getattr(sys.modules["__main__"], "__file__", None)
    return main_file is None or Path(main_file).exists()


def follow_parent() -> None:
    """Leaves Ctrl-C to the parent, which ends its workers, and ends with a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def map_chunks(
    work: Callable[[Chunk], Sequence[Result]], chunks: Iterable[Chunk], n_workers: int, doing: str
) -> Iterator[Result]:
    """Gives the results of `work` on each chunk, one by one and in order, from several processes.

    Args:
        work: what can be pickled: a function at the top of its module, or a `partial` of one.
        chunks: what to work on; taken no more than a few ahead, so that a slow reader does not fill the memory.
        n_workers: processes.
        doing: what they do, for the message.

    Raises:
        WorkError: a worker process died.
    """
    # Spawned, not forked: a fork of a process with running threads (torch, the progress bar) may hang.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(n_workers, mp_context=context, initializer=follow_parent)
    waiting: deque[Future[Sequence[Result]]] = deque()
    try:
        for chunk in chunks:
            if len(waiting) >= 3 * n_workers:
                yield from waiting.popleft().result()
            waiting.append(executor.submit(work, chunk))
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise WorkError(
            f"A worker process died while {doing}; most often the memory ran out. Try fewer workers. "
            'A script that calls this needs `if __name__ == "__main__":` around its work.'
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def run_together(work: Callable[..., None], shares: Sequence[tuple[Any, ...]]) -> None:
    """Calls `work(*share)` for each share at once, each in a fresh process; the first failure ends the others.

    Args:
        work: a function at the top of its module.
        shares: the arguments of each call.

    Raises:
        EscError: what the work raised.
        WorkError: a process died, or failed in an unforeseen way.
    """
    # Spawned, not forked: a fork of a process with running threads (torch, the progress bar) may hang.
    context = multiprocessing.get_context("spawn")
    running: dict[Connection, multiprocessing.context.SpawnProcess] = {}
    try:
        for share in shares:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(theirs, work, share), daemon=True)
            with _no_interrupts():
                process.start()
            theirs.close()
            running[ours] = process
        while running:
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                failure = _receive(connection, running[connection])
                if failure is not None:
                    raise failure
                running.pop(connection).join()
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join()


def _run(connection: Connection, work: Callable[..., None], share: tuple[Any, ...]) -> None:
    follow_parent()
    try:
        work(*share)
        connection.send(None)
    except EscError as error:
        connection.send(error)
    except BaseException:  # noqa: BLE001 - what it was reaches the user as text
        connection.send(WorkError(f"A process failed:\n{traceback.format_exc()}"))


def _receive(connection: Connection, process: multiprocessing.context.SpawnProcess) -> EscError | None:
    try:
        failure = connection.recv()
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGKILL:
            return WorkError(
                "A process was killed; most often the memory ran out. Try fewer at once (--parallel-folds)."
            )
        return WorkError(
            f"A process ended before its work was done (exit code {process.exitcode}); what it wrote above says why. "
            'A script that starts such work must do so under `if __name__ == "__main__":`.'
        )
    assert failure is None or isinstance(failure, EscError)
    return failure


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Ignores Ctrl-C for a moment: a process started meanwhile ignores it from its first instruction on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

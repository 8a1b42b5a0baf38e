"""The same function over many tasks in several processes; what it writes does not depend on how many there are."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import TypeVar

from toolkit.errors import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")


def default_workers() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(function: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[tuple[Task, Result]]:
    """(task, result) as they get ready; with one worker in this process, in order.

    Only twice as many tasks as workers are under way, so that a million tasks need no memory. Raises what a task raises,
    and DataError when a worker is killed from outside.
    """
    if workers <= 1:
        for task in tasks:
            yield task, function(task)
        return
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload(["toolkit.data.convert.convert"])
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_die_with_the_parent, initargs=(reader,))
    waiting: dict[Future[Result], Task] = {}
    try:
        for task in tasks:
            waiting[pool.submit(function, task)] = task
            if len(waiting) >= 2 * workers:
                yield from _ready(waiting)
        while waiting:
            yield from _ready(waiting)
    except BrokenProcessPool as error:
        raise DataError(
            f"one of {workers} workers was killed, perhaps for want of memory; run the same command again with fewer "
            "--workers, it goes on where it stopped"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        writer.close()
        reader.close()


def _ready(waiting: dict[Future[Result], Task]) -> list[tuple[Task, Result]]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    return [(waiting.pop(future), future.result()) for future in done]


def _die_with_the_parent(reader: Connection) -> None:
    """A worker whose parent was killed would wait for its next task for ever. Only the parent can write to the pipe."""

    def watch() -> None:
        reader.poll(None)  # returns when the other end is closed
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says what is to be said
    threading.Thread(target=watch, daemon=True).start()

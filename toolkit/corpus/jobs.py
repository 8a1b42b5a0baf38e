"""The same work over several processes, with progress; a run that is killed leaves no process behind."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from toolkit.errors import ToolkitError

Job = TypeVar("Job")
Result = TypeVar("Result")
EVERY_SECONDS = 10.0


class Progress:
    """Lines such as `compared 65,536 of 1,000,000 sentences, 1,810 per second, 9 min left`, one in ten seconds."""

    def __init__(self, verb: str, unit: str, total: int, done: int = 0) -> None:
        """`done` before this run; it is not part of the rate."""
        self.verb, self.unit, self.total, self.done = verb, unit, total, done
        self.before, self.began = done, time.monotonic()
        self.said = self.began
        if 0 < done < total:
            print(f"{verb} {done:,} of {total:,} {unit} in an earlier run", flush=True)

    def add(self, count: int) -> None:
        """Speaks when it is time, and at the end of what took long."""
        self.done += count
        now = time.monotonic()
        if now - self.said < EVERY_SECONDS and not (self.done >= self.total and self.said > self.began):
            return
        self.said = now
        rate = (self.done - self.before) / max(now - self.began, 1e-9)
        left = "" if self.done >= self.total else f", {in_words((self.total - self.done) / max(rate, 1e-9))} left"
        print(f"{self.verb} {self.done:,} of {self.total:,} {self.unit}, {rate:,.0f} per second{left}", flush=True)


def in_words(seconds: float) -> str:
    """`40 s`, `9 min`, `2.5 h`."""
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def run_jobs(
    function: Callable[[Job], Result], jobs: Sequence[tuple[Job, int]], workers: int, progress: Progress
) -> list[Result]:
    """`function` of each job, in order of the jobs; the number beside a job is what it adds to the progress.

    Every process uses one thread, so that a product of matrices has the same bits however many processes there are.
    """
    if workers <= 1 or len(jobs) <= 1:
        found = []
        with one_thread():
            for job, count in jobs:
                found.append(function(job))
                progress.add(count)
        return found
    results: dict[int, Result] = {}
    context = multiprocessing.get_context(
        "forkserver"
    )  # from a process that has imported torch once and runs no threads
    context.set_forkserver_preload(["toolkit.corpus.measure"])
    theirs, ours = context.Pipe(duplex=False)  # closed when the parent is gone or wants no more
    start = (function, [job for job, _ in jobs], theirs)  # once per process: a pool has many shards to name
    with ProcessPoolExecutor(
        min(workers, len(jobs)), mp_context=context, initializer=start_worker, initargs=start
    ) as pool:
        waiting = {pool.submit(do_job, number): number for number in range(len(jobs))}
        try:
            for future in as_completed(waiting):
                results[waiting[future]] = future.result()
                progress.add(jobs[waiting[future]][1])
        except BrokenProcessPool as error:
            raise ToolkitError(
                f"a worker was killed ({len(jobs) - len(results)} of {len(jobs)} jobs are left), perhaps for lack of memory; run "
                "the same command again, it continues; fewer --workers take less"
            ) from error
        finally:
            if len(results) < len(jobs):
                ours.close()  # nobody waits for what is not wanted any more
    return [results[number] for number in range(len(jobs))]


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch with one thread inside, as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_todo: tuple[Callable[[Any], Any], Sequence[Any]]
"""Of a worker: what to do, and the jobs by number."""


def do_job(number: int) -> Any:
    """In a worker."""
    function, jobs = _todo
    return function(jobs[number])


def start_worker(function: Callable[[Any], Any], jobs: Sequence[Any], parent: Connection) -> None:
    """One thread, and an end when the parent's is gone: a worker waits for jobs on a pipe that it holds open itself."""
    global _todo
    _todo = function, jobs
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides

    def end_with_parent() -> None:
        wait([parent])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def cores() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""Where every rank is, in files that all can see; and a watch that ends a run in which nothing moves any more.

Each rank's thread writes `heartbeats/rank_00000.json` every few seconds: host, process, step, phase, and since when. The
watch of every rank looks at its own phase alone, so that it needs nobody: past the limit it writes the stacks of all its
threads, wakes stopped ranks of its own host so that they write theirs, and names the ranks that are behind.
"""

import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit import distributed

CODE = 5
"""Exit code of a rank that ends itself because nothing moves."""
GRACE_SECONDS = 5.0
"""From the first rank's report to its end: the others write their stacks meanwhile."""
STDERR = 2
"""The descriptor: sys.stderr may be no file, in a notebook or a test, and a file on a disk may hang."""
ORDER = ("waiting for data", "forward", "exchange with the other ranks", "backward", "update")
"""Phases of a step: who is in an earlier one keeps the others waiting."""
LONG = 6
"""How many times the limit a phase may take that is not a step: the set-up, an evaluation, a checkpoint."""


@dataclass
class Beat:
    """What a rank says of itself."""

    rank: int
    host: str
    pid: int
    step: int
    phase: str
    since: float
    """Wall time at which the phase began."""
    written: float
    """Wall time at which this was written: a process that is stopped writes no more."""


class Heartbeat:
    """One a process. `phase` is called on the way; nothing waits for a disk in it."""

    def __init__(self, folder: Path, limit_seconds: float) -> None:
        """`limit_seconds` for a phase of a step, LONG times as much for others; 0: no watch."""
        self.folder, self.limit = folder, limit_seconds
        self.rank = distributed.rank()
        self.host = socket.gethostname()
        self._now = ("set-up", 0, time.monotonic(), True)
        self._ended = threading.Event()
        self.given_up = threading.Event()
        self._stacks: Any = None

    def start(self) -> None:
        """Begin to beat and to watch."""
        global _current
        _current = self
        if not self.limit:
            return
        stacks = self.folder / "stacks"
        with suppress(OSError):
            for path in (self._beat_file(self.rank), stacks / f"rank_{self.rank:05d}.txt"):
                path.unlink(missing_ok=True)
            stacks.mkdir(parents=True, exist_ok=True)
            self._stacks = open(stacks / f"rank_{self.rank:05d}.txt", "w")  # noqa: SIM115  open when the disk hangs later
            faulthandler.register(signal.SIGUSR2, self._stacks, all_threads=True)
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def stop(self) -> None:
        """The run has ended: watch no more."""
        self._ended.set()

    def phase(self, name: str, step: int, *, long: bool = False) -> None:
        """The main thread begins something."""
        self._now = (name, step, time.monotonic(), long)

    @contextmanager
    def long_phase(self, name: str, step: int) -> Iterator[None]:
        """Something that may take longer than a step."""
        self.phase(name, step, long=True)
        yield
        self.phase("between steps", step)

    def _beat_file(self, rank: int) -> Path:
        return self.folder / f"rank_{rank:05d}.json"

    def _beat(self) -> None:
        """Write where this rank is, several times within the limit."""
        while True:
            name, step, since, _ = self._now
            now = time.time()
            beat = Beat(self.rank, self.host, os.getpid(), step, name, now - (time.monotonic() - since), now)
            with suppress(OSError):
                aside = self._beat_file(self.rank).with_suffix(".tmp")
                aside.write_text(json.dumps(asdict(beat)))
                aside.replace(self._beat_file(self.rank))
            if self._ended.wait(min(self.limit / 5, 10.0)):
                return

    def _watch(self) -> None:
        """Look at the clock; a stopped process finds on its waking that it is late, and ends too.

        Where a thread keeps the interpreter to itself, so that not even this runs, faulthandler's own thread ends the process.
        """
        while not self._ended.wait(min(self.limit / 10, 5.0)):
            faulthandler.dump_traceback_later(2 * LONG * self.limit, exit=True, file=STDERR)
            name, step, since, long = self._now
            seconds = time.monotonic() - since
            if seconds > self.limit * (LONG if long else 1):
                self._give_up(name, step, seconds)
        faulthandler.cancel_dump_traceback_later()

    def _give_up(self, name: str, step: int, seconds: float) -> None:
        """Stacks, report, end. Whatever needs a disk is left behind when it hangs."""
        self.given_up.set()
        print(
            f"rank {self.rank} on {self.host}: nothing has moved for {seconds:.0f} s in '{name}' of step {step}",
            flush=True,
        )
        stacks = stacks_of_all_threads()
        print(stacks, file=sys.stderr, flush=True)
        report = threading.Thread(target=self._report, args=(stacks,), daemon=True)
        report.start()
        report.join(GRACE_SECONDS)
        if report.is_alive():
            print(f"{self.folder} does not answer: does its file system hang?", file=sys.stderr, flush=True)
        time.sleep(GRACE_SECONDS)
        print(
            f"rank {self.rank} ends with code {CODE}: no progress within faults.hang_seconds={self.limit:g}; stacks of the ranks are in "
            f"{self.folder / 'stacks'}. The same command goes on from the newest checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(CODE)

    def _report(self, stacks: str) -> None:
        """Stacks of stopped neighbours, who is behind, and this rank's stacks into its file."""
        beats = read_beats(self.folder)
        for beat in beats:
            if beat.rank != self.rank and beat.host == self.host and is_stopped(beat.pid):
                with suppress(OSError):
                    os.kill(beat.pid, signal.SIGUSR2)
                    os.kill(beat.pid, signal.SIGCONT)  # a stopped process writes its stacks when it wakes,
                    time.sleep(1)
                    os.kill(beat.pid, signal.SIGKILL)  # and must not go on with a run that has been given up
        for line in behind(beats, self.limit):
            print(line, file=sys.stderr, flush=True)
        if self._stacks is not None:
            self._stacks.write(stacks)
            self._stacks.flush()


def stacks_of_all_threads() -> str:
    """As faulthandler writes them, by way of memory: it holds the interpreter while it writes, and a disk may hang."""
    with os.fdopen(os.memfd_create("stacks"), "r+b") as memory:
        faulthandler.dump_traceback(memory.fileno(), all_threads=True)
        memory.seek(0)
        return memory.read().decode(errors="replace")


def wait_if_given_up() -> None:
    """The main thread, woken because another rank is gone, leaves the last word to the watch, which ends the process."""
    if _current is not None and _current.given_up.is_set():
        time.sleep(4 * GRACE_SECONDS)


def reached(name: str) -> None:
    """The step at hand goes on to another phase. Nothing without a heartbeat."""
    if _current is not None:
        _, step, since, long = _current._now
        _current._now = (name, step, since, long)


def alive() -> None:
    """Work of many pieces goes on: the phase at hand begins anew. Nothing without a heartbeat."""
    if _current is not None:
        name, step, _, long = _current._now
        _current._now = (name, step, time.monotonic(), long)


_current: Heartbeat | None = None


def read_beats(folder: Path) -> list[Beat]:
    """The last words of all ranks."""
    found = []
    for path in sorted(folder.glob("rank_*.json")):
        with suppress(OSError, ValueError, TypeError):
            found.append(Beat(**json.loads(path.read_text())))
    return found


def is_silent(beat: Beat, limit: float) -> bool:
    """Has this rank stopped writing: its process is stopped or gone, or its disk hangs."""
    return time.time() - beat.written > max(limit / 2, 2.0)


def is_stopped(pid: int) -> bool:
    """Has somebody sent it SIGSTOP, so that its own watch cannot speak."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    return False


def behind(beats: list[Beat], limit: float) -> list[str]:
    """A line for each rank that the others wait for, or one that says where all are."""
    if not beats:
        return ["no heartbeats can be read: is the file system of out_dir there?"]
    places = [place_of(beat) for beat in beats]
    lines = []
    for beat, place in zip(beats, places, strict=True):
        where = f"rank {beat.rank} on {beat.host} (pid {beat.pid})"
        doing = f"'{beat.phase}' of step {beat.step}"
        if is_silent(beat, limit):
            lines.append(
                f"{where} is silent for {time.time() - beat.written:.0f} s, since {doing}: stopped, gone, or its disk hangs"
            )
        elif place < max(places):
            lines.append(f"{where} is behind: in {doing} for {time.time() - beat.since:.0f} s")
    return lines or [f"all {len(beats)} ranks are in '{beats[0].phase}' of step {beats[0].step}"]


def place_of(beat: Beat) -> tuple[int, int]:
    """How far a rank has come."""
    return beat.step, ORDER.index(beat.phase) if beat.phase in ORDER else len(ORDER)

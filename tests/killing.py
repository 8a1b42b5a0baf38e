"""Start a command, kill it and all that it started with SIGKILL at some moment, start it again until it ends."""

import os
import random
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from launch_ranks import environment

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
MARK = "STARTED_BY_TEST"
"""Environment variable that all descendants inherit, whatever sessions and parents they get."""
Moment = Callable[[Path], bool]
"""Called every few milliseconds with the folder that is written; True when it is time to kill."""


@dataclass
class Started:
    """A command that runs in a session of its own."""

    words: Sequence[str]
    cwd: Path
    log: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mark = uuid.uuid4().hex
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.words, cwd=self.cwd, env=environment(**self.env, **{MARK: self.mark}), stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.began = state_of(Path(f"/proc/{self.process.pid}"))[1]

    def left(self) -> list[int]:
        """Ids of its processes that are there, itself among them; only those younger than itself are looked at."""
        wanted, found = f"{MARK}={self.mark}".encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                state, began = state_of(folder)
                if state != "Z" and began >= self.began and wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found

    def kill(self, *, alone: bool = False) -> None:
        """SIGKILL to all, `alone` to the first one only: then the others must notice by themselves."""
        if self.process.poll() is None:  # else its number may be another's by now
            (os.kill if alone else os.killpg)(self.process.pid, signal.SIGKILL)
        until = time.monotonic() + 20
        while left := self.left():
            for number in () if alone and time.monotonic() < until else left:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.02)
            assert time.monotonic() < until + 20, f"{left} do not end"
        assert not alone or time.monotonic() < until, "a worker outlived its parent"
        self.process.wait(20)

    def end(self, seconds: float) -> None:
        """Wait for it; AssertionError with its last words where it failed."""
        try:
            code: int | str = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = f"nothing after {seconds} s"
        finally:
            self.kill()
        assert code == 0, f"{code}: {self.last_words()}"

    def last_words(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-3000:]


def state_of(folder: Path) -> tuple[str, int]:
    """Of a process in /proc: `R`, `S`, `Z`, ..., and when it began, in ticks since the machine did."""
    words = (folder / "stat").read_text().rpartition(")")[2].split()
    return words[0], int(words[19])


def after(seconds: float) -> Moment:
    """So long after the start."""
    until = time.monotonic() + seconds
    return lambda _: time.monotonic() > until


def when(count: Callable[[Path], int], more: int, seconds: float) -> Callable[[Path], Moment]:
    """So long after `count` has grown by so much."""

    def starting(folder: Path) -> Moment:
        wanted, due = count(folder) + more, [0.0]

        def reached(folder: Path) -> bool:
            if not due[0] and count(folder) >= wanted:
                due[0] = time.monotonic() + seconds
            return bool(due[0]) and time.monotonic() >= due[0]

        return reached

    return starting


def entries(folder: Path) -> int:
    """Files and folders below, though some may vanish meanwhile."""
    return sum(len(folders) + len(files) for _, folders, files in os.walk(folder))


def moments(took: float, count: Callable[[Path], int], most: int, seed: int = 0) -> Iterator[Callable[[Path], Moment]]:
    """Without end, in turn: at any time of a run that takes `took` seconds, and shortly after something was written."""
    rng = random.Random(seed)
    while True:
        share = rng.uniform(0.1, 0.95) * took
        yield lambda _, share=share: after(share)
        for _ in range(2):
            yield when(count, rng.randint(1, most), rng.uniform(0, 0.1))


def killed_often(
    start: Callable[[], Started], out: Path, times: Iterator[Callable[[Path], Moment]], kills: int,
    *, alone: bool = False, seconds: float = 240, note: Callable[[Path], str] = lambda _: "",
) -> list[Path]:  # fmt: skip
    """What `start` made of `out` in the end, renamed: after the last kill it is left to finish.

    A run that ends before its kill is one more whole result, and the next begins anew; with ten there are no more kills.
    Prints where each kill landed.
    """
    done: list[Path] = []
    landed: list[str] = []
    while len(landed) < kills and len(done) < 10:
        began = time.monotonic()
        is_time, started = next(times)(out), start()
        while started.process.poll() is None and not is_time(out):
            if time.monotonic() > began + seconds:
                started.end(0)
            time.sleep(0.002)
        lived = time.monotonic() - began
        if started.process.poll() is None:
            started.kill(alone=alone)
        if started.process.returncode == -signal.SIGKILL:
            landed.append(f"{lived:.1f} s {note(out)}".strip())
        else:
            started.end(1)
            done.append(out.rename(out.with_name(f"killed_{uuid.uuid4().hex[:8]}")))
    if out.exists():
        start().end(seconds)
        done.append(out.rename(out.with_name(f"killed_{uuid.uuid4().hex[:8]}")))
    print(f"{len(landed)} kills landed, {len(done)} folders: {'; '.join(landed)}")
    return done


def straight(start: Callable[[], Started], out: Path, seconds: float = 240) -> tuple[Path, float]:
    """What `start` makes of `out` without a kill, renamed, and how long it took."""
    began = time.monotonic()
    start().end(seconds)
    took = time.monotonic() - began
    return out.rename(out.with_name("straight")), took


def differing(folder: Path, other: Path) -> list[str]:
    """Names of files that are not the same in both, hidden ones too."""
    left, right = (
        {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}
        for top in (folder, other)
    )
    assert left
    return sorted(name for name in left | right if left.get(name) != right.get(name))

"""Step times, waits for data and peak memory of a training loop, taken inside its process from where it asks for a batch."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Finished(Exception):
    """All steps are measured; the loop is left where it stands."""


class Stopwatch:
    """Where a loop comes back for the next batch, the step before is over: nothing else of a loop has to be known."""

    def __init__(self, result: Path, warmup: int, steps: int, *, rank: int = 0, together: int = 1) -> None:
        """Writes `<result>.<rank>.json`. `together`: this many launches of one result's folder begin to count at once."""
        self.result, self.warmup, self.steps, self.rank, self.together = result, warmup, steps, rank, together
        self.calls = 0
        self.marks: list[float] = []
        self.waits: list[float] = []

    def take(self, fetch: Callable[[], T]) -> T:
        """The next batch. Raises Finished, with the result written, where the step after the last one would begin."""
        if self.calls == self.warmup:
            self._begin()
        counts = self.calls >= self.warmup
        if self.calls == self.warmup + self.steps:
            synchronise()
        if counts:
            self.marks.append(time.perf_counter())
        if self.calls == self.warmup + self.steps:
            self._write()
            raise Finished
        self.calls += 1
        found = fetch()
        if counts:
            self.waits.append(time.perf_counter() - self.marks[-1])
        return found

    def _begin(self) -> None:
        """Forget the peak so far, meet the others, and let no work of the warm-up reach into the window."""
        synchronise()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again at what is resident now
        if self.together > 1 and self.rank == 0:
            self.result.with_suffix(".ready").touch()
            while len(list(self.result.parent.glob("*.ready"))) < self.together:
                time.sleep(0.005)

    def _write(self) -> None:
        steps = [after - before for before, after in zip(self.marks, self.marks[1:], strict=False)]
        found: dict[str, Any] = {
            "seconds": self.marks[-1] - self.marks[0], "steps": steps, "waits": self.waits, "peak_bytes": peak_bytes()
        }  # fmt: skip
        path = self.result.with_suffix(f".{self.rank}.json")
        path.with_suffix(".part").write_text(json.dumps(found))
        path.with_suffix(".part").rename(path)


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_bytes() -> int:
    """Most memory since the window began: allocated on the GPU, or resident in the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

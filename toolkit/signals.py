"""Asked to stop: USR1 (the time limit is near), TERM (scancel, pre-emption), or the launch's own time budget.

A handler only takes note: the loop agrees on it over all ranks at the end of a step, saves, and leaves. Imports nothing
heavy, so that the handlers are there before torch is imported (seconds in which USR1 would kill the process).
"""

import os
import signal
import time
from enum import IntEnum
from types import FrameType

from toolkit.errors import ToolkitError

JOB_END = "DIME_JOB_END"
"""Environment variable: when the job's time limit ends, in seconds since 1970 (slurm/distill.sh sets it)."""


class Asked(IntEnum):
    """Why to stop; of what several ranks were told, the largest counts."""

    NOTHING = 0
    BUDGET = 1
    USR1 = 2
    TERM = 3

    @property
    def words(self) -> str:
        """For the log."""
        return {
            Asked.BUDGET: "the time budget of this launch is used up",
            Asked.USR1: "signal USR1 (the time limit is near)",
            Asked.TERM: "signal TERM (cancelled or pre-empted)",
        }.get(self, "nothing")

    @property
    def again(self) -> bool:
        """Should whoever launched this launch it again; after TERM that is not ours to decide."""
        return self in (Asked.BUDGET, Asked.USR1)


class Interrupted(ToolkitError):
    """Asked to stop in work that goes on where it was when it is started again."""


_noted = Asked.NOTHING
_deadline = float("inf")


def install() -> None:
    """From now on USR1 and TERM are noted instead of ending the process; a second TERM ends it."""
    signal.signal(signal.SIGUSR1, _note)
    signal.signal(signal.SIGTERM, _note)


def _note(number: int, _: FrameType | None) -> None:
    global _noted
    if number == signal.SIGTERM and _noted == Asked.TERM:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    _noted = max(_noted, Asked.TERM if number == signal.SIGTERM else Asked.USR1)


def set_budget(max_hours: float | None, margin_seconds: float) -> None:
    """Ask to stop after so many hours from now, and `margin_seconds` before the job's end where that is known."""
    global _deadline
    ends = [time.time() + max_hours * 3600] if max_hours is not None else []
    job_end = os.environ.get(JOB_END, "")
    if job_end.replace(".", "", 1).isdigit():
        ends.append(float(job_end) - margin_seconds)
    _deadline = min(ends, default=float("inf"))


def asked() -> Asked:
    """What this process has been told so far."""
    return max(_noted, Asked.BUDGET if time.time() >= _deadline else Asked.NOTHING)


def stop_here(work: str) -> None:
    """Raise Interrupted when asked to stop; called between pieces of `work` that are kept."""
    why = asked()
    if why:
        raise Interrupted(f"{work} stopped: {why.words}; the same command goes on from here")


def forget() -> None:
    """As if nothing had been asked; for tests that run several launches in one process."""
    global _noted, _deadline
    _noted, _deadline = Asked.NOTHING, float("inf")

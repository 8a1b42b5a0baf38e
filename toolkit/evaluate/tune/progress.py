"""How far a fine-tuning is, for a caller that shows rate and time left."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from toolkit import heartbeat

TRAINED = 3
"""What a picture trained on costs against one that is judged: a backward pass is two forward passes."""
REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class Progress:
    """Of this process."""

    stage: str
    """`search` or `final`."""
    trials: int
    """Settings tried to their end, or to where they diverged."""
    epochs: int
    """Trained, search and final together."""
    work: int
    """Done so far, in forward passes of a picture: a picture that is trained on counts 3, one that is judged 1."""
    work_left: int
    """At most; it shrinks by more than what is done where a trial diverges. Time left is seconds so far * work_left / work."""


class Meter:
    """Counts, keeps the heartbeat going, and reports after each trial, each epoch and every ten seconds."""

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self.report = report
        self.stage, self.trials, self.epochs = "search", 0, 0
        self.work, self.left = 0, 0
        self._told = time.monotonic()

    def expect(self, left: int) -> None:
        """From here on there is this much to do, at most."""
        self.left = left

    def worked(self, amount: int) -> None:
        """A batch is done."""
        self.work += amount
        self.left = max(0, self.left - amount)
        heartbeat.alive()
        if time.monotonic() - self._told > REPORT_SECONDS:
            self._tell()

    def epoch(self) -> None:
        """An epoch is trained."""
        self.epochs += 1
        self._tell()

    def trial(self) -> None:
        """A trial has ended."""
        self.trials += 1
        self._tell()

    def end(self) -> None:
        """All is done."""
        self.left = 0
        self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        self.report(Progress(self.stage, self.trials, self.epochs, self.work, self.left))

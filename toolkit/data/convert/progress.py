"""Rate and time left on stderr, seldom enough for a log file."""

import sys
import time

EVERY_SECONDS = 5.0
EVERY_SECONDS_TERMINAL = 0.5


class Progress:
    """`Progress("scanned", 40_000, "pictures").add(1000)`; ends its line when closed."""

    def __init__(self, done_word: str, total: int, unit: str, already: int = 0) -> None:
        """`already`: done by an earlier, broken-off run; not part of the rate."""
        self.words, self.total, self.unit = done_word, total, unit
        self.done = self.before = already
        self.start = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.remark = ""
        """Stands behind the rate, such as what is waited for."""

    def add(self, count: int) -> None:
        """Count, and show when it is time."""
        self.done += count
        now = time.monotonic()
        if now - self.shown >= (EVERY_SECONDS_TERMINAL if self.terminal else EVERY_SECONDS):
            self.shown = now
            self._show(now)

    def close(self) -> None:
        """The last line, of what was done in all."""
        if self.done > self.before:
            self._show(time.monotonic())
            if self.terminal:
                print(file=sys.stderr)

    def _show(self, now: float) -> None:
        rate = (self.done - self.before) / max(now - self.start, 1e-6)
        left = f", {in_words((self.total - self.done) / rate)} left" if rate and self.total > self.done else ""
        behind = f", {self.remark}" if self.remark else ""
        line = f"{self.words} {self.done:,} of {self.total:,} {self.unit} ({rate:,.0f}/s{left}{behind})"
        print(
            f"\r{line:<100}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr, flush=True
        )


def in_words(seconds: float) -> str:
    """`3 s`, `12 min`, `5.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

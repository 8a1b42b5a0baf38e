"""What a test of hostile input keeps watch over: time, programs, code, and files outside a folder."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class TooLong(BaseException):
    """No `except Exception` may swallow it."""


@contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """TooLong after so many seconds of computing: not of waiting, the machine may be busy, and pytest-timeout has the other clock."""

    def bark(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, bark)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class Guard:
    """Notes what no reader may do: start a program, unpickle, or write outside a folder."""

    WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    FORBIDDEN = (
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "subprocess.Popen",
        "pickle.find_class",
        "socket.connect",
    )
    CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod")

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in self.FORBIDDEN:
            self.seen.append(f"{event}{arguments}")
        changes = event in self.CHANGES or (event == "open" and arguments[2] & self.WRITES)
        if changes and not isinstance(arguments[0], int):
            where = os.path.abspath(os.fsdecode(arguments[0]))
            if not where.startswith(str(self.folder)):
                self.seen.append(f"{event}{arguments}")

    @contextmanager
    def watching(self, folder: Path) -> Iterator[None]:
        """Until the end of the block; AssertionError for what was seen."""
        self.folder, self.seen = folder, []
        try:
            yield
        finally:
            self.folder = None
        assert not self.seen, self.seen

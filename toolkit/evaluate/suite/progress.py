"""Rate, time left and the share of it spent waiting for data, on rank 0."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from toolkit import distributed
from toolkit.data.convert.progress import Progress as Lines


class Progress:
    """`Progress("student on cifar-10 test", 10_000, "pictures")`; other ranks are silent."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        """`total` is over all ranks."""
        self.lines = Lines(f"{what}:", total, unit) if distributed.is_main() else None
        self.begin, self.waited = time.monotonic(), 0.0

    def waiting(self, batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The same batches; the time until each comes counts as waiting."""
        source = iter(batches)
        while True:
            asked = time.monotonic()
            try:
                batch = next(source)
            except StopIteration:
                return
            self.waited += time.monotonic() - asked
            if self.lines is not None:
                share = self.waited / max(time.monotonic() - self.begin, 1e-6)
                self.lines.remark = f"data wait {100 * share:.0f} %"
            yield batch

    def add(self, count: int) -> None:
        """So many more are done, over all ranks."""
        if self.lines is not None:
            self.lines.add(min(count, self.lines.total - self.lines.done))

    def close(self) -> None:
        """The last line."""
        if self.lines is not None:
            self.lines.close()

"""The order of an endless stream: which sample of which shard stands at position n.

A position is a single number, the same whatever the ranks and workers: row i of the global batch at step t stands at
position t * batch + i. Shards are permuted anew in every pass, samples inside windows of shards, all from a counter-based
generator keyed by (seed, pass, window). So every sample comes exactly once in a pass, and resuming needs the step alone.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Place(NamedTuple):
    """Pass over the data, number of the shard in the given order, row inside the shard."""

    epoch: int
    shard: int
    row: int


class Plan:
    """Positions 0, 1, 2, ... -> places, without end."""

    def __init__(self, counts: Sequence[int], seed: int, window_shards: int) -> None:
        """`counts` are samples per shard; samples are shuffled over `window_shards` shards at a time."""
        self.counts = np.asarray(counts, dtype=np.int64)
        self.total = int(self.counts.sum())
        self.seed = seed
        self.window_shards = window_shards
        # Bounded caches: a reader touches the current pass and a window or two at a time.
        self._pass = lru_cache(maxsize=2)(self._pass_uncached)
        self._window = lru_cache(maxsize=4)(self._window_uncached)

    def __reduce__(self) -> tuple[type["Plan"], tuple[list[int], int, int]]:
        """Workers start with empty caches."""
        return type(self), (self.counts.tolist(), self.seed, self.window_shards)

    def place(self, position: int) -> Place:
        """Where the sample at `position` lies."""
        epoch, offset = divmod(position, self.total)
        order, ends = self._pass(epoch)
        window = int(np.searchsorted(ends, offset, side="right"))
        start = int(ends[window - 1]) if window else 0
        member, row = self._window(epoch, window)[offset - start]
        return Place(epoch, int(order[window * self.window_shards + member]), int(row))

    def substitute(self, position: int, attempt: int) -> Place:
        """Another sample of the same window for a bad one, decided by (seed, position, attempt)."""
        epoch, offset = divmod(position, self.total)
        order, ends = self._pass(epoch)
        window = int(np.searchsorted(ends, offset, side="right"))
        members = self._window(epoch, window)
        member, row = members[self._generator(2, position, attempt).integers(len(members))]
        return Place(epoch, int(order[window * self.window_shards + member]), int(row))

    def _generator(self, purpose: int, *counters: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, purpose, *counters])))

    def _pass_uncached(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Shard order of a pass, and the cumulative number of samples at the end of each window."""
        order = self._generator(0, epoch).permutation(len(self.counts))
        ends = np.cumsum(self.counts[order])
        last = np.minimum(
            np.arange(self.window_shards - 1, len(ends) + self.window_shards - 1, self.window_shards), len(ends) - 1
        )
        return order, ends[last]

    def _window_uncached(self, epoch: int, window: int) -> np.ndarray:
        """[samples, 2]: member of the window and row in it, shuffled."""
        order, _ = self._pass(epoch)
        members = order[window * self.window_shards : (window + 1) * self.window_shards]
        counts = self.counts[members]
        pairs = np.stack(
            [np.repeat(np.arange(len(members)), counts), np.concatenate([np.arange(c) for c in counts])], axis=1
        )
        return pairs[self._generator(1, epoch, window).permutation(len(pairs))]

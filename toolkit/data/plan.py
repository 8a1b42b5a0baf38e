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
    """Positions 0, 1, 2, ... -> places, without end: a permutation of all samples, then another one, and so on."""

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


class ResampledPlan(Plan):
    """Positions -> places drawn with replacement, in blocks that read a few shards each.

    A block is as long as `window_shards` average shards; it draws so many shards in proportion to their samples, and its
    samples uniformly from theirs. Every sample is as likely as any other; none is promised in any number of positions.
    """

    def __init__(self, counts: Sequence[int], seed: int, window_shards: int) -> None:
        """As Plan."""
        super().__init__(counts, seed, window_shards)
        self.block = max(1, self.total * window_shards // len(counts))
        self._drawn = lru_cache(maxsize=4)(self._drawn_uncached)

    def place(self, position: int) -> Place:
        """Where the sample at `position` lies; the epoch counts as many samples as there are."""
        block, offset = divmod(position, self.block)
        shard, row = self._drawn(block)[offset]
        return Place(position // self.total, int(shard), int(row))

    def substitute(self, position: int, attempt: int) -> Place:
        """Another draw of the same block."""
        drawn = self._drawn(position // self.block)
        shard, row = drawn[self._generator(2, position, attempt).integers(len(drawn))]
        return Place(position // self.total, int(shard), int(row))

    def _drawn_uncached(self, block: int) -> np.ndarray:
        """[block, 2]: shard and row."""
        draw = self._generator(3, block)
        chosen = draw.choice(len(self.counts), size=self.window_shards, p=self.counts / self.total)
        shards = chosen[draw.integers(len(chosen), size=self.block)]
        return np.stack([shards, (draw.random(self.block) * self.counts[shards]).astype(np.int64)], axis=1)


class MixedPlan:
    """Several plans, interleaved by weight; each keeps its own order and passes, as if it were read alone.

    Positions come in blocks of `BLOCK`, in which every source has its exact share, in an order drawn from (seed, block). So
    where a source stands follows from the position alone.
    """

    BLOCK = 4096
    """Positions; shares are rounded to 1/4096, each source has at least one."""

    def __init__(self, plans: Sequence[Plan], weights: Sequence[float], seed: int) -> None:
        """`weights` are relative. Shards are numbered through all plans in order."""
        self.plans, self.weights, self.seed = list(plans), list(weights), seed
        self.shares = shares_of(weights, self.BLOCK)
        self.total = sum(plan.total for plan in plans)
        self._first = np.cumsum([0, *(len(plan.counts) for plan in plans)])
        self._block = lru_cache(maxsize=4)(self._block_uncached)

    def __reduce__(self) -> tuple[type["MixedPlan"], tuple[list[Plan], list[float], int]]:
        """Workers start with empty caches."""
        return type(self), (self.plans, self.weights, self.seed)

    def place(self, position: int) -> Place:
        """Where the sample at `position` lies; the epoch is that of its source."""
        source, own = self.source(position)
        return self._numbered(source, self.plans[source].place(own))

    def substitute(self, position: int, attempt: int) -> Place:
        """Another sample of the same source."""
        source, own = self.source(position)
        return self._numbered(source, self.plans[source].substitute(own, attempt))

    def source(self, position: int) -> tuple[int, int]:
        """Which plan is read at `position`, and its own position."""
        block, offset = divmod(position, self.BLOCK)
        sources, ranks = self._block(block)
        source = int(sources[offset])
        return source, block * int(self.shares[source]) + int(ranks[offset])

    def _numbered(self, source: int, place: Place) -> Place:
        return place._replace(shard=int(self._first[source]) + place.shard)

    def _block_uncached(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Source of each position of a block, and how many of that source came before it in the block."""
        draw = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, 4, block])))
        sources = draw.permutation(np.repeat(np.arange(len(self.plans)), self.shares))
        ranks = np.empty(len(sources), dtype=np.int64)
        for source, share in enumerate(self.shares):
            ranks[sources == source] = np.arange(share)
        return sources, ranks


def shares_of(weights: Sequence[float], block: int) -> np.ndarray:
    """Positions of each source in a block, by largest remainder, at least one each; they sum to `block`."""
    wanted = np.asarray(weights, dtype=np.float64) / sum(weights) * block
    shares = np.maximum(np.floor(wanted).astype(np.int64), 1)
    for source in np.argsort(shares - wanted, kind="stable")[: max(0, block - int(shares.sum()))]:
        shares[source] += 1
    shares[np.argmax(shares)] += block - int(shares.sum())
    return shares

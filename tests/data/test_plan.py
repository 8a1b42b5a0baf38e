"""The order of an endless stream, without any files."""

import pickle
from collections import Counter

import numpy as np
import pytest

from toolkit.data.plan import Plan
from toolkit.data.streams import RankRows

COUNTS = [5, 1, 7, 3, 4, 6, 2]
TOTAL = sum(COUNTS)
EVERY = {(shard, row) for shard, count in enumerate(COUNTS) for row in range(count)}


def one_pass(plan: Plan, epoch: int) -> list[tuple[int, int]]:
    """(shard, row) of each position of a pass."""
    places = [plan.place(epoch * TOTAL + offset) for offset in range(TOTAL)]
    assert {place.epoch for place in places} == {epoch}
    return [(place.shard, place.row) for place in places]


@pytest.mark.parametrize("window", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("seed", [0, 11])
def test_every_sample_once_in_every_pass(window: int, seed: int) -> None:
    """Whatever the window, also where it does not divide the number of shards."""
    plan = Plan(COUNTS, seed, window)
    for epoch in (0, 1, 7):
        assert Counter(one_pass(plan, epoch)) == Counter(EVERY)


def test_order_differs_between_passes_and_seeds() -> None:
    """A stream that repeats its order would show the same batch companions for ever."""
    plan, other = Plan(COUNTS, 0, 3), Plan(COUNTS, 1, 3)
    orders = [one_pass(plan, 0), one_pass(plan, 1), one_pass(plan, 2), one_pass(other, 0)]
    assert len({tuple(order) for order in orders}) == 4
    shard_orders = [tuple(dict.fromkeys(shard for shard, _ in order)) for order in orders]
    assert len(set(shard_orders)) > 1


def test_both_shuffles_are_anew_in_every_pass() -> None:
    """The order of the shards, and the order inside a window (here the one window there is)."""
    shards = [tuple(Plan([1] * 9, 0, 1).place(epoch * 9 + k).shard for k in range(9)) for epoch in range(4)]
    rows = [tuple(Plan([9], 0, 1).place(epoch * 9 + k).row for k in range(9)) for epoch in range(4)]
    assert len(set(shards)) == len(set(rows)) == 4


def test_samples_are_shuffled_inside_a_shard() -> None:
    """Window 1: one shard after the other, its rows in another order than on disk."""
    plan = Plan([20, 20], 0, 1)
    order = [(p.shard, p.row) for p in map(plan.place, range(40))]
    assert len({shard for shard, _ in order[:20]}) == 1
    assert [row for _, row in order[:20]] != list(range(20))


def test_the_order_is_a_function_of_the_seed_and_position_alone() -> None:
    """A second plan, a pickled one, and one asked backwards say the same: nothing depends on who asks when."""
    plan = Plan(COUNTS, 5, 2)
    forwards = [plan.place(position) for position in range(3 * TOTAL)]
    again = pickle.loads(pickle.dumps(Plan(COUNTS, 5, 2)))  # noqa: S301  our own bytes
    assert [again.place(position) for position in reversed(range(3 * TOTAL))] == forwards[::-1]


def test_the_order_of_a_seed_never_changes() -> None:
    """A run resumed with a newer version must see what it would have seen: these numbers are for ever."""
    plan = Plan([3, 2, 4], 0, 2)
    places = [(place.shard, place.row) for place in map(plan.place, range(9))]
    assert places == [(2, 1), (0, 0), (0, 1), (0, 2), (2, 3), (2, 2), (2, 0), (1, 0), (1, 1)]


def test_the_window_bounds_how_many_shards_are_open() -> None:
    """Neighbouring positions come from at most two windows."""
    plan = Plan([4] * 12, 3, 3)
    for start in range(0, 48, 12):
        assert len({plan.place(position).shard for position in range(start, start + 12)}) == 3


def test_a_substitute_stays_in_the_window() -> None:
    """A bad sample is replaced from shards that are open anyway, always by the same one, and not always by one."""
    plan = Plan([4] * 12, 3, 3)
    for position in (0, 13, 47, 60):
        start = position // 12 * 12
        window = {(p.shard, p.row) for p in map(plan.place, range(start, start + 12))}
        found = [plan.substitute(position, attempt) for attempt in range(1, 30)]
        assert {(p.shard, p.row) for p in found} <= window
        assert found == [plan.substitute(position, attempt) for attempt in range(1, 30)]
        assert len(set(found)) > 5 and {p.epoch for p in found} == {position // 48}


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_ranks_share_the_rows_of_a_step(world: int) -> None:
    """Rank after rank gives the rows of one rank, at every step and from any first step."""
    for first in (0, 4):
        alone = iter(RankRows(12, 0, 1, first))
        ranks = [iter(RankRows(12, rank, world, first)) for rank in range(world)]
        for step in range(first, first + 5):
            rows = [position for rank in ranks for position in next(rank)]
            assert rows == next(alone) == list(range(step * 12, step * 12 + 12))


def test_large_positions() -> None:
    """After 4e9 samples positions are beyond 32 bits."""
    plan = Plan([1000] * 40, 0, 16)
    place = plan.place(2**33 + 5)
    assert place.epoch == (2**33 + 5) // 40_000 and 0 <= place.shard < 40 and 0 <= place.row < 1000
    assert isinstance(place.row, int) and not isinstance(place.row, np.integer)

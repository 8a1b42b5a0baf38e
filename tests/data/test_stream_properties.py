"""What a run consumes, for any shards, ranks, workers and restarts: the samples of the uninterrupted run, each once per pass."""

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from toolkit.data.plan import MixedPlan, Plan, ResampledPlan, shares_of
from toolkit.data.shards import expand_shards, write_shards
from toolkit.data.streams import Field, RankRows, ShardStream, batches

quick = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
counts = st.lists(st.integers(1, 9), min_size=1, max_size=8)
seeds = st.integers(0, 2**31)
windows = st.integers(1, 10)
Place = tuple[int, int]


class Spread(NamedTuple):
    """Ranks and workers of each."""

    world: int
    workers: int


spreads = st.builds(Spread, st.integers(1, 4), st.integers(1, 3))


@st.composite
def plans(draw: Any) -> Plan | MixedPlan:
    """Of each kind; mixed ones of up to three sources."""
    kind = draw(st.sampled_from(["permuted", "resampled", "mixed"]))
    if kind != "mixed":
        return (Plan if kind == "permuted" else ResampledPlan)(draw(counts), draw(seeds), draw(windows))
    parts = [
        draw(st.sampled_from([Plan, ResampledPlan]))(draw(counts), draw(seeds), draw(windows))
        for _ in range(draw(st.integers(2, 3)))
    ]
    weights = draw(st.lists(st.floats(0.01, 100.0), min_size=len(parts), max_size=len(parts)))
    return MixedPlan(parts, weights, draw(seeds))


def consumed(plan: Plan | MixedPlan, batch: int, spread: Spread, steps: range) -> list[list[Place]]:
    """(shard, row) of each global batch, as ranks and their workers read it: worker w has every workers-th step of its rank.

    Each worker has a copy of the plan, as a process has, and reads all its steps before the next worker begins.
    """
    found: list[list[Place]] = [[] for _ in steps]
    for rank in range(spread.world):
        rows = list(itertools.islice(RankRows(batch, rank, spread.world, steps.start), len(steps)))
        read: dict[int, list[Place]] = {}
        for worker in range(spread.workers):
            build, arguments = plan.__reduce__()
            own = build(*arguments)
            for step in range(worker, len(steps), spread.workers):
                read[step] = [own.place(position)[1:] for position in rows[step]]
        for step in range(len(steps)):
            found[step] += read[step]
    return found


@quick
@given(counts, seeds, windows, st.integers(1, 6), spreads, st.integers(1, 3))
def test_each_sample_once_per_pass(
    counts: list[int], seed: int, window: int, rows: int, spread: Spread, passes: int
) -> None:
    """Over all ranks and workers, whether or not the batch divides the pass."""
    plan = Plan(counts, seed, window)
    batch = rows * spread.world
    steps = -(-passes * plan.total // batch)
    stream = [place for step in consumed(plan, batch, spread, range(steps)) for place in step]
    every = {(shard, row) for shard, count in enumerate(counts) for row in range(count)}
    for number in range(passes):
        assert Counter(stream[number * plan.total : (number + 1) * plan.total]) == Counter(every)


@quick
@given(plans(), st.integers(1, 4), spreads, spreads, st.integers(0, 12), st.integers(1, 12))
def test_resumed_anywhere_it_goes_on(
    plan: Plan | MixedPlan, rows: int, before: Spread, after: Spread, stopped: int, more: int
) -> None:
    """On other ranks and workers: the consumed list is the one of a run that never stopped."""
    batch = rows * before.world * after.world  # both divide it
    straight = consumed(plan, batch, Spread(1, 1), range(stopped + more))
    resumed = consumed(plan, batch, before, range(stopped)) + consumed(
        plan, batch, after, range(stopped, stopped + more)
    )
    assert resumed == straight


@quick
@given(plans(), spreads, st.integers(1, 4))
def test_workers_and_ranks_change_nothing(plan: Plan | MixedPlan, spread: Spread, rows: int) -> None:
    """Step by step."""
    batch = rows * spread.world
    assert consumed(plan, batch, spread, range(9)) == consumed(plan, batch, Spread(1, 1), range(9))


@quick
@given(st.lists(st.integers(1, 9), min_size=3, max_size=8), seeds, windows)
def test_passes_differ(counts: list[int], seed: int, window: int) -> None:
    """Of ten samples or more, no two of four passes have one order (a chance of one in 10! where they are in one window)."""
    plan = Plan(counts, seed, window)
    assume(plan.total >= 10 and (window > 1 or len(counts) > 5 or max(counts) > 5))
    orders = [tuple(plan.place(number * plan.total + k)[1:] for k in range(plan.total)) for number in range(4)]
    assert len(set(orders)) == 4


@settings(quick, max_examples=20)
@given(st.lists(counts, min_size=1, max_size=3), st.data(), seeds)
def test_shares_hold_and_sources_keep_their_passes(sources: list[list[int]], data: Any, seed: int) -> None:
    """In every block each source has its share exactly, to a sample of its weight; its own stream is that of its own plan."""
    weights = data.draw(st.lists(st.floats(0.05, 20.0), min_size=len(sources), max_size=len(sources)))
    own = [Plan(counts, number, 2) for number, counts in enumerate(sources)]
    plan = MixedPlan(own, weights, seed)
    first = data.draw(st.integers(0, 10**6))
    drawn = [plan.source(first * MixedPlan.BLOCK + k) for k in range(MixedPlan.BLOCK)]
    found = Counter(source for source, _ in drawn)
    shares = shares_of(weights, MixedPlan.BLOCK)
    wanted = np.array(weights) / sum(weights) * MixedPlan.BLOCK
    assert [found[source] for source in range(len(own))] == shares.tolist()
    assert np.abs(shares - wanted).max() <= len(own)
    for source in range(len(own)):
        positions = [position for chosen, position in drawn if chosen == source]
        assert positions == list(range(first * int(shares[source]), (first + 1) * int(shares[source])))
    for k in data.draw(st.lists(st.integers(0, MixedPlan.BLOCK - 1), max_size=5)):
        shard = plan.place(first * MixedPlan.BLOCK + k).shard
        source, position = drawn[k]
        assert shard - sum(len(counts) for counts in sources[:source]) == own[source].place(position).shard


@quick
@given(counts, seeds, windows, st.integers(0, 10**9))
def test_resampled_places_exist(counts: list[int], seed: int, window: int, position: int) -> None:
    """Also those of substitutes, and however far on."""
    plan = ResampledPlan(counts, seed, window)
    for place in (plan.place(position), plan.substitute(position, 1), plan.substitute(position, 99)):
        assert 0 <= place.row < counts[place.shard]


def number_in(data: bytes) -> dict[str, torch.Tensor]:
    return {"number": torch.tensor(int(data))}


def write(folder: Path, counts: Sequence[int]) -> list[Path]:
    """A shard per count, in a folder of its own; sentence k is the number k."""
    found: list[Path] = []
    for shard, count in enumerate(counts):
        samples = ({"__key__": f"{shard}-{row}", "txt": str(100 * shard + row)} for row in range(count))
        found += expand_shards(str(write_shards(folder / str(shard), samples)), asked_by="x")
    return found


@settings(quick, max_examples=15)
@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=seeds, window=windows, stopped=st.integers(0, 5)
)
def test_the_stream_reads_what_the_plan_says(
    counts: list[int], seed: int, window: int, stopped: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keys and contents, from files, resumed or not."""
    paths = write(tmp_path_factory.mktemp("shards"), counts)
    stream = ShardStream(
        "x", paths, [Field(["txt"], number_in, random=False)], seed=seed, window_shards=window, max_skip_fraction=0.0
    )
    plan = Plan(counts, seed, window)
    for step in itertools.islice(batches(stream, 2, rank=0, world=1, first_step=stopped, workers=0), 4):
        places = [plan.place(2 * stopped + k) for k in range(2)]
        assert step.tensors["number"].tolist() == [100 * place.shard + place.row for place in places]
        assert step.keys == [f"00000.tar:{place.shard}-{place.row}" for place in places]
        stopped += 1

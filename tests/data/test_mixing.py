"""Sources mixed by weight, and sampling with replacement: where a stream stands follows from the position alone."""

import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from toolkit import config
from toolkit.config import Augmentation, Preprocess, Source, resolve, shards_of
from toolkit.data.build import Streams, build_sources
from toolkit.data.plan import MixedPlan, Plan, ResampledPlan, shares_of
from toolkit.errors import ConfigError

MakeShards = Callable[..., Path]
COUNTS = ([5, 9, 3], [4, 4])


def mixed(weights: tuple[float, ...] = (3.0, 1.0)) -> MixedPlan:
    return MixedPlan([Plan(counts, seed, 2) for seed, counts in enumerate(COUNTS)], weights, seed=7)


def test_each_source_goes_on_in_its_own_order() -> None:
    """Taken out of the mixture, a source is the stream it would be alone: every sample once per pass."""
    plan = mixed()
    own = {0: [], 1: []}
    for position in range(2 * MixedPlan.BLOCK):
        source, place = plan.source(position)[0], plan.place(position)
        own[source].append((place.shard - (0, 3)[source], place.row))
    for source, counts in enumerate(COUNTS):
        alone = Plan(counts, source, 2)
        assert own[source] == [alone.place(k)[1:] for k in range(len(own[source]))]
        assert len(set(own[source][: alone.total])) == alone.total


def test_shares_are_exact_in_every_block() -> None:
    """3 : 1 of 4096."""
    plan = mixed()
    for block in range(3):
        first = block * MixedPlan.BLOCK
        found = Counter(plan.source(first + k)[0] for k in range(MixedPlan.BLOCK))
        assert found == {0: 3072, 1: 1024}


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1e6, 1.0, 1.0), (0.2, 0.3, 0.5), (1.0,)])
def test_shares_sum_to_the_block(weights: tuple[float, ...]) -> None:
    """By largest remainder; a tiny source is not lost."""
    shares = shares_of(weights, 4096)
    assert shares.sum() == 4096 and shares.min() >= 1
    if max(weights) < 10:
        assert np.abs(shares - np.array(weights) / sum(weights) * 4096).max() < 1


def test_order_is_the_seeds_alone() -> None:
    """Whoever asks, in any order; another seed gives another order; a copy in another process the same."""
    plan, again = mixed(), copy.copy(mixed())
    places = [plan.place(k) for k in range(200)]
    assert places == [again.place(k) for k in reversed(range(200))][::-1]
    other = MixedPlan(plan.plans, plan.weights, seed=8)
    assert places != [other.place(k) for k in range(200)]
    assert plan.substitute(5, 1).shard // 3 == plan.place(5).shard // 3


def test_resampled_draws_all_alike() -> None:
    """With replacement, in proportion to the shards' samples; the same each time."""
    plan, again = ResampledPlan([10, 200, 40], 0, 2), ResampledPlan([10, 200, 40], 0, 2)
    drawn = [plan.place(k) for k in range(50_000)]
    assert drawn[:500] == [again.place(k) for k in range(500)]
    share = Counter(place.shard for place in drawn)
    assert [share[k] / len(drawn) for k in range(3)] == pytest.approx([0.04, 0.8, 0.16], abs=0.03)
    assert len({place[1:] for place in drawn}) == 250 and all(place.row < (10, 200, 40)[place.shard] for place in drawn)


def test_a_run_mixes_its_sources(make_shards: MakeShards) -> None:
    """From the config to the batches; resumed at a step it goes on as if it had never stopped."""
    paths = {name: str(make_shards(name, count, fields=["png"])) for name, count in {"few": 6, "many": 18}.items()}
    sources = {
        name: Source(shards=path, weight=weight) for (name, path), weight in zip(paths.items(), (1.0, 2.0), strict=True)
    }
    data = config.Data(image_sources=sources, augmentation=Augmentation((1.0, 1.0), (1.0, 1.0), 0.0))
    batch = config.Batch(1, 12, 12, 12, 12, 1)

    def keys(first: int) -> list[list[str]]:
        made = build_sources(data, batch, student=Preprocess(image_size=8), teachers={}, tokenizers={}, seed=0)
        streams = Streams(made, rank=0, world=1, first_step=first, workers=0)
        return [streams.next()["images"].keys for _ in range(30)]

    straight = keys(0)
    assert keys(10)[:20] == straight[10:]
    assert len({key for step in straight for key in step}) == len({key for step in straight[:20] for key in step})
    assert shards_of(data, "images") == "::".join(paths.values())


WRONG = {
    "data.images=a data.image_sources.x.shards=b": "data.images and data.image_sources are both set",
    "data.image_sources.x.weight=1": "data.image_sources.x.shards is not set",
    "data.image_sources.x.shards=a data.image_sources.x.weight=0": "data.image_sources.x.weight (0.0) must be above 0",
    "data.text_sources.x.shards=a data.text_sources.x.weight=1 data.text_sources.y.shards=b": "data.text_sources: some sources",
}


@pytest.mark.parametrize("overrides", WRONG)
def test_contradictions(overrides: str) -> None:
    """Told before anything is read."""
    with pytest.raises(ConfigError) as caught:
        resolve(config.Run(), ["out_dir=o", "student.name=s", *overrides.split(" ")])
    assert WRONG[overrides] in str(caught.value)

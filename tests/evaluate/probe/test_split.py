"""Which rows choose, train and are drawn: by hand, and against loops written from the rule."""

import random
from collections import Counter
from math import ceil

import pytest
import torch
from torch import Tensor

from toolkit.errors import ConfigError, DataError
from toolkit.evaluate.probe.split import elevater_split, few_shot_rows, random_split, sample_few_shot_subset


def random_labels(seed: int, classes: int = 5, count: int = 83) -> Tensor:
    return torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(5))
def test_elevater_takes_the_first_fifth_of_each_class(seed: int) -> None:
    """Rounded up, in the order of the index."""
    labels = random_labels(seed)
    training, validation = elevater_split(labels)
    expected = []
    for number in range(5):
        rows = [row for row, label in enumerate(labels.tolist()) if label == number]
        expected += rows[: ceil(len(rows) / 5)]
    assert validation == sorted(expected)
    assert sorted(training + validation) == list(range(83)) and training == sorted(training)


def test_five_of_a_class_give_one() -> None:
    """Exact multiples of five do not round up further: 5 -> 1, 35 -> 7."""
    assert elevater_split(torch.zeros(5, dtype=torch.int64)) == ([1, 2, 3, 4], [0])
    assert len(elevater_split(torch.zeros(35, dtype=torch.int64))[1]) == 7


def test_several_classes_per_picture() -> None:
    """Two classes of 6 and 5 pictures want 2 and 1: row 0 serves both, row 2 the first alone; a bare picture trains."""
    labels = torch.tensor([[1, 1], [0, 1], [1, 0], [1, 1], [0, 0], [1, 1], [1, 0], [1, 1]])
    assert elevater_split(labels) == ([1, 3, 4, 5, 6, 7], [0, 2])


@pytest.mark.parametrize("seed", range(5))
def test_random_split(seed: int) -> None:
    """A fifth of each class, other rows with another seed, the last picture of a class stays in training."""
    labels = torch.cat([random_labels(seed), torch.tensor([5])])
    training, validation = random_split(labels, seed)
    held = Counter(labels[validation].tolist())
    assert all(held[n] == ceil(int((labels == n).sum()) / 5) for n in range(5)) and held[5] == 0
    assert sorted(training + validation) == list(range(84))
    assert random_split(labels, seed) == (training, validation) != random_split(labels, seed + 1)


def test_nothing_to_train_on() -> None:
    """One picture of each class would all be held out."""
    with pytest.raises(DataError, match="into 0 for training and 3"):
        elevater_split(torch.arange(3))
    with pytest.raises(DataError, match="into 3 for training and 0"):
        random_split(torch.arange(3), 0)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_few_shots_are_the_first_k_after_the_shuffle(k: int, seed: int) -> None:
    """One class per picture: exactly k of each."""
    labels = random_labels(7)
    order = list(range(83))
    random.Random(seed).shuffle(order)
    seen: Counter[int] = Counter()
    expected = []
    for row in order:
        seen[int(labels[row])] += 1
        expected += [row] if seen[int(labels[row])] <= k else []
    assert sample_few_shot_subset(labels, k, seed) == expected


def test_few_shots_of_several_classes() -> None:
    """Every class gets k; a picture whose common class is past 1.5 k and whose rare one is past k / 2 is passed over."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(200, 4, generator=generator) < torch.tensor([0.6, 0.3, 0.2, 0.1])).long()
    rows = sample_few_shot_subset(labels, 5, 1)
    totals = labels[rows].sum(0)
    assert bool((totals >= 5).all()) and len(set(rows)) == len(rows)
    counts = torch.zeros(4)
    taken = set()
    order = list(range(200))
    random.Random(1).shuffle(order)
    passed = bare = 0
    for row in order:
        if bool((counts >= 5).all()):
            break
        own = counts[labels[row] == 1]
        if len(own) == 0:
            taken |= {row} if bare < 5 else set()
            bare += 1
            continue
        useful = float(own.min()) < 5
        fits = useful and (float(own.min()) <= 2.5 or float(own.max()) <= 7.5)
        passed += useful and not fits
        if fits:
            taken.add(row)
            counts += labels[row]
    assert taken == set(rows) and passed > 0 and bare > 0


def test_one_shot_is_two_without_merging() -> None:
    """One to train on, one to choose with."""
    labels = random_labels(3)
    rows, merge = few_shot_rows(labels, 1, 0)
    assert Counter(labels[rows].tolist()) == dict.fromkeys(range(5), 2) and not merge
    training, validation = elevater_split(labels[rows])
    assert len(training) == len(validation) == 5
    assert few_shot_rows(labels, 5, 0) == (sample_few_shot_subset(labels, 5, 0), True)


def test_too_few() -> None:
    """The class and its count are named."""
    with pytest.raises(DataError, match="1 classes have fewer, class 1 got 2 of its 2"):
        sample_few_shot_subset(torch.tensor([0, 1, 0, 1, 0]), 3, 0)
    assert len(sample_few_shot_subset(torch.tensor([0, 1, 0, 1, 0]), 3, 0, allow_fewer=True)) == 5
    with pytest.raises(DataError, match="class 2 got 0 of its 0"):
        sample_few_shot_subset(torch.tensor([[1, 1, 0], [1, 1, 0]]), 1, 0)
    with pytest.raises(ConfigError, match="k=0"):
        sample_few_shot_subset(torch.tensor([0]), 0, 0)

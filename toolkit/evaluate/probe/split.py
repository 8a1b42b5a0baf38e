"""Which pictures choose the settings and which are drawn for few shots; by row number, the same on every machine.

Labels are class numbers [n], or a 0/1 matrix [n, k] where a picture shows several classes.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence

from torch import Tensor

from toolkit.errors import ConfigError, DataError

Rows = list[int]


def classes_of(labels: Tensor) -> list[list[int]]:
    """The classes of each picture."""
    if labels.ndim == 1:
        return [[number] for number in labels.tolist()]
    return [[number for number, shown in enumerate(row) if shown] for row in labels.tolist()]


def elevater_split(labels: Tensor) -> tuple[Rows, Rows]:
    """(training, validation) rows by ELEVATER's rule: of each class the first 20 % in the order they come, rounded up.

    A picture of several classes goes to validation while any of them lacks pictures there. A class of a single picture
    is then in validation alone, as it is in ELEVATER.
    """
    owned = classes_of(labels)
    return _fill(owned, range(len(owned)), lambda count: -(-count // 5))


def random_split(labels: Tensor, seed: int) -> tuple[Rows, Rows]:
    """(training, validation) rows: 20 % of each class drawn at random, rounded up, but never a class's last picture."""
    owned = classes_of(labels)
    order = list(range(len(owned)))
    random.Random(seed).shuffle(order)
    return _fill(owned, order, lambda count: min(-(-count // 5), count - 1))


def _fill(owned: list[list[int]], order: Sequence[int], quota: Callable[[int], int]) -> tuple[Rows, Rows]:
    """Walk in `order`; a picture is taken for validation while one of its classes is below its quota."""
    wanted = {number: quota(count) for number, count in Counter(c for row in owned for c in row).items()}
    taken: Counter[int] = Counter()
    validation = set()
    for row in order:
        if any(taken[number] < wanted[number] for number in owned[row]):
            validation.add(row)
            taken.update(owned[row])
    training = [row for row in range(len(owned)) if row not in validation]
    if not training or not validation:
        raise DataError(
            f"{len(owned)} pictures split into {len(training)} for training and {len(validation)} for choosing the "
            "settings; neither may be empty: give more pictures per class"
        )
    return training, sorted(validation)


def sample_few_shot_subset(labels: Tensor, k: int, seed: int, *, allow_fewer: bool = False) -> Rows:
    """`k` pictures of each class, as ELEVATER draws them: rows in the order they were drawn.

    The pictures are shuffled by Python's `random.Random(seed)` and walked. One is left out when each of its classes has
    `k` already; else it is taken when the rarest of its classes has at most k / 2 so far, or the commonest at most
    1.5 k. Of the pictures without any class the first `k` are taken. The walk ends when every class has `k`. With one
    class per picture that is exactly `k` of each. Raises DataError when a class gets fewer, unless `allow_fewer`.
    """
    if k < 1:
        raise ConfigError(f"few-shot: k={k} pictures per class were asked for; give 1 or more")
    owned = classes_of(labels)
    missing = {number for row in owned for number in row} if labels.ndim == 1 else set(range(labels.shape[1]))
    order = list(range(len(owned)))
    random.Random(seed).shuffle(order)
    taken: Counter[int] = Counter()
    rows: Rows = []
    without_class = 0
    for row in order:
        if not missing:
            break
        if not owned[row]:
            without_class += 1
            rows += [row] if without_class <= k else []
            continue
        counts = [taken[number] for number in owned[row]]
        if all(count >= k for count in counts) or not (min(counts) <= k / 2 or max(counts) <= 1.5 * k):
            continue
        rows.append(row)
        taken.update(owned[row])
        missing -= {number for number in owned[row] if taken[number] >= k}
    if missing and not allow_fewer:
        first = min(missing)
        there = sum(first in row for row in owned)
        raise DataError(
            f"few-shot: {k} pictures of each class were asked for; {len(missing)} classes have fewer, class {first} got "
            f"{taken[first]} of its {there}; choose a smaller k, or allow_fewer=True"
        )
    return rows


def few_shot_rows(labels: Tensor, k: int, seed: int) -> tuple[Rows, bool]:
    """(rows, whether the validation part joins the training of the final run).

    ELEVATER's 1-shot draws two of each class: one to train on and one to choose with, which is then not trained on.
    """
    return (
        (sample_few_shot_subset(labels, 2, seed), False) if k == 1 else (sample_few_shot_subset(labels, k, seed), True)
    )

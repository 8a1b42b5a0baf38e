"""Independent trials over the ranks; every rank then knows every score."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from toolkit import distributed
from toolkit.errors import DataError, ToolkitError

Found = TypeVar("Found")


def together(work: Callable[[], Found]) -> Found:
    """What `work` gives on this rank; where it fails on any rank with a message for the user, all of them raise. A collective."""
    failed: ToolkitError | None = None
    try:
        found = work()
    except ToolkitError as error:
        failed = error
    if distributed.all_true(failed is None):
        return found
    raise failed or DataError("fine-tune: another rank could not go on; its message says why")


def shared_out(jobs: Sequence[Callable[[], float]]) -> list[float]:
    """The number each job gives, on every rank; rank r does jobs r, r + world, ... A collective."""
    mine = range(distributed.rank(), len(jobs), distributed.world())
    scores = torch.zeros(len(jobs), dtype=torch.float64)
    found = together(lambda: [jobs[job]() for job in mine])
    for number, score in zip(mine, found, strict=True):
        scores[number] = score
    return distributed.reduce_sum(scores.to(distributed.device())).tolist()


def largest_share(jobs: int) -> int:
    """Of the rank that has most to do."""
    return -(-jobs // distributed.world())

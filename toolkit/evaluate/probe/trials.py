"""Training a list of settings and judging each after every epoch, a block of heads at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from toolkit import heartbeat
from toolkit.errors import ConfigError, DataError
from toolkit.evaluate.metrics import Metric
from toolkit.evaluate.probe.features import Labelled, Start
from toolkit.evaluate.probe.grid import LEARNING_RATES, Point
from toolkit.evaluate.probe.heads import Heads, build_heads

BLOCK_BYTES = 8 * 2**20
"""Weights and momenta of the heads that train together; they are read and written at each step and should stay in the cache."""


@dataclass(frozen=True)
class Settings:
    """How a probe trains; the defaults are ELEVATER's."""

    what: ClassVar[str] = "linear probe"
    """In messages."""
    metric: Metric
    learning_rates: Sequence[float] = LEARNING_RATES
    trial_epochs: int = 10
    final_epochs: int = 50
    batch_size: int = 64
    seed: int = 0
    """Of the order of the batches (and of the head, where no text matrix begins it)."""

    def check(self) -> None:
        """Raise ConfigError for a number below its least."""
        for name, least in (("trial_epochs", 1), ("final_epochs", 1), ("batch_size", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"{self.what}: {name}={getattr(self, name)} must be at least {least}")
        if not self.learning_rates:
            raise ConfigError(f"{self.what}: learning_rates is empty; leave it out for 1e-6 to 1e-1")


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Row numbers of each batch of an epoch, shuffled; a last batch of one row joins the one before (BatchNorm needs two)."""
    if count < 2:
        raise DataError(f"{count} training pictures; BatchNorm needs 2 or more in a batch")
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    batches = list(torch.randperm(count, generator=generator).split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def train_heads(
    start: Start, points: Sequence[Point], train: Labelled, settings: Settings, epochs: int
) -> Iterator[Heads]:
    """The heads after each epoch; every point sees the same batches. `keep` may be called between epochs."""
    heads = build_heads(start, points)
    for epoch in range(epochs):
        for rows in epoch_batches(len(train), settings.batch_size, settings.seed, epoch):
            heads.step(train.features[rows], train.labels[rows])
        heartbeat.alive()
        yield heads


def judge(logits: Tensor, labels: Tensor, metric: Metric, sigmoid: bool) -> tuple[float, Tensor]:
    """(metric in percent, probabilities [n, k]); a head that has diverged scores 0."""
    probabilities = (logits.sigmoid() if sigmoid else logits.softmax(dim=-1)).cpu()
    finite = bool(probabilities.isfinite().all())
    return (metric(probabilities, labels.cpu()) if finite else 0.0), probabilities


def run_trials(
    start: Start,
    points: Sequence[Point],
    train: Labelled,
    validation: Labelled,
    settings: Settings,
    sigmoid: bool,
    report: Callable[[int], None] = lambda trials: None,
) -> list[list[float]]:
    """Validation metric after each epoch, for each point; a head that diverged keeps 0 for the rest and is trained no more.

    `report` is told how many trials have just ended.
    """
    curves: list[list[float]] = []
    each = 2 * start.parameters * start.weight.element_size()
    at_once = max(1, BLOCK_BYTES // each)
    for begin in range(0, len(points), at_once):
        block = list(points[begin : begin + at_once])
        found: list[list[float]] = [[] for _ in block]
        alive = list(range(len(block)))
        for heads in train_heads(start, block, train, settings, settings.trial_epochs):
            for which, logits in zip(alive, heads.logits(validation.features), strict=True):
                found[which].append(judge(logits, validation.labels, settings.metric, sigmoid)[0])
            finite = heads.finite()
            if not bool(finite.all()):
                heads.keep(finite)
                alive = [which for which, fine in zip(alive, finite.tolist(), strict=True) if fine]
            if not alive:
                break
        curves += [curve + [0.0] * (settings.trial_epochs - len(curve)) for curve in found]
        report(len(block))
    return curves

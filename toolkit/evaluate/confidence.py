"""How sure a number is: bootstrap intervals, and whether a student differs from a baseline on the same pictures.

The pictures of the test set are drawn with replacement, as often as there are pictures, and the metric is computed
on each draw. What training would give with another seed is not in these intervals.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from toolkit.errors import ConfigError, DataError
from toolkit.evaluate.metrics import Array, Metric, Statistic, Undefined

DRAWS = 1000
LEVEL = 0.95
REDRAWS = 100
"""How often a draw that leaves the metric undefined is drawn anew before giving up."""


@dataclass(frozen=True)
class Interval:
    """A number with its percentile interval, in the metric's unit (percent)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Student minus baseline on the same pictures, in percentage points."""

    value: float
    draws: np.ndarray
    """The difference on each draw [draws]."""

    def interval(self, level: float = LEVEL) -> Interval:
        """Percentile interval of the difference."""
        return Interval(self.value, *_percentiles(self.draws, level))

    @property
    def p_value(self) -> float:
        """Two-sided: twice the share of draws on the other side of zero, or at it; never below 2 / (draws + 1)."""
        below, above = int((self.draws <= 0).sum()), int((self.draws >= 0).sum())
        return min(1.0, 2 * (1 + min(below, above)) / (len(self.draws) + 1))


def confidence_interval(
    metric: Metric,
    scores: Array | Sequence[Array],
    labels: Array,
    *,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """The metric of one model with its bootstrap interval; of several runs (seeds) of it, that of their mean."""
    statistics = [metric.statistic(run, labels) for run in _runs(scores)]
    value = float(np.mean([statistic(None) for statistic in statistics]))  # says what is wrong where it is undefined
    return Interval(value, *_percentiles(_draw(statistics, len(labels), draws, seed).mean(axis=1), level))


def compare(
    metric: Metric,
    student: Array | Sequence[Array],
    baseline: Array | Sequence[Array],
    labels: Array,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Student minus baseline, paired: each draw takes the same pictures for both. Scores [n, k] of either model, or the
    scores of several runs (seeds), which are averaged."""
    ours = [metric.statistic(run, labels) for run in _runs(student)]
    theirs = [metric.statistic(run, labels) for run in _runs(baseline)]
    value = np.mean([run(None) for run in ours]) - np.mean([run(None) for run in theirs])
    drawn = _draw([*ours, *theirs], len(labels), draws, seed)
    return Comparison(float(value), drawn[:, : len(ours)].mean(axis=1) - drawn[:, len(ours) :].mean(axis=1))


def _runs(scores: Array | Sequence[Array]) -> Sequence[Array]:
    """One array is one run."""
    return [scores] if isinstance(scores, np.ndarray | Tensor) else scores


def mean_comparison(comparisons: Sequence[Comparison], seed: int = 0) -> Comparison:
    """The mean difference over several sets, each with the same weight, as ELEVATER's score has it.

    The sets are independent: their draws are shuffled before they are averaged, so that equal seeds do no harm.
    """
    counts = {len(one.draws) for one in comparisons}
    if len(counts) != 1:
        found = ", ".join(map(str, sorted(counts))) or "no set at all"
        raise ConfigError(f"the mean over sets needs the same number of draws for each; found {found}; set draws alike")
    rng = np.random.default_rng(seed)
    drawn = np.mean([rng.permutation(one.draws) for one in comparisons], axis=0)
    return Comparison(float(np.mean([one.value for one in comparisons])), drawn)


def _draw(statistics: Sequence[Statistic], pictures: int, draws: int, seed: int) -> np.ndarray:
    """[draws, statistics]: all of them on the same draws, which `seed` decides."""
    if draws < 1:
        raise ConfigError(f"draws={draws} must be at least 1; {DRAWS} is usual")
    rng = np.random.default_rng(seed)
    rows = np.empty((draws, len(statistics)))
    for row in rows:
        for _ in range(REDRAWS):
            counts = np.bincount(rng.integers(0, pictures, pictures), minlength=pictures)
            try:
                row[:] = [statistic(counts) for statistic in statistics]
                break
            except Undefined:
                continue
        else:
            raise DataError(
                f"{REDRAWS} draws from {pictures} pictures in a row left the metric undefined: too few pictures of a "
                "class for an interval; judge more pictures"
            )
    return rows


def _percentiles(drawn: np.ndarray, level: float) -> tuple[float, float]:
    """The ends of the middle `level` of the draws."""
    if not 0 < level < 1:
        raise ConfigError(f"level={level} must lie between 0 and 1; 0.95 is usual")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

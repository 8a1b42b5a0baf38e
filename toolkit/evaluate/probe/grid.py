"""The settings that are tried: six learning rates, and for each a search over 97 weight decays.

For one learning rate: the decays number 0, 16, ..., 96 first; then the ones 8 to the left and right of the best,
then 4, 2 and 1, moving to any that is better. That is ELEVATER's search. All learning rates take each of its five rounds
together, so that their trials can train side by side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

LEARNING_RATES = tuple(float(f"1e{power}") for power in range(-6, 0))
WEIGHT_DECAYS = tuple(np.logspace(-6, 6, 97).tolist())
SPANS = (8, 4, 2, 1)


@dataclass(frozen=True)
class Point:
    """One setting."""

    learning_rate: float
    weight_decay: float


@dataclass
class DecaySearch:
    """The search over weight decays for one learning rate."""

    peak: int = 0
    """Number of the best decay so far."""
    score: float = -np.inf
    scores: dict[int, float] = field(default_factory=dict)

    def around(self, span: int | None) -> list[int]:
        """What to try next: the coarse grid (None), or what lies `span` to the left and right of the peak."""
        if span is None:
            return list(range(0, len(WEIGHT_DECAYS), 16))
        ends = (max(self.peak - span, 0), min(self.peak + span, len(WEIGHT_DECAYS) - 1))
        return [end for end in ends if end != self.peak]

    def tell(self, number: int, score: float) -> None:
        """Note a score; the peak moves only to what is strictly better."""
        self.scores[number] = score
        if score > self.score:
            self.peak, self.score = number, score


def search(
    run: Callable[[list[Point]], Sequence[float]], learning_rates: Sequence[float] = LEARNING_RATES
) -> tuple[Point, dict[Point, float]]:
    """(best point, score of every point tried); `run` trains a list of points and returns their scores.

    Of equal scores the first tried wins: the lowest learning rate, then the order above.
    """
    searches = [DecaySearch() for _ in learning_rates]
    tried: dict[Point, float] = {}
    for span in (None, *SPANS):
        asked = [(which, number) for which, one in enumerate(searches) for number in one.around(span)]
        points = [Point(learning_rates[which], WEIGHT_DECAYS[number]) for which, number in asked]
        for (which, number), point, score in zip(asked, points, run(points), strict=True):
            searches[which].tell(number, score)
            tried[point] = score
    best = max(range(len(searches)), key=lambda which: searches[which].score)
    return Point(learning_rates[best], WEIGHT_DECAYS[searches[best].peak]), tried

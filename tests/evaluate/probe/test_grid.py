"""The search over settings, against the same rule written down one trial after the other."""

import math
import random

import pytest

from toolkit.evaluate.probe.grid import LEARNING_RATES, WEIGHT_DECAYS, Point, search

Table = dict[tuple[int, int], float]


def one_after_the_other(table: Table) -> tuple[tuple[int, int], set[tuple[int, int]]]:
    """((number of the learning rate, of the decay), all pairs tried), as a program without batches would do it."""
    tried, best, best_score = set(), (-1, -1), -math.inf
    for rate in range(6):
        peak, peak_score = -1, -math.inf
        for decay in (0, 16, 32, 48, 64, 80, 96):
            tried.add((rate, decay))
            if table[rate, decay] > peak_score:
                peak, peak_score = decay, table[rate, decay]
        span = 8
        while span:
            for decay in [d for d in (max(0, peak - span), min(96, peak + span)) if d != peak]:
                tried.add((rate, decay))
                if table[rate, decay] > peak_score:
                    peak, peak_score = decay, table[rate, decay]
            span //= 2
        if peak_score > best_score:
            best, best_score = (rate, peak), peak_score
    return best, tried


def searched(table: Table) -> tuple[tuple[int, int], set[tuple[int, int]], list[int]]:
    """What ours finds, and how many trials each round had."""
    rounds = []

    def place(point: Point) -> tuple[int, int]:
        return LEARNING_RATES.index(point.learning_rate), WEIGHT_DECAYS.index(point.weight_decay)

    def run(points: list[Point]) -> list[float]:
        rounds.append(len(points))
        return [table[place(point)] for point in points]

    best, tried = search(run)
    assert all(score == table[place(point)] for point, score in tried.items())
    return place(best), {place(point) for point in tried}, rounds


def random_table(seed: int, levels: int) -> Table:
    rng = random.Random(seed)
    return {(rate, decay): rng.randrange(levels) / levels for rate in range(6) for decay in range(97)}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("levels", [2, 5, 10_000])
def test_is_the_sequential_search(seed: int, levels: int) -> None:
    """With many ties and without."""
    table = random_table(seed, levels)
    best, tried, rounds = searched(table)
    assert (best, tried) == one_after_the_other(table)
    assert rounds[0] == 42 and len(rounds) == 5 and sum(rounds) == len(tried) <= 90


@pytest.mark.parametrize("peak", [0, 5, 43, 96])
def test_a_single_peak_is_found(peak: int) -> None:
    """Scores that fall away from one decay at one learning rate."""
    table = {(rate, decay): -abs(decay - peak) - 10.0 * abs(rate - 4) for rate in range(6) for decay in range(97)}
    best, _, rounds = searched(table)
    assert best == (4, peak)
    assert sum(rounds) == (66 if peak in (0, 96) else 90 if peak == 43 else sum(rounds))


def test_the_grid() -> None:
    """Six powers of ten; 97 decays from 1e-6 to 1e6, eight to the decade."""
    assert [math.log10(rate) for rate in LEARNING_RATES] == pytest.approx([-6, -5, -4, -3, -2, -1])
    assert [math.log10(decay) for decay in WEIGHT_DECAYS] == pytest.approx([-6 + n / 8 for n in range(97)])


def test_all_equal_takes_the_first() -> None:
    """Nothing is better than the first point."""
    assert searched(dict.fromkeys(random_table(0, 2), 0.0))[0] == (0, 0)

"""Bootstrap intervals against formulas for shares, and paired tests against the exact sign test."""

import numpy as np
import pytest
from scipy.stats import binomtest

from toolkit.errors import ConfigError, DataError
from toolkit.evaluate.confidence import compare, confidence_interval, mean_comparison
from toolkit.evaluate.metrics import METRICS

TOP1 = METRICS["top1"]


def answers(right: np.ndarray) -> np.ndarray:
    """Scores of two classes that are right (class 0) where `right` is True."""
    return np.stack([right, ~right], axis=1).astype(float)


def zeros(count: int) -> np.ndarray:
    return np.zeros(count, dtype=np.int64)


def test_interval_of_a_share() -> None:
    """280 of 400: the normal approximation gives 70 +- 4.49."""
    right = np.arange(400) < 280
    found = confidence_interval(TOP1, answers(right), zeros(400), draws=2000)
    half = 1.96 * np.sqrt(0.7 * 0.3 / 400) * 100
    assert found.value == 70.0
    assert found.low == pytest.approx(70 - half, abs=0.5) and found.high == pytest.approx(70 + half, abs=0.5)
    narrow = confidence_interval(TOP1, answers(right), zeros(400), draws=2000, level=0.5)
    assert found.low < narrow.low < 70 < narrow.high < found.high


def test_seeds_decide() -> None:
    """The same seed the same interval."""
    right = np.arange(50) < 20
    one, again, other = (confidence_interval(TOP1, answers(right), zeros(50), draws=200, seed=s) for s in (1, 1, 2))
    assert one == again and one != other


def test_pairing_is_what_makes_it_narrow() -> None:
    """Two models that differ on 12 of 400 pictures only: the spread of the difference is that of the 12."""
    baseline = np.random.default_rng(0).random(400) < 0.6
    student = baseline.copy()
    student[np.flatnonzero(~baseline)[:12]] = True
    found = compare(TOP1, answers(student), answers(baseline), zeros(400), draws=2000)
    assert found.value == pytest.approx(3.0)
    assert found.draws.std() == pytest.approx(100 * np.sqrt(12) / 400, rel=0.1)
    interval = found.interval()
    assert 0 < interval.low < 3 < interval.high and found.p_value < 0.005


@pytest.mark.parametrize(("gained", "lost"), [(20, 20), (26, 16), (30, 12)])
def test_p_value_is_near_the_sign_test(gained: int, lost: int) -> None:
    """Exact binomial test on the pictures where the models differ."""
    baseline = np.arange(500) < 250
    student = baseline.copy()
    student[:lost] = False
    student[250 : 250 + gained] = True
    found = compare(TOP1, answers(student), answers(baseline), zeros(500), draws=4000)
    assert found.p_value == pytest.approx(binomtest(gained, gained + lost).pvalue, abs=0.06)
    swapped = compare(TOP1, answers(baseline), answers(student), zeros(500), draws=4000)
    assert swapped.value == -found.value and swapped.p_value == found.p_value


def test_equal_models() -> None:
    """No difference: p is 1."""
    scores = answers(np.arange(30) < 10)
    found = compare(TOP1, scores, scores, zeros(30), draws=100)
    assert found.value == 0 and found.p_value == 1.0


def test_mean_over_sets_takes_them_as_independent() -> None:
    """Four copies of one set, drawn with one seed: the spread halves, as it would not if the draws were shared."""
    rng = np.random.default_rng(1)
    student, baseline = rng.random(300) < 0.7, rng.random(300) < 0.6
    one = compare(TOP1, answers(student), answers(baseline), zeros(300), draws=2000)
    mean = mean_comparison([one] * 4)
    assert mean.value == pytest.approx(one.value)
    assert mean.draws.std() == pytest.approx(one.draws.std() / 2, rel=0.08)


def test_draws_that_leave_the_metric_undefined_are_drawn_anew() -> None:
    """One positive in six: a third of the draws miss it."""
    labels = np.array([1, 0, 0, 0, 0, 0])
    scores = np.stack([np.zeros(6), [0.5, 0.1, 0.2, 0.9, 0.3, 0.4]], axis=1)
    found = confidence_interval(METRICS["roc_auc"], scores, labels, draws=200)
    assert found.value == pytest.approx(80.0) and 0 <= found.low < found.high <= 100


def test_mistakes() -> None:
    """Numbers that make no sense are refused."""
    scores, labels = answers(np.arange(10) < 5), zeros(10)
    with pytest.raises(ConfigError, match="draws=0"):
        confidence_interval(TOP1, scores, labels, draws=0)
    with pytest.raises(ConfigError, match="level=95"):
        confidence_interval(TOP1, scores, labels, level=95.0, draws=10)
    few, many = (compare(TOP1, scores, scores, labels, draws=d) for d in (5, 6))
    with pytest.raises(ConfigError, match="found 5, 6"):
        mean_comparison([few, many])
    with pytest.raises(ConfigError, match="no set at all"):
        mean_comparison([])
    with pytest.raises(DataError, match="both classes"):
        confidence_interval(METRICS["roc_auc"], scores, labels, draws=10)

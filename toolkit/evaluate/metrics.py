"""The four metrics of the protocol, in percent: top-1, mean per class, 11-point mAP and ROC-AUC.

A metric takes scores [n, k] (probabilities or logits, the higher the likelier) and labels: class numbers [n], or for
`map_11point` a 0/1 matrix [n, k]. Where several classes tie for the first place, the first of them is the answer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from toolkit.errors import ConfigError, DataError
from toolkit.registry import did_you_mean

Array = np.ndarray | Tensor
Statistic = Callable[[np.ndarray | None], float]
"""A metric of fixed scores as a function of how often each picture counts [n]; None counts each once. Percent."""
LEVELS = np.linspace(0, 1, 11)
"""Recalls at which the 11-point mAP reads the precision."""


class Undefined(DataError):
    """The pictures at hand do not determine the metric, such as a ROC-AUC over one class."""


@dataclass(frozen=True)
class Metric:
    """One metric; call it with (scores, labels) for a number in percent."""

    name: str
    protocol_name: str
    """What ELEVATER's data-set list calls it."""
    multi_label: bool
    prepare: Callable[[np.ndarray, np.ndarray], Statistic]

    def __call__(self, scores: Array, labels: Array) -> float:
        """Percent; raises DataError for scores and labels that do not fit, Undefined where there is no such number."""
        return self.statistic(scores, labels)(None)

    def statistic(self, scores: Array, labels: Array) -> Statistic:
        """The metric as a function of how often each picture counts; what can be computed once is."""
        found, truth = np.asarray(scores), np.asarray(labels)
        self._check(found, truth)
        return self.prepare(found, truth)

    def _check(self, scores: np.ndarray, labels: np.ndarray) -> None:
        """Raise DataError for shapes, values or labels that cannot be judged."""
        if scores.ndim != 2 or not scores.size:
            raise DataError(f"{self.name} takes scores [pictures, classes]; found the shape {list(scores.shape)}")
        wanted = list(scores.shape) if self.multi_label else [len(scores)]
        if list(labels.shape) != wanted:
            what = "a 0/1 matrix" if self.multi_label else "class numbers"
            raise DataError(f"{self.name} takes labels as {what} of shape {wanted}; found {list(labels.shape)}")
        if not np.isfinite(scores).all():
            rows = int((~np.isfinite(scores)).any(axis=1).sum())
            raise DataError(
                f"{self.name}: {rows} of {len(scores)} pictures have scores that are not finite; mend the model"
            )
        classes = 2 if self.multi_label else scores.shape[1]
        if not ((labels >= 0) & (labels < classes) & (labels == np.floor(labels))).all():
            raise DataError(
                f"{self.name}: labels must be whole numbers in 0..{classes - 1}; found {labels.min()} to {labels.max()}"
            )
        if self.name == "roc_auc" and scores.shape[1] != 2:
            raise DataError(f"roc_auc is for two classes; found scores of {scores.shape[1]}; choose another metric")


def _top1(scores: np.ndarray, labels: np.ndarray) -> Statistic:
    """Share of pictures whose highest score is their class."""
    hit = scores.argmax(axis=1) == labels
    return lambda counts: 100.0 * float(np.average(hit, weights=counts))


def _mean_per_class(scores: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean recall over the classes that have pictures; the others cannot be answered either: their scores are dropped."""
    present = np.unique(labels).astype(np.int64)
    hit = present[scores[:, present].argmax(axis=1)] == labels
    number = np.searchsorted(present, labels)

    def value(counts: np.ndarray | None) -> float:
        weights = np.ones(len(labels)) if counts is None else counts
        total = np.bincount(number, weights, len(present))
        right = np.bincount(number, weights * hit, len(present))
        seen = total > 0
        return 100.0 * float((right[seen] / total[seen]).mean())

    return value


def _map_11point(scores: np.ndarray, labels: np.ndarray) -> Statistic:
    """PASCAL VOC 2007: per class the best precision at or above each of 11 recalls, mean over recalls, then over classes.

    The curve is scikit-learn's, which ends at recall 0 with precision 1: that level always counts as 1, as in ELEVATER.
    Classes without a picture have no recall and are left out of the mean (ELEVATER gives them 1/11; VOC has none).
    """
    truth = labels.astype(bool)
    curves = [_levels_of(scored, true) for scored, true in zip(scores.T, truth.T, strict=True)]

    def value(counts: np.ndarray | None) -> float:
        weights = np.ones(len(truth)) if counts is None else counts.astype(np.float64)
        per_class = [found for curve in curves if (found := curve(weights)) is not None]
        if not per_class:
            raise Undefined(f"map_11point: none of {len(truth)} pictures shows any class; look at the labels")
        return 100.0 * float(np.mean(per_class))

    return value


def _levels_of(scored: np.ndarray, true: np.ndarray) -> Callable[[np.ndarray], float | None]:
    """Of one class: the mean over the levels by how often each picture counts, None where no picture of it does.

    Sorted once, as an interval asks for a thousand draws; `precision_recall_curve` would sort for each.
    """
    order = np.argsort(-scored, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scored[order])), len(order) - 1)  # ties share a threshold
    hits = true[order].astype(np.float64)

    def value(weights: np.ndarray) -> float | None:
        ordered = weights[order]
        taken, right = np.cumsum(ordered)[ends], np.cumsum(ordered * hits)[ends]
        if right[-1] == 0:
            return None
        precision = right / np.maximum(taken, 1)
        best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 1.0)  # at or above each recall; then recall 0
        places = np.searchsorted(right / right[-1], LEVELS - 1e-9)
        return float(np.mean(np.where(LEVELS > 0, best[places], 1.0)))

    return value


def _roc_auc(scores: np.ndarray, labels: np.ndarray) -> Statistic:
    """Area under the ROC curve of column 1; ties count half. Give probabilities: column 1 of logits ranks otherwise.

    Ranked once, as an interval asks for a thousand draws: the share of pairs of a picture of each class in which that of class
    1 scores higher.
    """
    levels, place = np.unique(scores[:, 1], return_inverse=True)

    def value(counts: np.ndarray | None) -> float:
        weights = np.ones(len(labels)) if counts is None else counts
        ones = np.bincount(place, weights * (labels == 1), len(levels))
        zeros = np.bincount(place, weights * (labels != 1), len(levels))
        pairs = ones.sum() * zeros.sum()
        if pairs == 0:
            raise Undefined(f"roc_auc needs pictures of both classes; all {int(weights.sum())} are of one")
        below = np.cumsum(zeros) - zeros
        return 100.0 * float((ones * (below + zeros / 2)).sum() / pairs)

    return value


METRICS = {
    metric.name: metric
    for metric in (
        Metric("top1", "accuracy", False, _top1),
        Metric("mean_per_class", "mean-per-class", False, _mean_per_class),
        Metric("map_11point", "11point_mAP", True, _map_11point),
        Metric("roc_auc", "roc_auc", False, _roc_auc),
    )
}


def metric_named(name: str) -> Metric:
    """By our name or ELEVATER's (`accuracy`, `mean-per-class`, `11point_mAP`, `roc_auc`); raises ConfigError."""
    by_name = METRICS | {metric.protocol_name: metric for metric in METRICS.values()}
    if name not in by_name:
        raise ConfigError(f"no metric named {name!r}{did_you_mean(name, by_name)}; known: {', '.join(by_name)}")
    return by_name[name]

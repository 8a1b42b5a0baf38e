"""One model's numbers on one set: the metric with its interval, recall per class, calibration, agreement with the teacher."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolkit.evaluate.confidence import Comparison, compare, confidence_interval
from toolkit.evaluate.metrics import Metric

BINS = 15
"""Of confidence, of equal width (Guo et al., On Calibration of Modern Neural Networks, ICML 2017)."""


@dataclass(frozen=True)
class Outcome:
    """What a task gives for one model on one set."""

    runs: list[Tensor]
    """Probabilities [n, k] on the CPU; several where there are several seeds."""
    facts: dict[str, Any] = field(default_factory=dict)
    """More numbers of the row."""
    calibrated: Tensor | None = None
    """Probabilities at the model's own scale, where those of `runs` are not; [n, k]."""


def row_of(outcome: Outcome, labels: np.ndarray, metric: Metric) -> dict[str, Any]:
    """The row of a report; percent."""
    runs = [run.numpy() for run in outcome.runs]
    row: dict[str, Any] = asdict(confidence_interval(metric, runs, labels))
    if labels.ndim == 1:
        classes = runs[0].shape[1]
        recalls = [recall_per_class(run.argmax(axis=1), labels, classes) for run in runs]
        row["per_class"] = [None if np.isnan(value) else float(value) for value in np.mean(recalls, axis=0)]
        if len(runs) == 1:
            own = outcome.calibrated.numpy() if outcome.calibrated is not None else runs[0]
            row["calibration"] = calibration(own, labels)
        if classes > 5:
            row["top5"] = float(np.mean([top5(run, labels) for run in runs]))
    return row | outcome.facts


def difference(ours: Outcome, theirs: Outcome, labels: np.ndarray, metric: Metric) -> Comparison:
    """Of two models on the same pictures."""
    return compare(metric, [run.numpy() for run in ours.runs], [run.numpy() for run in theirs.runs], labels)


def as_json(found: Comparison) -> dict[str, float]:
    """Value, interval, and how likely a difference of this size is by chance."""
    return asdict(found.interval()) | {"p_value": found.p_value}


def recall_per_class(answers: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Percent [k]; NaN for a class without pictures."""
    shown = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[answers == labels], minlength=classes)
    with np.errstate(invalid="ignore"):
        return 100.0 * right / shown


def top5(scores: np.ndarray, labels: np.ndarray) -> float:
    """Percent of pictures whose class is among the five best."""
    best = torch.from_numpy(scores).topk(5, dim=1).indices.numpy()
    return 100.0 * float((best == labels[:, None]).any(axis=1).mean())


def calibration(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Expected calibration error in percent, and the bins that hold pictures (fractions)."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [
        {
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(right[inside].mean()),
            "share": float(inside.mean()),
        }
        for inside in (number == one for one in range(BINS))
        if inside.any()
    ]
    gap = sum(one["share"] * abs(one["accuracy"] - one["confidence"]) for one in bins)
    return {"ece": 100.0 * gap, "bins": bins}

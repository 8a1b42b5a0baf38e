"""The tasks on one set, each for one model: what it gives, from cached features."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import pstdev
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolkit.evaluate.agreement import agreement_metrics
from toolkit.evaluate.metrics import Metric
from toolkit.evaluate.probe import Labelled, ProbeResult, Settings, few_shot_rows, linear_probe, sample_few_shot_subset
from toolkit.evaluate.suite.rows import Outcome
from toolkit.evaluate.tune import TuneResult

SCALE = 100.0
"""Of ELEVATER's softmax over cosines, whatever the model's own."""
SEARCH_AT_MOST = {"patch-camelyon": 10_000}
"""Pictures per class that choose the settings, where that is not all of them."""
Report = Callable[[int], None]


@dataclass(frozen=True)
class Features:
    """One model on one set; all on the CPU."""

    head: Tensor
    """[k, e] unit vectors of the classes."""
    test: Labelled
    train: Labelled | None = None
    """None where no task trains."""
    projection: Tensor | None = None
    """[d, e], where a projection is trained with the probe: features of `train` and `probed` are then those before it."""
    probed: Labelled | None = None
    """Test pictures by the features the probe reads, where these are others."""
    scale: float = SCALE
    """The model's own."""


@dataclass(frozen=True)
class ProbeOptions:
    """What a probe is asked for."""

    metric: Metric
    classes: int
    set_name: str
    protocol: str = "elevater"
    shots: int = 0
    """Pictures per class; 0: all."""
    seeds: tuple[int, ...] = (0,)
    learning_rates: tuple[float, ...] = field(default=())
    """Empty: ELEVATER's six."""
    trial_epochs: int = 10
    final_epochs: int = 50

    def settings(self, seed: int) -> Settings:
        """Of the probe itself."""
        more: dict[str, Any] = {"learning_rates": self.learning_rates} if self.learning_rates else {}
        return Settings(self.metric, trial_epochs=self.trial_epochs, final_epochs=self.final_epochs, seed=seed, **more)


def zero_shot(features: Features, teacher: Features | None) -> Outcome:
    """Softmax over 100 x cosine, in float64: at this scale fp32 makes ties."""
    cosines = features.test.features.double() @ features.head.double().T
    facts: dict[str, Any] = {}
    if teacher is not None:
        facts = dict(agreement_metrics(features.test.features, teacher.test.features, features.head, teacher.head))
    own = (features.scale * cosines).softmax(dim=-1)
    return Outcome([(SCALE * cosines).softmax(dim=-1)], facts, own)


def probe(features: Features, options: ProbeOptions, report: Report) -> Outcome:
    """A linear probe on all training pictures, or on some per class for each seed."""
    begin = time.perf_counter()
    found = {seed: probe_once(features, options, seed, report) for seed in options.seeds}
    return outcome_of(found, options, begin)


def outcome_of(found: Mapping[int, ProbeResult | TuneResult], options: ProbeOptions, begin: float) -> Outcome:
    """Of the results by seed, begun at `begin`; settings are those of the first seed."""
    first = next(iter(found.values()))
    facts: dict[str, Any] = {
        "learning_rate": first.learning_rate,
        "weight_decay": first.weight_decay,
        "epoch": first.epoch,
        "validation": first.validation,
        "trained_params": first.parameters,
        "seconds": time.perf_counter() - begin,
        "protocol": first.label,
    }
    if isinstance(first, TuneResult):
        facts["diverged"] = first.diverged
    if options.shots:
        scores = {str(seed): one.test for seed, one in found.items()}
        facts |= {"seeds": scores, "std": pstdev(scores.values())}
    return Outcome([one.probabilities.double() for one in found.values()], facts)


def drawn(labels: Tensor, options: ProbeOptions, seed: int) -> tuple[list[int] | None, bool, list[int] | None]:
    """(the training pictures of a few-shot task, None: all; whether validation joins them; those that choose the settings)."""
    if options.shots:
        return *few_shot_rows(labels, options.shots, seed), None
    if options.set_name in SEARCH_AT_MOST:
        return None, True, sample_few_shot_subset(labels, SEARCH_AT_MOST[options.set_name], seed, allow_fewer=True)
    return None, True, None


def probe_once(features: Features, options: ProbeOptions, seed: int, report: Report) -> ProbeResult:
    """One seed."""
    assert features.train is not None
    rows, merge, search_rows = drawn(features.train.labels, options, seed)
    return linear_probe(
        features.train if rows is None else features.train.at(rows),
        features.probed or features.test,
        options.classes,
        options.settings(seed),
        protocol=options.protocol,
        text_head=features.head,
        projection=features.projection,
        search_rows=search_rows,
        merge_validation=merge,
        report=report,
    )


def labelled(features: Tensor, labels: np.ndarray) -> Labelled:
    """With labels as the probe wants them."""
    return Labelled(features, torch.from_numpy(labels.astype(np.int64)))

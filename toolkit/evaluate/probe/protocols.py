"""The two protocols: ELEVATER's, which reports the best test epoch, and a clean one that never chooses by the test set.

Both search alike (`grid.py`): a setting's score is its best epoch on a validation part of the training pictures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from toolkit.errors import ConfigError
from toolkit.evaluate.probe.features import Labelled, Start, check, start_from
from toolkit.evaluate.probe.grid import Point, search
from toolkit.evaluate.probe.split import elevater_split, random_split
from toolkit.evaluate.probe.trials import Settings, judge, run_trials, train_heads

LABELS = {
    "elevater": "ELEVATER's linear probe: the epoch is chosen on the TEST set",
    "clean": "clean linear probe: everything is chosen on validation pictures, the test set is read once",
}


@dataclass(frozen=True)
class ProbeResult:
    """One linear probe. Metrics are in percent."""

    protocol: str
    """`elevater` or `clean`."""
    metric: str
    test: float
    """The number to report; for `elevater` the best of `curve`."""
    learning_rate: float
    weight_decay: float
    epoch: int
    """Epochs trained for `test`, from 1."""
    validation: float
    """Score of the chosen setting in the search."""
    curve: list[float]
    """After each epoch of the final training: `elevater` on the test set, `clean` on the validation part."""
    tried: dict[Point, float] = field(repr=False)
    """Validation score of each setting."""
    probabilities: Tensor = field(repr=False)
    """[n, k] of the test pictures, those that gave `test`."""
    parameters: int
    """Numbers that were trained."""
    trained_projection: bool
    """Whether a projection was trained with the head, as for the paper's own students."""

    @property
    def label(self) -> str:
        """Which protocol this is, in words that belong beside the number."""
        return LABELS[self.protocol] + (", with a trained projection" if self.trained_projection else "")


def linear_probe(
    train: Labelled,
    test: Labelled,
    classes: int,
    settings: Settings,
    *,
    protocol: str = "elevater",
    text_head: Tensor | None = None,
    projection: Tensor | None = None,
    search_rows: Sequence[int] | None = None,
    merge_validation: bool = True,
    report: Callable[[int], None] = lambda trials: None,
) -> ProbeResult:
    """Search the settings, train the chosen one, judge it on the test pictures.

    `text_head` [k, e] is where the head starts. `projection` [d, e] is trained too (features are then those before it).
    `search_rows` limits the search to some training pictures (ELEVATER: 10,000 per class of PatchCamelyon); the final
    training is on all. `merge_validation=False` leaves the validation part out of it (1-shot). `report` is told how
    many trials have just ended; there are at most 15 for each learning rate. Raises ConfigError and DataError.
    """
    if protocol not in LABELS:
        raise ConfigError(f"no probe protocol {protocol!r}; known: {', '.join(LABELS)}")
    settings.check()
    if settings.metric.multi_label != train.multi_label:
        kind = "several classes" if train.multi_label else "one class"
        raise ConfigError(f"linear probe: {settings.metric.name} is not for pictures of {kind}; choose another metric")
    if search_rows is not None and not merge_validation:
        raise ConfigError("linear probe: search_rows and merge_validation=False exclude each other; leave one out")
    width = check(train, test, classes, text_head, projection)
    start = start_from(classes, width, text_head, projection, settings.seed, train.features)
    pool = train if search_rows is None else train.at(search_rows)
    rows = elevater_split(pool.labels) if protocol == "elevater" else random_split(pool.labels, settings.seed)
    fitted, held = (pool.at(part) for part in rows)
    # ELEVATER scores softmax probabilities even where a picture shows several classes and the loss is per class.
    sigmoid = train.multi_label and protocol == "clean"

    def scores(points: list[Point]) -> list[float]:
        return [max(curve) for curve in run_trials(start, points, fitted, held, settings, sigmoid, report)]

    best, tried = search(scores, settings.learning_rates)
    final = train if merge_validation else fitted
    if protocol == "elevater":
        curve, epoch, metric, probabilities = _best_epoch(start, best, final, test, settings, False)
    else:
        curve, epoch, _, _ = _best_epoch(start, best, fitted, held, settings, sigmoid)
        metric, probabilities = _last_epoch(start, best, final, test, settings, sigmoid, epoch)
    return ProbeResult(
        protocol=protocol,
        metric=settings.metric.name,
        test=metric,
        learning_rate=best.learning_rate,
        weight_decay=best.weight_decay,
        epoch=epoch,
        validation=tried[best],
        curve=curve,
        tried=tried,
        probabilities=probabilities,
        parameters=start.parameters,
        trained_projection=projection is not None,
    )


def _best_epoch(
    start: Start, point: Point, train: Labelled, judged: Labelled, settings: Settings, sigmoid: bool
) -> tuple[list[float], int, float, Tensor]:
    """(metric after each epoch, number of the first best epoch from 1, its metric, its probabilities)."""
    curve: list[float] = []
    best = (0, -1.0, torch.empty(0))
    for heads in train_heads(start, [point], train, settings, settings.final_epochs):
        metric, probabilities = judge(next(heads.logits(judged.features)), judged.labels, settings.metric, sigmoid)
        curve.append(metric)
        if metric > best[1]:
            best = (len(curve), metric, probabilities)
    return curve, *best


def _last_epoch(
    start: Start, point: Point, train: Labelled, test: Labelled, settings: Settings, sigmoid: bool, epochs: int
) -> tuple[float, Tensor]:
    """(metric, probabilities) after so many epochs; the test pictures are read here and nowhere before."""
    *_, heads = train_heads(start, [point], train, settings, epochs)
    return judge(next(heads.logits(test.features)), test.labels, settings.metric, sigmoid)

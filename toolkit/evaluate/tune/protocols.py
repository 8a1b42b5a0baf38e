"""The two protocols: ELEVATER's, which reports the best test epoch, and a clean one that never chooses by the test set.

Both search as the linear probe does: a setting's score is its best epoch on a validation part of the training pictures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from toolkit.errors import DataError
from toolkit.evaluate.probe.grid import Point
from toolkit.evaluate.probe.split import elevater_split, random_split
from toolkit.evaluate.tune.network import begin
from toolkit.evaluate.tune.pictures import TunedImages
from toolkit.evaluate.tune.progress import Meter, Progress
from toolkit.evaluate.tune.request import LABELS, check_request
from toolkit.evaluate.tune.run import Run, final_work
from toolkit.evaluate.tune.spread import together
from toolkit.evaluate.tune.training import TuneSettings


@dataclass(frozen=True)
class TuneResult:
    """One fine-tuning. Metrics are in percent."""

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
    """After each epoch of the final training: `elevater` on the test set, `clean` on the validation part; shorter than
    asked where that training diverged.
    """
    losses: list[float]
    """Mean training loss of each of these epochs."""
    tried: dict[Point, float] = field(repr=False)
    """Validation score of each setting; 0 for one that diverged."""
    diverged: int
    """Settings of the search that diverged."""
    probabilities: Tensor = field(repr=False)
    """[n, k] of the test pictures, those that gave `test`."""
    parameters: int
    """Numbers that were trained: tower and head."""
    two_lr: bool

    @property
    def label(self) -> str:
        """Which protocol this is, in words that belong beside the number."""
        return LABELS[self.protocol] + (", the tower at a tenth of the learning rate" if self.two_lr else "")


def fine_tune(
    images: TunedImages,
    classes: int,
    settings: TuneSettings,
    *,
    module_factory: Callable[[], Any],
    text_head: Tensor | None = None,
    protocol: str = "elevater",
    train_rows: Sequence[int] | None = None,
    search_rows: Sequence[int] | None = None,
    merge_validation: bool = True,
    report: Callable[[Progress], None] = lambda progress: None,
) -> TuneResult:
    """Search the settings, train tower and head with the chosen one, judge them on the test pictures. A collective.

    `module_factory` gives a module with `encode_image(normalised [b, 3, h, w]) -> [b, e]`, for a Judged
    `lambda: judged.image_module`; it is called once, and the module is copied and left as it was. It trains where it lies.
    `text_head` [k, e] is where the head starts. `train_rows` are the only training pictures used (few-shot), `search_rows`
    those that the search is limited to (ELEVATER: 10,000 per class of PatchCamelyon). `merge_validation=False` leaves the
    validation part out of the final training (1-shot). At most 15 settings per learning rate are tried, each for
    `trial_epochs`.

    The ranks share the trials; all do the final training and the first's counts, so that the result is that of one rank.
    The same seed gives the same on a CPU, and the same up to the order of the GPU's sums on a GPU. Raises ConfigError and
    DataError, the latter also where nothing trains without diverging.
    """
    check_request(images, classes, settings, protocol, train_rows, search_rows, merge_validation)
    train = images.train if train_rows is None else images.train.at(train_rows)
    pool = train if search_rows is None else train.at(search_rows)
    first_two = together(lambda: next(pool.batches([torch.arange(2)]))[0])
    beginning = begin(module_factory, first_two, classes, text_head, settings.seed, images.preprocess)
    rows = elevater_split(pool.labels) if protocol == "elevater" else random_split(pool.labels, settings.seed)
    fitted, held = (pool.at(part) for part in rows)
    final = train if merge_validation else fitted
    # As for the probe, ELEVATER scores softmax probabilities even where a picture shows several classes.
    run = Run(beginning, settings, train.multi_label and protocol == "clean", Meter(report))
    best, tried, diverged = run.searched(fitted, held, final_work(protocol, settings, fitted, held, final, images.test))
    if diverged == len(tried):
        raise DataError(
            f"fine-tune: all {diverged} settings diverged, learning rates {min(settings.learning_rates):g} to "
            f"{max(settings.learning_rates):g}; lower settings.learning_rates or look at the model's weights"
        )
    run.meter.stage = "final"
    if protocol == "elevater":
        course = run.trained(best, final, images.test)
        epoch, metric, probabilities = course.epoch, course.metric, course.probabilities
    else:
        course = run.trained(best, fitted, held)
        epoch = course.epoch
        metric, probabilities = run.judged_once(best, final, images.test, epoch)
    run.meter.end()
    return TuneResult(
        protocol=protocol,
        metric=settings.metric.name,
        test=metric,
        learning_rate=best.learning_rate,
        weight_decay=best.weight_decay,
        epoch=epoch,
        validation=tried[best],
        curve=course.curve,
        losses=course.losses,
        tried=tried,
        diverged=diverged,
        probabilities=probabilities,
        parameters=beginning.parameters,
        two_lr=settings.two_lr,
    )

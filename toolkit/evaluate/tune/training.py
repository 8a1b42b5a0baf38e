"""One setting trained and judged after every epoch: tower and head together, SGD with momentum 0.9, constant learning rate.

The tower is in train mode while it trains, as in ELEVATER: dropout, drop-path and patch dropout are active, and its BatchNorm
moves its statistics. The pictures are the evaluation views, without augmentation.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit.evaluate.probe.grid import Point
from toolkit.evaluate.probe.heads import MOMENTUM
from toolkit.evaluate.probe.trials import Settings, epoch_batches, judge
from toolkit.evaluate.tune.network import Beginning, Tuned
from toolkit.evaluate.tune.pictures import LabelledViews
from toolkit.evaluate.tune.progress import TRAINED, Meter

TWO_LR = 0.1
"""The tower's learning rate against the head's, with `two_lr`."""
CHECK_EVERY = 8
"""Steps between looks at the loss, each of which waits for the GPU."""
JUDGED_AT_ONCE = 256


@dataclass(frozen=True)
class TuneSettings(Settings):
    """How a fine-tuning trains; the defaults are ELEVATER's."""

    what: ClassVar[str] = "fine-tune"
    two_lr: bool = False
    """The tower at a tenth of the head's learning rate (ELEVATER's TWO_LR)."""


@dataclass
class Course:
    """What one training gave. Metrics are in percent."""

    curve: list[float] = field(default_factory=list)
    """After each epoch; ends where the training diverged."""
    losses: list[float] = field(default_factory=list)
    """Mean over each epoch's pictures, while it trains."""
    epoch: int = 0
    """The first best, from 1; 0: diverged in the first."""
    metric: float = -1.0
    """Of that epoch."""
    probabilities: Tensor = field(default_factory=lambda: torch.empty(0))
    """[n, k], of that epoch."""
    diverged: bool = False

    @property
    def score(self) -> float:
        """For the search: the best epoch, 0 for what diverged."""
        return 0.0 if self.diverged else self.metric


def judged_course(
    beginning: Beginning,
    point: Point,
    train: LabelledViews,
    judged: LabelledViews,
    settings: TuneSettings,
    epochs: int,
    sigmoid: bool,
    meter: Meter,
) -> Course:
    """Train, judging after every epoch; ended at once when loss or logits are no longer finite."""
    course = Course()
    for network, loss in tuned_epochs(beginning, point, train, settings, epochs, meter):
        metric, probabilities = judge(logits_of(network, judged, meter), judged.labels, settings.metric, sigmoid)
        if not bool(probabilities.isfinite().all()):
            break
        course.curve.append(metric)
        course.losses.append(loss)
        if metric > course.metric:
            course.epoch, course.metric, course.probabilities = len(course.curve), metric, probabilities
    course.diverged = len(course.curve) < epochs
    return course


def tuned_epochs(
    beginning: Beginning, point: Point, train: LabelledViews, settings: TuneSettings, epochs: int, meter: Meter
) -> Iterator[tuple[Tuned, float]]:
    """(network, mean loss) after each epoch; ends early when the loss is no longer finite.

    The same batches as a linear probe's, and the same dropout in every trial: what a trial gives depends on no other.
    """
    network = beginning.fresh()
    optimizer = optimizer_of(network, point, TWO_LR if settings.two_lr else 1.0)
    for epoch in range(epochs):
        batches = epoch_batches(len(train), settings.batch_size, settings.seed, epoch)
        with seeded(settings.seed * 1_000_003 + epoch, beginning.device):
            loss = train_epoch(network, optimizer, train, batches, meter)
        if not math.isfinite(loss):
            return
        meter.epoch()
        yield network, loss


def optimizer_of(network: Tuned, point: Point, factor: float) -> torch.optim.SGD:
    """Weight decay on every trained tensor; the tower at `factor` times the head's learning rate."""
    head: list[Tensor] = list(network.head.parameters())
    tower: list[Tensor] = [part for part in network.tower.parameters() if part.requires_grad]
    groups: list[dict[str, Any]] = [{"params": head}, {"params": tower, "lr": factor * point.learning_rate}]
    return torch.optim.SGD(groups, lr=point.learning_rate, momentum=MOMENTUM, weight_decay=point.weight_decay)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout's generators, the CPU's and the device's, seeded inside and afterwards as they were."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for one in cuda:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(seed)
        yield


def train_epoch(
    network: Tuned, optimizer: torch.optim.SGD, train: LabelledViews, batches: Sequence[Tensor], meter: Meter
) -> float:
    """Mean loss over the pictures; not finite where training diverged, which ends the epoch within a few steps."""
    network.train()
    total = torch.zeros((), dtype=torch.float64, device=network.head.weight.device)
    with torch.enable_grad():
        for step, (views, labels) in enumerate(train.batches(batches), 1):
            loss = loss_of(network(views), labels.to(total.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(views)
            meter.worked(TRAINED * len(views))
            if step % CHECK_EVERY == 0 and not bool(total.isfinite()):
                break
    return float(total) / len(train)


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy; binary cross-entropy where a picture may show several classes."""
    if labels.ndim == 2:
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)


@torch.no_grad()
def logits_of(network: Tuned, judged: LabelledViews, meter: Meter) -> Tensor:
    """[n, k] on the CPU, in eval mode."""
    network.eval()
    found = []
    for views, _ in judged.batches(torch.arange(len(judged)).split(JUDGED_AT_ONCE)):
        found.append(network(views).cpu())
        meter.worked(len(views))
    return torch.cat(found)

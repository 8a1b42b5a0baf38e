"""Many linear heads trained side by side on the same batches, each with its own learning rate and weight decay.

A head is BatchNorm without affine, then a linear layer; SGD with momentum 0.9 at a constant learning rate, weight decay on
every trained tensor, cross-entropy (binary cross-entropy with several classes per picture). Nothing passes between heads:
each gives what it would give alone, to rounding.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from toolkit.evaluate.probe.features import Start
from toolkit.evaluate.probe.grid import Point

MOMENTUM = 0.9
NORM_EPS, NORM_MOMENTUM = 1e-5, 0.1
"""Those of torch's BatchNorm."""


@runtime_checkable
class Heads(Protocol):
    """T heads in training."""

    def step(self, features: Tensor, labels: Tensor) -> None:
        """One SGD step of every head on a batch [b, d]."""
        ...

    def logits(self, features: Tensor) -> Iterator[Tensor]:
        """[n, k] of each head in turn, with the running statistics of its BatchNorm."""
        ...

    def finite(self) -> Tensor:
        """[T]: False for a head that has diverged; it never comes back."""
        ...

    def keep(self, chosen: Tensor) -> None:
        """Go on with these heads only; `chosen` is [T], bool."""
        ...


def build_heads(start: Start, points: Sequence[Point]) -> Heads:
    """One head per point, all from the same start."""
    return FrozenHeads(start, points) if start.projection is None else ProjectedHeads(start, points)


class FrozenHeads:
    """Heads on fixed features: their BatchNorm sees the same batches, so one serves all, and a step is two products."""

    def __init__(self, start: Start, points: Sequence[Point]) -> None:
        width = start.weight.shape[1]
        self.weight = start.weight.repeat(len(points), 1, 1)
        self.bias = start.bias.repeat(len(points), 1)
        self.weight_velocity, self.bias_velocity = torch.zeros_like(self.weight), torch.zeros_like(self.bias)
        self.rate, self.decay = _columns(points, start.weight)
        self.mean, self.variance = start.weight.new_zeros(width), start.weight.new_ones(width)

    @torch.no_grad()
    def step(self, features: Tensor, labels: Tensor) -> None:
        """The gradient of the logits by hand; the momentum is taken over inside the product that makes the gradient."""
        heads, classes, width = self.weight.shape
        seen = F.batch_norm(features, self.mean, self.variance, training=True, momentum=NORM_MOMENTUM, eps=NORM_EPS)
        flat = torch.addmm(self.bias.view(-1), seen, self.weight.view(-1, width).T)
        slope = logit_gradient(flat.view(-1, heads, classes), labels).view(-1, heads * classes)
        self.weight_velocity.view(-1, width).addmm_(slope.T, seen, beta=MOMENTUM)
        self.bias_velocity.mul_(MOMENTUM).add_(slope.sum(dim=0).view(heads, classes))
        for value, velocity in ((self.weight, self.weight_velocity), (self.bias, self.bias_velocity)):
            shape = (-1,) + (1,) * (value.ndim - 1)
            velocity.addcmul_(value, self.decay.view(shape))
            value.addcmul_(velocity, self.rate.view(shape), value=-1)

    def logits(self, features: Tensor) -> Iterator[Tensor]:
        """Normalised once for all heads."""
        seen = F.batch_norm(features, self.mean, self.variance, training=False, eps=NORM_EPS)
        for weight, bias in zip(self.weight, self.bias, strict=True):
            yield torch.addmm(bias, seen, weight.T)

    def finite(self) -> Tensor:
        """By the sum of a head's weights: it is finite only where each of them is."""
        return (self.weight.sum(dim=(1, 2)) + self.bias.sum(dim=1)).isfinite()

    def keep(self, chosen: Tensor) -> None:
        """Shrink every tensor that has a row per head."""
        for name in ("weight", "bias", "weight_velocity", "bias_velocity", "rate", "decay"):
            setattr(self, name, getattr(self, name)[chosen].contiguous())


def logit_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Of each head's mean loss by its logits [b, T, k], in place of them; labels [b], or 0/1 [b, k]."""
    rows, heads, classes = logits.shape
    if labels.ndim == 2:
        return logits.sigmoid_().sub_(labels.to(logits.dtype)[:, None, :]).mul_(1 / (rows * classes))
    slope = torch.softmax(logits, dim=-1)
    slope.scatter_add_(
        2, labels.view(-1, 1, 1).expand(-1, heads, 1), slope.new_full((1, 1, 1), -1).expand(rows, heads, 1)
    )
    return slope.mul_(1 / rows)


class ProjectedHeads:
    """Heads behind a projection that is trained with them: unit(h @ projection), then as above, each with its own BatchNorm."""

    def __init__(self, start: Start, points: Sequence[Point]) -> None:
        assert start.projection is not None
        width = start.weight.shape[1]
        parts = (start.projection, start.weight, start.bias)
        self.values = [part.repeat(len(points), *(1,) * part.ndim).requires_grad_() for part in parts]
        self.velocities = [torch.zeros_like(value) for value in self.values]
        self.rate, self.decay = _columns(points, start.weight)
        self.mean = start.weight.new_zeros(len(points), width)
        self.variance = start.weight.new_ones(len(points), width)

    def step(self, features: Tensor, labels: Tensor) -> None:
        """Autograd over all heads at once: the sum of their losses leaves each its own gradient."""
        projection, weight, bias = self.values
        heads, classes, width = weight.shape
        embedded = F.normalize(torch.matmul(features, projection), dim=-1).transpose(0, 1).reshape(-1, heads * width)
        seen = F.batch_norm(
            embedded, self.mean.view(-1), self.variance.view(-1), training=True, momentum=NORM_MOMENTUM, eps=NORM_EPS
        )
        logits = torch.baddbmm(bias[:, None, :], seen.view(-1, heads, width).transpose(0, 1), weight.transpose(1, 2))
        if labels.ndim == 2:
            truth = labels.to(logits.dtype).expand_as(logits)
            loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="sum") / (len(features) * classes)
        else:
            truth = labels.repeat(heads)
            loss = F.cross_entropy(logits.reshape(-1, classes), truth, reduction="sum") / len(features)
        slopes = torch.autograd.grad(loss, self.values)
        with torch.no_grad():
            for value, velocity, slope in zip(self.values, self.velocities, slopes, strict=True):
                shape = (-1,) + (1,) * (value.ndim - 1)
                velocity.mul_(MOMENTUM).add_(slope).addcmul_(value, self.decay.view(shape))
                value.addcmul_(velocity, self.rate.view(shape), value=-1)

    def logits(self, features: Tensor) -> Iterator[Tensor]:
        """A head at a time, so that memory is that of one."""
        values = [value.detach() for value in self.values]
        for projection, weight, bias, mean, variance in zip(*values, self.mean, self.variance, strict=True):
            embedded = F.normalize(features @ projection, dim=-1)
            seen = F.batch_norm(embedded, mean, variance, training=False, eps=NORM_EPS)
            yield torch.addmm(bias, seen, weight.T)

    def finite(self) -> Tensor:
        """By the sum of a head's numbers."""
        return sum((value.detach().flatten(1).sum(dim=1) for value in self.values), self.rate * 0).isfinite()

    def keep(self, chosen: Tensor) -> None:
        """Shrink every tensor that has a row per head."""
        self.values = [value.detach()[chosen].requires_grad_() for value in self.values]
        self.velocities = [velocity[chosen] for velocity in self.velocities]
        for name in ("rate", "decay", "mean", "variance"):
            setattr(self, name, getattr(self, name)[chosen].contiguous())


def _columns(points: Sequence[Point], like: Tensor) -> tuple[Tensor, Tensor]:
    """Learning rates and weight decays [T]."""
    return (
        like.new_tensor([point.learning_rate for point in points]),
        like.new_tensor([point.weight_decay for point in points]),
    )

"""Sharpness of softmax(scale * cosines) over the rows of a similarity matrix, and the temperature with a given entropy."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

BAND = 2**22
"""Similarities that are held at a time, times four or so."""
RANGE = (0.05, 50.0)
"""Temperatures that are searched."""
CLOSE = 1e-4
"""Nats at which a search is done."""


class Sharpness(NamedTuple):
    """Means over the rows."""

    entropy: float
    """In nats: 0 where each row has one match, ln(columns) where all are alike."""
    top1: float
    """Probability of the likeliest column."""

    @property
    def matches(self) -> float:
        """exp(entropy): how many columns share the probability."""
        return math.exp(self.entropy)


@torch.no_grad()
def sharpness(rows: Float[Tensor, "n e"], columns: Float[Tensor, "m e"], scales: Sequence[float]) -> list[Sharpness]:
    """One for each of the scales, which multiply the cosines; the diagonal is kept, as in the losses."""
    sums = torch.zeros(len(scales), 2, dtype=torch.float64, device=rows.device)
    for band in rows.split(max(1, BAND // len(columns))):
        cosines = band @ columns.T
        below = cosines - cosines.amax(1, keepdim=True)  # the largest logit is 0, so its weight is 1
        for number, scale in enumerate(scales):
            logits = below * scale
            weights = logits.exp()
            total = weights.sum(1)
            entropies = total.log() - weights.mul_(logits).sum(1) / total
            sums[number] += torch.stack([entropies.double().sum(), total.double().reciprocal().sum()])
    return [Sharpness(entropy, top1) for entropy, top1 in (sums / len(rows)).tolist()]


def temperature_with(
    entropy: float, rows: Float[Tensor, "n e"], columns: Float[Tensor, "m e"], scale: float
) -> tuple[float, Sharpness]:
    """The temperature in RANGE whose mean entropy comes closest to `entropy`, and its sharpness.

    Bisection of the logarithm: entropy rises with temperature. An end of RANGE where the entropy lies outside.
    """
    low, high = map(math.log, RANGE)
    at_low, at_high = sharpness(rows, columns, [scale / RANGE[0], scale / RANGE[1]])
    if entropy <= at_low.entropy:
        return RANGE[0], at_low
    if entropy >= at_high.entropy:
        return RANGE[1], at_high
    for _ in range(40):
        temperature = math.exp((low + high) / 2)
        (found,) = sharpness(rows, columns, [scale / temperature])
        if abs(found.entropy - entropy) < CLOSE:
            break
        if found.entropy < entropy:
            low = math.log(temperature)
        else:
            high = math.log(temperature)
    return temperature, found

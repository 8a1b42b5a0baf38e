"""What multiplies cosines: a model's own logit scale, or one that a loss learns."""

import math

import torch
from torch import Tensor, nn

from toolkit.embeddings import Embeddings

MAX_LOG_SCALE = math.log(100)


def scale_of(model: Embeddings, fallback: float = 100.0) -> float | Tensor:
    """The model's logit scale (already exponentiated), `fallback` where it has none."""
    return fallback if model.logit_scale is None else model.logit_scale


class LearnableScale(nn.Module):
    """exp of a parameter of shape (1,), at most 100; the bound is straight-through, so the scale can come back."""

    def __init__(self, initial: float) -> None:
        """`initial` is what the scale starts at, not its logarithm."""
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((1,), math.log(initial)))

    def forward(self, like: Tensor) -> Tensor:
        """The scale, in the dtype of `like`."""
        raw = self.log_scale
        return (raw + (raw.clamp(max=MAX_LOG_SCALE) - raw).detach()).exp().to(like.dtype)

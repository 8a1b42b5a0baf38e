"""What multiplies cosines: a model's own logit scale, or one that a loss learns."""

import math

import torch
from torch import Tensor, nn

from toolkit.embeddings import Embeddings

MAX_LOG_SCALE = math.log(100)


def scale_of(model: Embeddings, teacher: Embeddings | None = None, fallback: float = 100.0) -> float | Tensor:
    """The model's logit scale (already exponentiated); a student without one takes its teacher's, else `fallback`."""
    if model.logit_scale is not None:
        return model.logit_scale
    return fallback if teacher is None or teacher.logit_scale is None else teacher.logit_scale.detach()


def bias_of(model: Embeddings, teacher: Embeddings | None = None, fallback: float = 0.0) -> float | Tensor:
    """The same for the bias of sigmoid models."""
    if model.logit_bias is not None:
        return model.logit_bias
    return fallback if teacher is None or teacher.logit_bias is None else teacher.logit_bias.detach()


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

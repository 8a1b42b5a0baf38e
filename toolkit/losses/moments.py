"""Running mean and variance of the teacher's features, the same on all ranks."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Moments(nn.Module):
    """Mean and variance (population) per dimension over the global batches seen in training mode.

    Batches are merged exactly: the result is that of all rows at once. With `momentum` the share of a new batch does not
    fall below it, which makes an exponential average that starts exact. In eval mode nothing is changed; where nothing has
    been seen, the batch at hand stands in.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, width: int, momentum: float = 0.0) -> None:
        """`momentum` is the weight of the newest batch, 0: all batches count alike."""
        super().__init__()
        self.momentum = momentum
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.zeros(width))

    @torch.no_grad()
    def forward(self, rows: Float[Tensor, "n e"]) -> tuple[Float[Tensor, " e"], Float[Tensor, " e"]]:
        """Mean and variance with these rows of all ranks (`exchange.gather`) taken in; in eval mode those before."""
        count = self.count.double()
        if self.training:
            share = (len(rows) / (count + len(rows))).clamp_min(self.momentum)
        else:
            share = (count == 0).double()
        share = share.to(rows.dtype)
        before, variance = self.mean.to(rows.dtype), self.variance.to(rows.dtype)
        step = rows.mean(0) - before
        variance = variance + share * (rows.var(0, unbiased=False) - variance) + share * (1 - share) * step.square()
        mean = before + share * step
        if self.training:
            self.mean.copy_(mean)
            self.variance.copy_(variance)
            self.count += len(rows)
        return mean, variance

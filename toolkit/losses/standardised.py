"""Feature matching that counts every dimension, or every teacher, alike (agglomerative models)."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from toolkit.embeddings import LOCAL, Embeddings, Exchange
from toolkit.losses.dime import needed
from toolkit.losses.moments import Moments

SMALLEST_VARIANCE = 1e-6
"""Added to the variance of a dimension; unit vectors of width 768 have 1e-3 on average."""


class CosSmoothL1(nn.Module):
    """`cosine_weight` (1 - cos(z, v)) + `l1_weight` smoothL1(z, v), both means over samples, the latter also over the width.

    0 when student equals teacher. smoothL1(d) = d^2 / (2 beta) below beta, else |d| - beta/2; beta 0 is L1. With
    `standardise` z and v are first brought to mean 0 and variance 1 per dimension with the teacher's statistics over the
    global batches: `running` counts all alike, `ema` gives the newest batch at least the share `momentum`. Those works let a
    head predict the standardised features; here the student stays in the teacher's space, so both get the same map.
    No scale, no temperature.

    Sources: Theia (CoRL 2024) .9/.1 with fixed statistics; SAK (ICLR 2025) .9/.1, L1, plain; UNIC (ECCV 2024) .5/.5 with
    ema, its momentum falling from 1 to 0.001 by a cosine (here as 1/step down to 0.001).
    """

    needs = frozenset({"teacher"})
    built_with = frozenset({"embed_dim"})

    def __init__(
        self,
        embed_dim: int,
        cosine_weight: float = 0.9,
        l1_weight: float = 0.1,
        beta: float = 1.0,
        standardise: Literal["none", "running", "ema"] = "running",
        momentum: float = 0.001,
    ) -> None:
        """`embed_dim` is the teacher's width."""
        super().__init__()
        self.cosine_weight, self.l1_weight, self.beta = cosine_weight, l1_weight, beta
        self.moments = None
        if standardise != "none":
            self.moments = Moments(embed_dim, momentum if standardise == "ema" else 0.0)

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs student.image and teacher.image."""
        z, v = needed(student.image), needed(teacher.image).detach()
        if self.moments is not None:
            mean, variance = self.moments(exchange.gather(needed(teacher.image)).detach())
            spread = (variance + SMALLEST_VARIANCE).sqrt()
            z, v = (z - mean) / spread, (v - mean) / spread
        cosine = 1 - F.cosine_similarity(z, v, dim=-1).mean()
        return self.cosine_weight * cosine + self.l1_weight * F.smooth_l1_loss(z, v, beta=self.beta)


class PhiS(nn.Module):
    """Mean over samples of |z - v|^2 / total variance of the teacher: the fraction of its variance not explained.

    0 when student equals teacher, about 1 for a student that always gives the teacher's mean. This is RADIO's PHI-S before
    the MSE: y = H U' (x - mu) / sqrt(mean eigenvalue of the covariance), U its eigenvectors, H a Hadamard matrix / sqrt(e).
    H U' is an isometry and mu cancels, so that the mean over the width of (y_z - y_v)^2 is |z - v|^2 / (e * mean eigenvalue),
    and e times the mean eigenvalue is the total variance; neither rotation needs computing. The variance is over the rows of
    all global batches seen so far, where theirs is estimated before training. No scale, no temperature. PHI-S (ICLR 2025).
    """

    needs = frozenset({"teacher"})
    built_with = frozenset({"embed_dim"})

    def __init__(self, embed_dim: int) -> None:
        """`embed_dim` is the teacher's width."""
        super().__init__()
        self.moments = Moments(embed_dim)

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs student.image and teacher.image."""
        z, v = needed(student.image), needed(teacher.image).detach()
        _, variance = self.moments(exchange.gather(needed(teacher.image)).detach())
        return (z - v).square().sum(-1).mean() / variance.sum().clamp_min(SMALLEST_VARIANCE)

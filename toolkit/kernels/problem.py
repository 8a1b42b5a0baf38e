"""What a similarity-KL is asked and what it answers, whoever computes it."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from toolkit.embeddings import Exchange


class Target(NamedTuple):
    """One teacher: `rows` [b, d] of this rank, `columns` [n, d] of all ranks, and what multiplies their cosines."""

    rows: Tensor
    columns: Tensor
    logit_scale: float | Tensor


@dataclass(frozen=True)
class Problem:
    """What `similarity_kl` was asked, detached; see there. No target: labels on the diagonal of the global batch."""

    rows: Tensor
    columns: Tensor
    scale: float | Tensor
    targets: tuple[Target, ...]
    both: bool
    exchange: Exchange
    want_rows: bool
    want_columns: bool

    @property
    def dtype(self) -> torch.dtype:
        """float64 for float64, else fp32."""
        return torch.float64 if self.rows.dtype == torch.float64 else torch.float32

    @property
    def row_weight(self) -> float:
        """Share of one row in this rank's value."""
        return 1.0 / len(self.rows)

    @property
    def column_weight(self) -> float:
        """Share of one column; times the ranks, since each holds only its rows' part and values are averaged over ranks."""
        return self.exchange.world / len(self.columns)

    @property
    def first_label(self) -> int:
        """Column of this rank's row 0 where the labels lie on the diagonal of the global batch."""
        return self.exchange.rank * len(self.rows)


class Gradients(NamedTuple):
    """The value (0-d) and its gradients in the working dtype, where they were asked for."""

    value: Tensor
    rows: Tensor | None
    columns: Tensor | None

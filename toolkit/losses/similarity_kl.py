"""The one primitive: KL between a teacher's and a student's similarity matrix, without ever holding one of them."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from toolkit.embeddings import LOCAL, Exchange
from toolkit.kernels import Gradients, Problem, Target, solve
from toolkit.losses.observe import note


class Labels:
    """Hard targets instead of a teacher: row i of the global batch belongs to column i."""


def similarity_kl(
    rows: Float[Tensor, "b e"],
    columns: Float[Tensor, "n e"],
    targets: Target | Sequence[Target] | Labels,
    *,
    logit_scale: float | Tensor,
    both: bool = False,
    exchange: Exchange = LOCAL,
) -> Float[Tensor, ""]:
    """Mean over rows of KL(P || Q), P = softmax_j(s_t A_t B_t'), Q = softmax_j(`logit_scale` `rows` `columns`').

    `both` adds the mean over columns of the same with softmax_i. Several targets are averaged after their softmax, per
    direction; `Labels()` puts P on the diagonal, which makes it InfoNCE. Zero where Q = P. Gradient flows to rows, columns
    and a `logit_scale` that is a tensor, never to a target. fp32 inside, products accumulated in fp32, float64 for float64.

    Rows are this rank's, columns those of all ranks (`exchange.gather`; equally many rows on every rank). What each form
    moves per step and rank, besides its columns, with n columns of width e in fp32:
      * columns without gradient (teacher features): the gather alone, 4ne bytes received;
      * columns with gradient (student features): 4ne more, in the summing reduce-scatter of the backward;
      * `both`: 8n bytes (log-sum-exps of this rank's shard of each column, teacher's and student's) instead of the other
        modality's 4ne twice, because the columns' direction is computed from the same tiles, where its rows already lie.
    Memory beyond the gradients is a tile, not rows x columns. Gradients are computed in the forward pass, exactly, where
    the tile is at hand, so the backward pass only scales them. On CUDA the Triton kernel of toolkit/kernels computes the
    same for one target, its products with 16-bit factors and fp32 accumulation; torch in bands serves everything else.
    """
    chosen = () if isinstance(targets, Labels) else (targets,) if isinstance(targets, Target) else tuple(targets)
    fixed = tuple(Target(t.rows.detach(), t.columns.detach(), fixed_scale(t.logit_scale)) for t in chosen)
    note(rows, columns, fixed, logit_scale)
    return _SimilarityKL.apply(rows, columns, logit_scale, fixed, both, exchange)


class _SimilarityKL(torch.autograd.Function):
    """Value and gradients in one go; the backward pass multiplies by what comes from above."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        columns: Tensor,
        scale: float | Tensor,
        targets: tuple[Target, ...],
        both: bool,
        exchange: Exchange,
    ) -> Tensor:
        """`targets` empty: labels on the diagonal."""
        wanted = ctx.needs_input_grad
        problem = Problem(
            rows.detach(), columns.detach(), fixed_scale(scale), targets, both, exchange,
            want_rows=wanted[0] or wanted[2], want_columns=wanted[1],
        )  # fmt: skip
        found: Gradients = solve(problem)
        by_scale = None
        if wanted[2]:
            assert found.rows is not None and isinstance(scale, Tensor)
            by_scale = ((found.rows * problem.rows).sum() / problem.scale).to(scale.dtype).reshape(scale.shape)
        if columns is rows and found.rows is not None and found.columns is not None:
            # udist on one rank: one gradient to keep until the backward pass instead of two
            found = found._replace(rows=found.rows.add_(found.columns), columns=None)
        ctx.save_for_backward(found.rows if wanted[0] else None, found.columns, by_scale)
        ctx.dtypes = rows.dtype, columns.dtype
        return found.value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Times the gradient of what was made of the value."""
        rows, columns, scale = ctx.saved_tensors
        above = grads[0]
        return (
            None if rows is None else (rows * above).to(ctx.dtypes[0]),
            None if columns is None else (columns * above).to(ctx.dtypes[1]),
            None if scale is None else scale * above.to(scale),
            None,
            None,
            None,
        )


def fixed_scale(scale: float | Tensor) -> float | Tensor:
    """A scale without gradient."""
    return scale.detach() if isinstance(scale, Tensor) else scale

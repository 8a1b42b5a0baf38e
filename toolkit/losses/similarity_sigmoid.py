"""Soft SigLIP: a sigmoid cross-entropy for every image-text similarity, without ever holding all of them."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from toolkit.kernels import Target
from toolkit.losses.bands import bands


def similarity_sigmoid(
    rows: Float[Tensor, "b e"],
    columns: Float[Tensor, "n e"],
    target: Target,
    target_bias: float | Tensor,
    *,
    logit_scale: float | Tensor,
    logit_bias: float | Tensor,
) -> Float[Tensor, ""]:
    """Mean over rows of -sum_j log sigmoid(y_ij z_ij), z = `logit_scale` `rows` `columns`' + `logit_bias`, y = 2 sigmoid(z_t) - 1.

    z_t is made of the target in the same way. Rows are this rank's, columns those of all ranks (`exchange.gather`). Gradient
    flows to rows, columns, and to a scale and a bias that are tensors, never to the target. It is computed in the forward
    pass, exactly, where the band of rows is at hand; the backward pass only scales it. fp32 inside, float64 for float64.
    """
    fixed = [x.detach() if isinstance(x, Tensor) else x for x in (*target, target_bias)]
    return _SimilaritySigmoid.apply(rows, columns, logit_scale, logit_bias, fixed)  # type: ignore[no-any-return, unused-ignore]


class _SimilaritySigmoid(torch.autograd.Function):
    """Value and gradients in one go; the backward pass multiplies by what comes from above."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, scale: float | Tensor, bias: float | Tensor, target: list[Any]
    ) -> Tensor:
        """`target`: rows, columns, scale and bias of the teacher."""
        dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
        z, y = rows.to(dtype), columns.to(dtype)
        v, t, target_scale, target_bias = target
        v, t = v.to(dtype), t.to(dtype)
        value, by_bias = z.new_zeros(()), z.new_zeros(())
        want_columns = ctx.needs_input_grad[1]
        by_rows, by_columns = torch.empty_like(z), torch.zeros_like(y) if want_columns else None
        for band in bands(z, y):
            labels = ((v[band] @ t.T * target_scale + target_bias) / 2).tanh_().to(dtype)  # 2 sigmoid(x) - 1
            margins = (z[band] @ y.T * scale + bias).to(dtype).mul_(labels)
            value -= F.logsigmoid(margins).sum()
            by_logits = margins.neg_().sigmoid_().mul_(labels).neg_()
            by_bias += by_logits.sum()
            by_rows[band] = by_logits @ y
            if by_columns is not None:
                by_columns.addmm_(by_logits.T, z[band])
        share = 1 / len(rows)
        by_scale = (by_rows * z).sum() * share
        ctx.save_for_backward(
            (by_rows * scale * share).to(rows.dtype),
            None if by_columns is None else (by_columns * scale * share).to(columns.dtype),
            by_scale.to(scale.dtype).reshape(scale.shape) if isinstance(scale, Tensor) else None,
            (by_bias * share).to(bias.dtype).reshape(bias.shape) if isinstance(bias, Tensor) else None,
        )
        return value * share

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Times the gradient of what was made of the value."""
        found = (None if saved is None else (saved * grads[0]).to(saved.dtype) for saved in ctx.saved_tensors)
        return (*found, None)

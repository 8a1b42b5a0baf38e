"""What a frozen tower may do faster on a CPU: attention without copies of its weights.

`torch.nn.MultiheadAttention` on CPUs (2.15) copies its input weights for every row of the batch where they need no gradient:
94 % of the time of a bf16 CLIP text tower. The same numbers from `scaled_dot_product_attention` take a tenth of that.
"""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


def quicken(module: nn.Module) -> int:
    """Replace the forward of every plain attention layer; returns how many. For evaluation only: no dropout."""
    found = [layer for layer in module.modules() if isinstance(layer, nn.MultiheadAttention) and is_plain(layer)]
    for layer in found:
        setattr(layer, "forward", Attention(layer, layer.forward))  # noqa: B010  a callable of another type
    return len(found)


def unquicken(module: nn.Module) -> int:
    """Give such layers their own forward back, for a copy that is to train (dropout); returns how many."""
    found = [layer for layer in module.modules() if isinstance(layer.__dict__.get("forward"), Attention)]
    for layer in found:
        del layer.forward
    return len(found)


def is_plain(layer: nn.MultiheadAttention) -> bool:
    """Self-attention over one width, with nothing added to keys and values."""
    return layer.in_proj_weight is not None and layer.bias_k is None and not layer.add_zero_attn


class Attention:
    """Stands for `layer.forward`; whatever it does not know goes to the usual one."""

    def __init__(self, layer: nn.MultiheadAttention, usual: Callable[..., Any]) -> None:
        """`usual` is the layer's own forward."""
        self.layer, self.usual = layer, usual

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, **more: Any) -> tuple[Tensor, Tensor | None]:
        """As nn.MultiheadAttention's, with need_weights=False: (features, None)."""
        mask = more.get("attn_mask")
        known = more.keys() <= {"need_weights", "attn_mask"} and not more.get("need_weights", True)
        if (
            not known
            or query is not key
            or key is not value
            or query.dim() != 3
            or (mask is not None and mask.dim() != 2)
        ):
            found: tuple[Tensor, Tensor | None] = self.usual(query, key, value, **more)
            return found
        layer = self.layer
        rows = query if layer.batch_first else query.transpose(0, 1)
        b, l, e = rows.shape
        heads = F.linear(rows, layer.in_proj_weight, layer.in_proj_bias).view(b, l, 3, layer.num_heads, layer.head_dim)
        if mask is not None and mask.is_floating_point():
            mask = mask.to(rows.dtype)
        elif mask is not None:
            mask = ~mask  # here True means: look at it
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        found_rows = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        joined = F.linear(found_rows.transpose(1, 2).reshape(b, l, e), layer.out_proj.weight, layer.out_proj.bias)
        return (joined if layer.batch_first else joined.transpose(0, 1)), None

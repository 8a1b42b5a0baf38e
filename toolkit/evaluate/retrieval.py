"""Image-text retrieval: recall at 1, 5 and 10, both ways."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from toolkit.evaluate.zero_shot import percent

ROWS = 1024
"""Queries scored at a time, so that memory stays flat on large sets."""


def retrieval_metrics(
    image_features: Float[Tensor, "n e"], text_features: Float[Tensor, "n e"], captions: Sequence[str]
) -> dict[str, float]:
    """`image_to_text_r1` ... `text_to_image_r10` in percent, for row i of both belonging together.

    Equal captions count as one: whichever of their pictures (or copies of the text) is found is right.
    """
    number_of = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    group = torch.tensor([number_of[caption] for caption in captions], device=image_features.device)
    metrics: dict[str, float] = {}
    for name, queries, gallery in (
        ("image_to_text", image_features, text_features),
        ("text_to_image", text_features, image_features),
    ):
        rank = torch.cat(
            [
                rank_of_first_hit(queries[i : i + ROWS], gallery, group[i : i + ROWS], group)
                for i in range(0, len(queries), ROWS)
            ]
        )
        metrics |= {f"{name}_r{k}": percent(rank < k) for k in (1, 5, 10)}
    return metrics


def rank_of_first_hit(queries: Tensor, gallery: Tensor, wanted: Tensor, group: Tensor) -> Tensor:
    """How many gallery entries of other groups score at least as high as the best right one (ties count against)."""
    scores = queries @ gallery.T
    right = wanted[:, None] == group[None, :]
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return ((scores >= best) & ~right).sum(dim=1)

"""Sample pictures with predictions, for the report."""

import base64
from typing import Any

import numpy as np
from torch import Tensor

from toolkit.evaluate.sets import IMAGES, EvalData

THUMBNAIL = 128
"""Longest side in pixels of a picture in the report."""


def picture_grid(
    data: EvalData, classnames: list[str], labels: list[int], scored: dict[str, Tensor], count: int
) -> list[dict[str, Any]]:
    """`count` pictures drawn from the set, the same each time: PNG as base64, true class, and each model's three best with probability."""
    chosen = sorted(np.random.default_rng(0).permutation(len(data))[:count].tolist())
    return [
        {
            "png": thumbnail(data, index),
            "truth": classnames[labels[index]],
            **{who: best_three(probabilities[index], classnames) for who, probabilities in scored.items()},
        }
        for index in chosen
    ]


def best_three(probabilities: Tensor, classnames: list[str]) -> list[list[Any]]:
    """[[class name, probability], ...], best first."""
    top = probabilities.topk(min(3, len(classnames)))
    return [[classnames[i], round(p, 4)] for p, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)]


def thumbnail(data: EvalData, index: int) -> str:
    """A sample's picture as base64 PNG, large ones shrunk."""
    import io

    from toolkit.data.images import decode_image
    from toolkit.evaluate.sets import MAX_PIXELS

    number, row = data.places[index]
    shard = data.shards[number]
    extension = shard.extension_of(row, IMAGES)
    assert extension is not None
    image = decode_image(shard.read(row, extension), MAX_PIXELS)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()

"""Bytes of shards and stores, cores for decoding, and energy."""

import math
from typing import Any

from toolkit.estimate.plan import JPEG_BYTES_PER_PIXEL, Wishes

ASPECT = 1.5
"""Long side over short side of a photograph: an assumption."""
SENTENCE_BYTES = 60
"""Of one sentence: an assumption; a tar gives it two blocks of 512 either way."""
KEY_BYTES = 10
"""Of one key in a store, with its separator."""
CROP_BYTES = 20
"""Where a view's crop is recorded."""
MILLION = 1_000_000
ROW_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
"""Of one number in a store, by `dime embed --store-as`."""
CORE_RATES = {"stored": 723.0, "live": 351.0}
"""Images per second of one core at short side 256, without and with a live teacher's view (benchmarks/results/data_cpu2_202611.md)."""
HOST_SHARE = 0.35
"""Power of processors, memory, network and fans of a node over that of its GPUs: an assumption."""


def tar_bytes(content: float) -> float:
    """One member: a header, and its content in blocks of 512."""
    return 512.0 + 512 * math.ceil(content / 512)


def shard_sizes(wishes: Wishes) -> dict[str, float]:
    """Bytes of one picture and one sentence in a shard."""
    pixels = wishes.short_side**2 * ASPECT
    return {
        "image_bytes": tar_bytes(pixels * JPEG_BYTES_PER_PIXEL[wishes.jpeg_quality]),
        "sentence_bytes": tar_bytes(float(SENTENCE_BYTES)),
    }


def row_bytes(width: int, store_as: str, views: int = 1) -> float:
    """One sample in a store: rows, int8's scales, crops where several views are recorded, its key."""
    view = width * ROW_BYTES[store_as] + (4 if store_as == "int8" else 0) + (CROP_BYTES if views > 1 else 0)
    return float(view * views + KEY_BYTES)


def storage(wishes: Wishes, widths: tuple[int, ...], reads_text: bool) -> dict[str, Any]:
    """Of the shards, and of every teacher's store in each dtype."""
    images, sentences = wishes.images or MILLION, wishes.sentences or wishes.images or MILLION
    shards = shard_sizes(wishes)
    return {
        "images": images,
        "sentences": sentences if reads_text else 0,
        "assumed": wishes.images is None,
        **shards,
        "image_shards_bytes": images * shards["image_bytes"],
        "text_shards_bytes": sentences * shards["sentence_bytes"] if reads_text else 0.0,
        "views": wishes.views,
        "stores": {
            dtype: sum(
                images * row_bytes(width, dtype, wishes.views)
                + (sentences * row_bytes(width, dtype) if reads_text else 0)
                for width in widths
            )
            for dtype in ROW_BYTES
        },
    }


def core_rate(wishes: Wishes, live_teacher: bool) -> float:
    """Training views that one core makes per second."""
    return wishes.images_per_second_per_core or CORE_RATES["live" if live_teacher else "stored"]


def energy_kwh(gpu_hours: float, watts: float, pue: float) -> float:
    """Of GPUs at their power limit, their hosts and the building."""
    return gpu_hours * watts * (1 + HOST_SHARE) * pue / 1000

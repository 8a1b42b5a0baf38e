"""Sizes and boxes of pictures, without their pixels: the frame that crops refer to, and how a crop is drawn."""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Crop(NamedTuple):
    """A box of a shrunk picture in pixels, and whether it is mirrored: all that chance decides about a view."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


def crop_of(row: Tensor) -> Crop:
    """From how it is stored, int32 [5]."""
    top, left, height, width, flip = row.tolist()
    return Crop(top, left, height, width, bool(flip))


def frame_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height that crops refer to: DIME-FM brings pictures larger than 256 to a short side of 256 (in proportion for
    views of another `side` than 224). It follows from the size of the original alone, however that is decoded.
    """
    short = round(side * 256 / 224)
    return short_side_to(short, size) if min(size) > short else size


def short_side_to(short: int, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height with that short side, the other rounded down, as torchvision does."""
    long = int(short * max(size) / min(size))
    return (short, long) if size[0] <= size[1] else (long, short)


def area(size: tuple[int, int]) -> int:
    """Pixels."""
    return size[0] * size[1]


def draw_box(
    width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """top, left, height, width; after ten boxes that stick out, the largest in the middle of an allowed ratio."""
    low, high = log_ratio(ratio)
    for _ in range(10):
        area = width * height * torch.empty(1).uniform_(*scale).item()
        aspect = torch.empty(1).uniform_(low, high).exp_().item()
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(0, height - h + 1, (1,)))
            return top, int(torch.randint(0, width - w + 1, (1,))), h, w
    w, h = min(width, round(height * max(ratio))), min(height, round(width / min(ratio)))
    return (height - h) // 2, (width - w) // 2, h, w


@lru_cache(maxsize=8)
def log_ratio(ratio: tuple[float, float]) -> tuple[float, float]:
    """In single precision, as torchvision draws between them."""
    low, high = torch.log(torch.tensor(ratio)).tolist()
    return low, high

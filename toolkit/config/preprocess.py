"""How a model wants its pictures: plain data that models declare and the data path obeys."""

from dataclasses import dataclass
from typing import Literal

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocess:
    """Evaluation view of a model: resize, centre crop, normalise."""

    image_size: int = 224
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "squash", "longest"] = "shortest"
    """open_clip's names: shorter side then centre crop; both sides; longer side then pad."""

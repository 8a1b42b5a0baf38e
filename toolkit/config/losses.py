"""The options of each loss, by kind; `losses.<key>.kind` defaults to the key."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LossOptions:
    """What every loss has."""

    kind: str = ""
    """Name in the registry; empty: the key under `losses`."""
    weight: float = 1.0
    """Factor in the sum; 0 switches the term off, it is then not computed."""


@dataclass(frozen=True)
class SimilarityOptions(LossOptions):
    """KL between teacher's and student's similarity rows at `scale / temperature`."""

    scale: float = 100.0
    """Multiplies cosines; CLIP's saturated exp(logit_scale)."""
    temperature: float = 1.0
    """Divides the scaled cosines."""


@dataclass(frozen=True)
class VL(SimilarityOptions):
    """Image-text term, both directions summed."""

    kind: str = "vl"
    weight: float = 0.7
    temperature: float = 1.0


@dataclass(frozen=True)
class PVL(SimilarityOptions):
    """Teacher image features in the part of texts, times 2."""

    kind: str = "pvl"
    weight: float = 0.3
    temperature: float = 3.0


@dataclass(frozen=True)
class UDist(SimilarityOptions):
    """Image-image geometry, times 2."""

    kind: str = "udist"
    weight: float = 0.0
    temperature: float = 7.0


@dataclass(frozen=True)
class Contrastive(LossOptions):
    """Symmetric InfoNCE on pairs, with the student's own learnable scale."""

    kind: str = "contrastive"


@dataclass(frozen=True)
class Feature(LossOptions):
    """1 - cosine between the student's and the teacher's embedding of the same sample."""

    kind: str = "feature"
    mode: Literal["image", "both"] = "image"
    """Which embeddings are compared; `both` needs a student text tower."""


OPTIONS: dict[str, type[LossOptions]] = {
    "vl": VL,
    "pvl": PVL,
    "udist": UDist,
    "contrastive": Contrastive,
    "feature": Feature,
}

FIELD_PRESETS: dict[str, dict[str, LossOptions]] = {
    "dimefm": {"vl": VL(), "pvl": PVL(), "udist": UDist()},
    "dimefm-udist": {"vl": VL(weight=0.68), "pvl": PVL(weight=0.22), "udist": UDist(weight=0.10)},
}
"""Weights of the released code (0.7/0.3/0) and the other set found in the field (0.68/0.22/0.10)."""

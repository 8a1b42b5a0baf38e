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
    final_weight: float | None = None
    """Weight at the last step; null: constant."""
    weight_schedule: Literal["linear", "cosine"] = "linear"
    """Way from `weight` to `final_weight`."""


@dataclass(frozen=True)
class SimilarityOptions(LossOptions):
    """KL between teacher's and student's similarity rows at `scale / temperature`."""

    scale: float | None = 100.0
    """Multiplies cosines; CLIP's saturated exp(logit_scale). null: the teacher's own logit scale."""
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


@dataclass(frozen=True)
class FD(LossOptions):
    """Mean squared difference of embeddings (CLIP-KD); the weight makes up for the mean over the width."""

    kind: str = "fd"
    weight: float = 2000.0
    mode: Literal["image", "both"] = "image"
    """Which embeddings are compared; `both` (CLIP-KD's) adds the texts and needs a student text tower."""


@dataclass(frozen=True)
class MFD(LossOptions):
    """`fd` with a masked view for the student (CLIP-KD)."""

    kind: str = "mfd"
    weight: float = 2000.0
    mask_fraction: float = 0.75
    """Share of the student's patches that are blanked with the mean colour, in pixels."""


@dataclass(frozen=True)
class CRD(LossOptions):
    """Image-text similarities, each model at its own scale (CLIP-KD)."""

    kind: str = "crd"


@dataclass(frozen=True)
class Affinity(LossOptions):
    """Image-text similarities at one fixed scale (TinyCLIP's affinity mimicking)."""

    kind: str = "affinity"
    scale: float | None = 50.0
    """Multiplies the cosines of both models; null: each model's own logit scale."""


@dataclass(frozen=True)
class OpenClipDistil(LossOptions):
    """Image-text similarities, each model at its own scale (open_clip), next to `contrastive`."""

    kind: str = "open_clip_distil"


@dataclass(frozen=True)
class EnsembleKL(LossOptions):
    """Image-text similarities of several teachers, averaged after the softmax (MobileCLIP)."""

    kind: str = "ensemble_kl"
    scales: tuple[float, ...] = ()
    """Multiply the teachers' cosines, one for each; empty: each teacher's own logit scale."""


@dataclass(frozen=True)
class ICL(LossOptions):
    """InfoNCE of the student against the teacher's other modality, with a scale of its own (CLIP-KD)."""

    kind: str = "icl"
    initial_scale: float = 1 / 0.07
    """Where the learnable scale starts."""


@dataclass(frozen=True)
class CrossKD(LossOptions):
    """KL of the teacher's similarities to those between student and teacher (CLIP-KD, switched off there)."""

    kind: str = "cross_kd"
    weight: float = 0.0


@dataclass(frozen=True)
class GD(LossOptions):
    """Squared differences of InfoNCE gradients (CLIP-KD); its weight of 1e8 belongs to another definition."""

    kind: str = "gd"
    weight: float = 1e-3
    """A start, not a published number: the value grows with the square of the logit scale."""


@dataclass(frozen=True)
class AFD(LossOptions):
    """InfoNCE of projected student-teacher concatenations (CLIP-KD, switched off there)."""

    kind: str = "afd"
    weight: float = 0.0
    initial_scale: float = 1 / 0.07
    """Where the learnable scale starts."""


@dataclass(frozen=True)
class SiglipSoft(LossOptions):
    """Sigmoid cross-entropy with soft labels (MobileCLIP 2's training code)."""

    kind: str = "siglip_soft"
    scale: float = 10.0
    """Multiplies the cosines of a model without a logit scale of its own."""
    bias: float = -10.0
    """Added to the logits of a model without a logit bias of its own."""


@dataclass(frozen=True)
class QueuePVL(LossOptions):
    """`pvl` against a queue of teacher features (LightlyTrain)."""

    kind: str = "queue_pvl"
    size: int = 8192
    """Rows of the queue, over all ranks."""
    temperature: float = 0.07
    """Divides the cosines."""


@dataclass(frozen=True)
class CosSmoothL1(LossOptions):
    """Cosine and smooth L1 between embeddings (Theia; SAK and UNIC with other numbers)."""

    kind: str = "cos_smooth_l1"
    cosine_weight: float = 0.9
    """Factor of 1 - cosine."""
    l1_weight: float = 0.1
    """Factor of the smooth L1."""
    beta: float = 1.0
    """Where smooth L1 turns from a parabola into a line; 0: plain L1."""
    standardise: Literal["none", "running", "ema"] = "running"
    """Mean 0 and variance 1 per dimension of the teacher: over all batches, or mostly over the last ones."""
    momentum: float = 0.001
    """Least share of the newest batch in the statistics of `ema`."""


@dataclass(frozen=True)
class PhiS(LossOptions):
    """Squared difference over the teacher's total variance (PHI-S)."""

    kind: str = "phi_s"


@dataclass(frozen=True)
class DualHead(LossOptions):
    """KL of class probabilities, the student's from a learnt head (DHO)."""

    kind: str = "dual_head"
    classes: str = ""
    """JSON file with `classnames` and `templates`, whose embeddings by the teacher are the classes."""
    temperature: float = 2.0
    """Divides the logits; its square multiplies the loss."""
    scale: float = 100.0
    """Multiplies the cosines."""


KINDS = (
    VL, PVL, UDist, Contrastive, Feature, FD, MFD, CRD, Affinity, OpenClipDistil, EnsembleKL, ICL, CrossKD, GD, AFD,
    SiglipSoft, QueuePVL, CosSmoothL1, PhiS, DualHead,
)  # fmt: skip
OPTIONS: dict[str, type[LossOptions]] = {kind.kind: kind for kind in KINDS}

FIELD_PRESETS: dict[str, dict[str, LossOptions]] = {
    # DIME-FM (ICCV 2023): 0.7/0.3/0 of the released code, and the other set found in the field
    "dimefm": {"vl": VL(), "pvl": PVL(), "udist": UDist()},
    "dimefm-udist": {"vl": VL(weight=0.68), "pvl": PVL(weight=0.22), "udist": UDist(weight=0.10)},
    # CLIP-KD (CVPR 2024), its final mixture: task loss, FD on both modalities, ICL, CRD
    "clip_kd": {"contrastive": Contrastive(), "fd": FD(mode="both"), "icl": ICL(), "crd": CRD()},
    # TinyCLIP (ICCV 2023), its scripts: affinity mimicking at scale 50, task loss off
    "tinyclip": {"affinity": Affinity(), "contrastive": Contrastive(weight=0.0)},
    # open_clip, --distill-model: both terms at fixed 1 : 1
    "open_clip": {"open_clip_distil": OpenClipDistil(), "contrastive": Contrastive()},
    # MobileCLIP (CVPR 2024): lambda 1 for the small variants and 12M samples, .75 for B and 1B samples
    "mobileclip": {"ensemble_kl": EnsembleKL(), "contrastive": Contrastive(weight=0.0)},
    "mobileclip_b": {"ensemble_kl": EnsembleKL(weight=0.75), "contrastive": Contrastive(weight=0.25)},
    # Theia (CoRL 2024), SAK (ICLR 2025; L1, nothing standardised), UNIC (ECCV 2024); one teacher, global embedding
    "theia": {"cos_smooth_l1": CosSmoothL1()},
    "sak": {"cos_smooth_l1": CosSmoothL1(beta=0.0, standardise="none")},
    "unic": {"cos_smooth_l1": CosSmoothL1(cosine_weight=0.5, l1_weight=0.5, standardise="ema")},
    # LightlyTrain, distillation v1: similarities to a queue of teacher features
    "lightly": {"queue_pvl": QueuePVL()},
}
"""Mixtures of the field by the name of the work."""

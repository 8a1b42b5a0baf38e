"""Plain feature matching, the simplest baseline, in the three forms found in the field."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from toolkit.embeddings import LOCAL, Embeddings, Exchange
from toolkit.losses.dime import needed

WITH_TEXT = frozenset({"teacher", "student_text", "text"})


class Feature(nn.Module):
    """Mean over samples of 1 - cos(student, teacher); `mode="both"` averages images and texts.

    0 when student equals teacher, 2 at most. Equal to CLIP-KD's feature MSE on unit vectors up to the factor e/2, and so
    independent of the width. No scale, no temperature.
    """

    needs = frozenset({"teacher"})
    built_with: frozenset[str] = frozenset()

    def __init__(self, mode: Literal["image", "both"] = "image") -> None:
        """`both` needs a student text tower."""
        super().__init__()
        self.mode = mode
        if mode == "both":
            self.needs = WITH_TEXT

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs student.image and teacher.image, with mode="both" also both texts. Nothing crosses ranks."""
        image = (1 - (needed(student.image) * needed(teacher.image).detach()).sum(-1)).mean()
        if self.mode == "image":
            return image
        return (image + (1 - (needed(student.text) * needed(teacher.text).detach()).sum(-1)).mean()) / 2


class FD(Feature):
    """Mean over samples and width of (s - t)^2 on unit vectors; `mode="both"` adds that of the texts.

    0 when student equals teacher. Equals (2/e)(1 - cos) per modality, hence the large weight (2000) and its dependence on
    the width e; `feature` is the same without it. No scale, no temperature. CLIP-KD (CVPR 2024), FD, which uses both
    modalities; the default here is the image alone, so that it serves any run.
    """

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs student.image and teacher.image, with mode="both" also both texts. Nothing crosses ranks."""
        image = mean_square(needed(student.image), needed(teacher.image))
        return image if self.mode == "image" else image + mean_square(needed(student.text), needed(teacher.text))


class MFD(nn.Module):
    """Mean over samples and width of (s - t)^2 where s is the student's embedding of a masked view of the picture.

    0 where the student gives for the masked view what the teacher gives for the whole picture. The run supplies the view:
    `mask_fraction` of the patches blanked in pixels with the mean colour, which any architecture can read (CLIP-KD drops
    them behind the patch embedding of a ViT, which is cheaper). No scale, no temperature. CLIP-KD (CVPR 2024), MFD.
    """

    needs = frozenset({"teacher", "masked_view"})
    built_with: frozenset[str] = frozenset()

    def __init__(self, mask_fraction: float = 0.75) -> None:
        """Read by whoever makes the masked view; the loss itself does not use it."""
        super().__init__()
        self.mask_fraction = mask_fraction

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs student.masked_image and teacher.image. Nothing crosses ranks."""
        return mean_square(needed(student.masked_image), needed(teacher.image))


def mean_square(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over samples and width of (s - t)^2; no gradient by the teacher."""
    return (student - teacher.detach()).square().mean()

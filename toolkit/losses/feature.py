"""Plain feature matching, the simplest baseline."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from toolkit.embeddings import LOCAL, Embeddings, Exchange
from toolkit.losses.dime import needed


class Feature(nn.Module):
    """Mean over samples of 1 - cos(student, teacher); `mode="both"` averages images and texts.

    0 when student equals teacher, 2 at most. Equal to CLIP-KD's feature MSE on unit vectors up to the factor e/2, and so
    independent of the width. No scale, no temperature.
    """

    needs = frozenset({"teacher"})

    def __init__(self, mode: Literal["image", "both"] = "image") -> None:
        """`both` needs a student text tower."""
        super().__init__()
        self.mode = mode

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs student.image and teacher.image, with mode="both" also both texts. Nothing crosses ranks."""
        image = (1 - (needed(student.image) * needed(teacher.image).detach()).sum(-1)).mean()
        if self.mode == "image":
            return image
        return (image + (1 - (needed(student.text) * needed(teacher.text).detach()).sum(-1)).mean()) / 2

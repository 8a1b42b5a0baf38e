"""DIME-FM's three losses (Sun et al., ICCV 2023; equations of the released code)."""

from jaxtyping import Float
from torch import Tensor, nn

from toolkit.embeddings import LOCAL, Embeddings, Exchange
from toolkit.kernels import Target
from toolkit.losses.similarity_kl import similarity_kl


class SimilarityLoss(nn.Module):
    """Shared options: `scale` multiplies cosines, `temperature` divides; no temperature-squared factor."""

    needs = frozenset({"teacher"})
    built_with: frozenset[str] = frozenset()

    def __init__(self, scale: float = 100.0, temperature: float = 1.0) -> None:
        """Both fixed, as in the released code (scale 100 is CLIP's saturated logit scale)."""
        super().__init__()
        self.logit_scale = scale / temperature


class VL(SimilarityLoss):
    """L_vl = KL(s V T' || s Z T') + KL(s T V' || s T Z'), softmax over the other modality; z, v images, t texts.

    Both directions are summed, not averaged. 0 when student equals teacher. Images and texts need not be paired, nor be
    equally many. The texts are the student's own where it has a text tower, else the teacher's on both sides.
    """

    needs = frozenset({"teacher", "text"})

    def __init__(self, scale: float = 100.0, temperature: float = 1.0) -> None:
        """Temperature 1 in the released code."""
        super().__init__(scale, temperature)

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs student.image, teacher.image and teacher.text."""
        z, v, t = needed(student.image), needed(teacher.image), exchange.gather(needed(teacher.text)).detach()
        y = t if student.text is None else exchange.gather(student.text)
        target = Target(v, t, self.logit_scale)
        return similarity_kl(z, y, target, logit_scale=self.logit_scale, both=True, exchange=exchange)


class PVL(SimilarityLoss):
    """L_pvl = 2 KL(s V V' || s Z V'): teacher image features play the part of texts ("pseudo" vision-language).

    Rows only; the factor 2 matches the two directions of `vl`. The diagonal is kept. 0 when student equals teacher.
    """

    def __init__(self, scale: float = 100.0, temperature: float = 3.0) -> None:
        """Temperature 3 in the released code."""
        super().__init__(scale, temperature)

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs student.image and teacher.image."""
        z, v = needed(student.image), needed(teacher.image)
        columns = exchange.gather(v).detach()
        return 2 * similarity_kl(z, columns, Target(v, columns, self.logit_scale), logit_scale=self.logit_scale)


class UDist(SimilarityLoss):
    """L_udist = 2 KL(s V V' || s Z Z'): the student keeps the teacher's image-image geometry.

    Both matrices are symmetric, so the factor 2 is exactly the column direction. The diagonal is kept. 0 when student
    equals teacher, and for any rotation of it.
    """

    def __init__(self, scale: float = 100.0, temperature: float = 7.0) -> None:
        """Temperature 7 in the released code."""
        super().__init__(scale, temperature)

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs student.image and teacher.image."""
        z, v = needed(student.image), needed(teacher.image)
        target = Target(v, exchange.gather(v), self.logit_scale)
        return 2 * similarity_kl(z, exchange.gather(z), target, logit_scale=self.logit_scale)


def needed(features: Tensor | None) -> Tensor:
    """The features, or a TypeError saying that the caller left them out."""
    if features is None:
        raise TypeError("this loss compares embeddings that were not given: pass Embeddings(image=..., text=...)")
    return features

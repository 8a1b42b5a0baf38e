"""DIME-FM's three losses (Sun et al., ICCV 2023; equations of the released code)."""

from jaxtyping import Float
from torch import Tensor, nn

from toolkit.embeddings import LOCAL, Embeddings, Exchange
from toolkit.kernels import Target
from toolkit.losses.scale import scale_of
from toolkit.losses.similarity_kl import fixed_scale, similarity_kl


class SimilarityLoss(nn.Module):
    """Shared options: `scale` multiplies cosines, `temperature` divides; no temperature-squared factor.

    Both models at one scale: a number, or with None the teacher's own logit scale.
    """

    needs = frozenset({"teacher"})
    built_with: frozenset[str] = frozenset()

    def __init__(self, scale: float | None = 100.0, temperature: float = 1.0) -> None:
        """Both fixed, as in the released code (scale 100 is CLIP's saturated logit scale)."""
        super().__init__()
        self.scale, self.temperature = scale, temperature

    def logit_scale(self, teacher: Embeddings) -> float | Tensor:
        """scale / temperature."""
        return (scale_of(teacher) if self.scale is None else self.scale) / self.temperature


class VL(SimilarityLoss):
    """L_vl = KL(s V T' || s Z T') + KL(s T V' || s T Z'), softmax over the other modality; z, v images, t texts.

    Both directions are summed, not averaged. 0 when student equals teacher. Images and texts need not be paired, nor be
    equally many. The texts are the student's own where it has a text tower, else the teacher's on both sides.
    """

    needs = frozenset({"teacher", "text"})

    def __init__(self, scale: float | None = 100.0, temperature: float = 1.0) -> None:
        """Temperature 1 in the released code."""
        super().__init__(scale, temperature)

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs student.image, teacher.image and teacher.text."""
        z, v, t = needed(student.image), needed(teacher.image), exchange.gather(needed(teacher.text)).detach()
        y = t if student.text is None else exchange.gather(student.text)
        scale = self.logit_scale(teacher)
        return similarity_kl(z, y, Target(v, t, scale), logit_scale=fixed_scale(scale), both=True, exchange=exchange)


class PVL(SimilarityLoss):
    """L_pvl = 2 KL(s V V' || s Z V'): teacher image features play the part of texts ("pseudo" vision-language).

    Rows only; the factor 2 matches the two directions of `vl`. The diagonal is kept. 0 when student equals teacher.
    """

    def __init__(self, scale: float | None = 100.0, temperature: float = 3.0) -> None:
        """Temperature 3 in the released code."""
        super().__init__(scale, temperature)

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs student.image and teacher.image."""
        z, v = needed(student.image), needed(teacher.image)
        columns, scale = exchange.gather(v).detach(), self.logit_scale(teacher)
        return 2 * similarity_kl(z, columns, Target(v, columns, scale), logit_scale=fixed_scale(scale))


class UDist(SimilarityLoss):
    """L_udist = 2 KL(s V V' || s Z Z'): the student keeps the teacher's image-image geometry.

    Both matrices are symmetric, so the factor 2 is exactly the column direction. The diagonal is kept. 0 when student
    equals teacher, and for any rotation of it.
    """

    def __init__(self, scale: float | None = 100.0, temperature: float = 7.0) -> None:
        """Temperature 7 in the released code."""
        super().__init__(scale, temperature)

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs student.image and teacher.image."""
        z, v = needed(student.image), needed(teacher.image)
        scale = self.logit_scale(teacher)
        return 2 * similarity_kl(
            z, exchange.gather(z), Target(v, exchange.gather(v), scale), logit_scale=fixed_scale(scale)
        )


def needed(features: Tensor | None) -> Tensor:
    """The features, or a TypeError saying that the caller left them out."""
    if features is None:
        raise TypeError("this loss compares embeddings that were not given: pass Embeddings(image=..., text=...)")
    return features

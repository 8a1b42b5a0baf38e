"""Losses that compare the image-text similarities of teacher and student: one form, four sets of scales."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from toolkit.embeddings import LOCAL, Embeddings, Exchange
from toolkit.errors import ConfigError
from toolkit.kernels import Target
from toolkit.losses.dime import needed
from toolkit.losses.scale import scale_of
from toolkit.losses.similarity_kl import similarity_kl


class Relational(nn.Module):
    """(KL(P_rows || Q_rows) + KL(P_columns || Q_columns)) / 2; P of s_t V T', Q of s Z Y', softmax over the other modality.

    z, y student, v, t teacher. Images and texts need not be paired, nor be equally many. Where the student has no text
    tower y is the teacher's t, which needs one width for both. Children choose the scales; temperature 1.
    """

    needs = frozenset({"teacher", "text"})
    built_with: frozenset[str] = frozenset()

    def teachers(self, teacher: Embeddings) -> tuple[Embeddings, ...]:
        """Those whose probabilities are averaged."""
        return (teacher,)

    def student_scale(self, student: Embeddings, teacher: Embeddings) -> float | Tensor:
        """The student's own, the teacher's where it has none, 100 where neither has one."""
        return scale_of(student, teacher)

    def teacher_scales(self, teachers: Sequence[Embeddings]) -> Sequence[float | Tensor]:
        """Each teacher's own, 100 where it has none."""
        return [scale_of(teacher) for teacher in teachers]

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs student.image, and image and text of the teacher."""
        z, y = needed(student.image), gathered_texts(student, teacher, exchange)
        teachers = self.teachers(teacher)
        targets = [
            Target(needed(one.image), exchange.gather(needed(one.text)), scale)
            for one, scale in zip(teachers, self.teacher_scales(teachers), strict=True)
        ]
        scale = self.student_scale(student, teacher)
        return similarity_kl(z, y, targets, logit_scale=scale, both=True, exchange=exchange) / 2


class CRD(Relational):
    """(KL_i2t + KL_t2i) / 2 of s_t V T' against s Z Y', each model at its own logit scale (a student without one: the teacher's).

    0 when student equals teacher and the scales agree; the student's learnable scale gets a gradient. Temperature 1. See
    Relational for unpaired data and students without text tower. CLIP-KD (CVPR 2024), CRD.
    """


class Affinity(Relational):
    """(KL_i2t + KL_t2i) / 2 of s V T' against s Z Y' with one fixed scale for both models, 50.

    0 when student equals teacher. TinyCLIP (ICCV 2023) logs the soft cross-entropy, which is this plus the teacher's entropy:
    same gradient. `scale=None`: each model's own, their code's default where its scripts say 50. Temperature 1.
    """

    def __init__(self, scale: float | None = 50.0) -> None:
        """`scale` multiplies the cosines of both models."""
        super().__init__()
        self.scale = scale

    def student_scale(self, student: Embeddings, teacher: Embeddings) -> float | Tensor:
        """The fixed scale, or the student's own."""
        return super().student_scale(student, teacher) if self.scale is None else self.scale

    def teacher_scales(self, teachers: Sequence[Embeddings]) -> Sequence[float | Tensor]:
        """The fixed scale, or the teacher's own."""
        return super().teacher_scales(teachers) if self.scale is None else [self.scale] * len(teachers)


class OpenClipDistil(CRD):
    """The distillation term of open_clip: CRD's formula, each model at its own logit scale, next to `contrastive` at 1 : 1.

    0 when student equals teacher and the scales agree. open_clip logs the soft cross-entropy, which is this plus the
    teacher's entropy: same gradient. Temperature 1. open_clip, `--distill-model`.
    """


class EnsembleKL(Relational):
    """(1/2) sum over directions of KL(mean_k softmax(s_k V_k T_k') || Q), Q of the student at its own scale.

    The teachers are `teacher` and `teacher.others`, each with its own width; their probabilities are averaged after the
    softmax, per direction. 0 when the student's probabilities are that average, so never for two teachers that differ. The
    value is MobileCLIP's soft cross-entropy minus the entropy of the averaged target (same gradient), and
    lambda * this + (1 - lambda) * `contrastive` is its loss (CVPR 2024). `scales` multiply cosines, one per teacher (theirs:
    100; 70 and 60 in version 2); empty: each teacher's own logit scale. Temperature 1.
    """

    def __init__(self, scales: Sequence[float] = ()) -> None:
        """One scale per teacher in order, or none."""
        super().__init__()
        self.scales = tuple(scales)

    def teachers(self, teacher: Embeddings) -> tuple[Embeddings, ...]:
        """The main teacher first."""
        return (teacher, *teacher.others)

    def teacher_scales(self, teachers: Sequence[Embeddings]) -> Sequence[float | Tensor]:
        """Those of the options, or each teacher's own."""
        if not self.scales:
            return super().teacher_scales(teachers)
        if len(self.scales) != len(teachers):
            raise ConfigError(
                f"ensemble_kl has {len(self.scales)} scales and the run {len(teachers)} teachers; give one scale for each, "
                "or none to use the teachers' own"
            )
        return self.scales


def gathered_texts(student: Embeddings, teacher: Embeddings, exchange: Exchange) -> Tensor:
    """The student's side of the sentences on all ranks: its own where it has a text tower, else the teacher's."""
    if student.text is not None:
        return exchange.gather(student.text)
    texts, images = exchange.gather(needed(teacher.text)).detach(), needed(student.image)
    if texts.shape[1] != images.shape[1]:
        raise ConfigError(
            f"the student's images have width {images.shape[1]} and the teacher's sentences {texts.shape[1]}; without a text "
            "tower of its own a student is compared with the teacher's sentences: leave student.embed_dim unset"
        )
    return texts

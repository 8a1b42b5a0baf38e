"""Losses where one model's images meet the other model's texts (CLIP-KD)."""

from jaxtyping import Float
from torch import Tensor, nn

from toolkit.embeddings import LOCAL, Embeddings, Exchange
from toolkit.kernels import Target
from toolkit.losses.dime import needed
from toolkit.losses.scale import LearnableScale, scale_of
from toolkit.losses.similarity_kl import Labels, similarity_kl


class ICL(nn.Module):
    """(CE(c Z T', i) + CE(c Y V', i)) / 2: the student as anchor, the teacher's embeddings of the other modality as keys.

    z, y student's images and texts, v, t the teacher's, row i of all belonging together. c = exp(log_scale) is learnt, starts
    at `initial_scale` 1/0.07 and is bounded by 100. At identity: the cross-entropy of the teacher's own similarities at c,
    not zero. CLIP-KD (CVPR 2024), ICL; its code starts c at log(1/0.07) = 2.66 and uses it without exp, a deviation from its
    paper that is not followed here.
    """

    needs = frozenset({"teacher", "pairs", "student_text", "text"})
    built_with: frozenset[str] = frozenset()

    def __init__(self, initial_scale: float = 1 / 0.07) -> None:
        """The scale is a parameter of shape (1,)."""
        super().__init__()
        self.scale = LearnableScale(initial_scale)

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs image and text of both, with equally many rows."""
        z, y = needed(student.image), needed(student.text)
        images, texts = all_of_the_teacher(teacher, exchange)
        c = self.scale(z)
        to_texts = similarity_kl(z, texts, Labels(), logit_scale=c, exchange=exchange)
        to_images = similarity_kl(y, images, Labels(), logit_scale=c, exchange=exchange)
        return (to_texts + to_images) / 2


class CrossKD(nn.Module):
    """(KL(s_t V T' || s Z T') + KL(s_t T V' || s Y V')) / 2: the student's rows against the teacher's columns.

    0 when student equals teacher and the scales agree. Each model at its own logit scale (CLIP-KD
    takes the learnable scale of ICL for the student); temperature 1. Images and sentences need not be paired. CLIP-KD
    (CVPR 2024), cross-KD, where it is switched off (weight 0).
    """

    needs = frozenset({"teacher", "student_text", "text"})
    built_with: frozenset[str] = frozenset()

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs image and text of both."""
        z, y, v, t = (needed(x) for x in (student.image, student.text, teacher.image, teacher.text))
        images, texts = all_of_the_teacher(teacher, exchange)
        s, s_t = scale_of(student, teacher), scale_of(teacher)
        to_texts = similarity_kl(z, texts, Target(v, texts, s_t), logit_scale=s, exchange=exchange)
        to_images = similarity_kl(y, images, Target(t, images, s_t), logit_scale=s, exchange=exchange)
        return (to_texts + to_images) / 2


def all_of_the_teacher(teacher: Embeddings, exchange: Exchange) -> tuple[Tensor, Tensor]:
    """Its images and texts of all ranks, without gradient."""
    return exchange.gather(needed(teacher.image)).detach(), exchange.gather(needed(teacher.text)).detach()

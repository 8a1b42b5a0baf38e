"""Augmented feature distillation (CLIP-KD)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from toolkit.embeddings import LOCAL, Embeddings, Exchange, unit
from toolkit.losses.dime import needed
from toolkit.losses.scale import LearnableScale
from toolkit.losses.similarity_kl import Labels, similarity_kl


class AFD(nn.Module):
    """InfoNCE, mean of both directions, of norm(W_I [z; v]) against norm(W_T [y; t]), rows i belonging together.

    z, y student's image and text, v, t the teacher's. W_I, W_T: linear, 2e -> e, no bias, learnt with the student; the scale
    is learnt, starts at `initial_scale` 1/0.07 and is bounded by 100. At identity: the cross-entropy of the projected
    batch, not zero. CLIP-KD (CVPR 2024), AFD, where it is switched off in the final mixture (weight 0) and the scale is
    used without exp.
    """

    needs = frozenset({"teacher", "pairs", "student_text", "text"})
    built_with = frozenset({"embed_dim"})

    def __init__(self, embed_dim: int, initial_scale: float = 1 / 0.07) -> None:
        """`embed_dim` is the width of student and teacher."""
        super().__init__()
        self.image = nn.Linear(2 * embed_dim, embed_dim, bias=False)
        self.text = nn.Linear(2 * embed_dim, embed_dim, bias=False)
        self.scale = LearnableScale(initial_scale)

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs image and text of both, with equally many rows."""
        image = fused(self.image.weight, student.image, teacher.image)
        text = fused(self.text.weight, student.text, teacher.text)
        scale = self.scale(image)
        return (
            similarity_kl(image, exchange.gather(text), Labels(), logit_scale=scale, both=True, exchange=exchange) / 2
        )


def fused(weight: Tensor, student: Tensor | None, teacher: Tensor | None) -> Tensor:
    """Unit rows of the projected concatenation."""
    s, t = needed(student), needed(teacher).detach()
    return unit(F.linear(torch.cat([s, t], dim=1), weight.to(s.dtype)))

"""Distillation into or from models with a sigmoid loss (MobileCLIP 2's training code)."""

from jaxtyping import Float
from torch import Tensor, nn

from toolkit.embeddings import LOCAL, Embeddings, Exchange
from toolkit.kernels import Target
from toolkit.losses.dime import needed
from toolkit.losses.relational import gathered_texts
from toolkit.losses.scale import bias_of, scale_of
from toolkit.losses.similarity_sigmoid import similarity_sigmoid


class SiglipSoft(nn.Module):
    """-sum_ij log sigmoid(y_ij z_ij) / B, z = s Z Y' + b of the student, y = 2 sigmoid(s_t V T' + b_t) - 1 of the teacher.

    Not zero when student equals teacher: y is a signed weight, not a probability, so that the value keeps falling as z grows
    with the sign of z_t. Each model's own logit scale and bias; a student without takes the teacher's, a teacher without
    `scale` and `bias` (defaults: where SigLIP starts, 10 and -10); no temperature. Images and texts
    need not be paired, nor be equally many (B images). Without a student text tower y is the teacher's t, as in `crd`.
    ml-mobileclip version 2; no result published.
    """

    needs = frozenset({"teacher", "text"})
    built_with: frozenset[str] = frozenset()

    def __init__(self, scale: float = 10.0, bias: float = -10.0) -> None:
        """For models without a logit scale or bias of their own."""
        super().__init__()
        self.scale, self.bias = scale, bias

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs student.image, teacher.image and teacher.text."""
        texts = exchange.gather(needed(teacher.text)).detach()
        return similarity_sigmoid(
            needed(student.image),
            gathered_texts(student, teacher, exchange),
            Target(needed(teacher.image), texts, scale_of(teacher, fallback=self.scale)),
            bias_of(teacher, fallback=self.bias),
            logit_scale=scale_of(student, teacher, self.scale),
            logit_bias=bias_of(student, teacher, self.bias),
        )

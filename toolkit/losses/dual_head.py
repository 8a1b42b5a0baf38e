"""The distillation head of a dual-head classifier (DHO)."""

from jaxtyping import Float
from torch import Tensor, nn

from toolkit.embeddings import LOCAL, Embeddings, Exchange, unit
from toolkit.kernels import Target
from toolkit.losses.dime import needed
from toolkit.losses.similarity_kl import similarity_kl


class DualHead(nn.Module):
    """T^2 KL(softmax(s v C' / T) || softmax(s z W' / T)): class probabilities of the teacher for a head of the student.

    C [k, e] are the teacher's embeddings of the classes' texts, W [k, e] the learnt head, which starts at C; s 100 multiplies,
    the temperature T 2 divides and its square multiplies the loss. 0 when student equals teacher and W = C. No labels are
    used: the second, labelled head (cross-entropy) and the mixture of both at inference are left out, and so is the head's
    bias. DHO (2025), its KL terms.
    """

    needs = frozenset({"teacher"})
    built_with = frozenset({"class_embeddings"})
    class_embeddings: Tensor

    def __init__(self, class_embeddings: Float[Tensor, "k e"], temperature: float = 2.0, scale: float = 100.0) -> None:
        """The run embeds the classes of its option `classes` with the teacher and hands them over."""
        super().__init__()
        self.temperature, self.logit_scale = temperature, scale / temperature
        self.register_buffer("class_embeddings", unit(class_embeddings.detach()), persistent=False)
        self.head = nn.Parameter(self.class_embeddings.clone())

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs student.image and teacher.image, both of the classes' width. Nothing crosses ranks."""
        z, v = needed(student.image), needed(teacher.image)
        target = Target(v, self.class_embeddings.to(v.dtype), self.logit_scale)
        value = similarity_kl(z, self.head.to(z.dtype), target, logit_scale=self.logit_scale)
        return self.temperature**2 * value

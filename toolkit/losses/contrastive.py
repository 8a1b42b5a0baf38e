"""CLIP's own loss on paired samples, the baseline and the trainer of teachers."""

from jaxtyping import Float
from torch import Tensor, nn

from toolkit.embeddings import LOCAL, Embeddings, Exchange
from toolkit.losses.dime import needed
from toolkit.losses.similarity_kl import Labels, similarity_kl


class Contrastive(nn.Module):
    """InfoNCE: (CE(s Z Y', i) + CE(s Y Z', i)) / 2 where row i of images and texts belong together (Radford et al. 2021).

    s is student.logit_scale (exponentiated, learnable), 100 where it is None. At identity: the cross-entropy of the
    batch's own similarities, not zero. The teacher is not used.
    """

    needs = frozenset({"pairs", "student_text"})
    built_with: frozenset[str] = frozenset()

    def forward(
        self, student: Embeddings, teacher: Embeddings | None = None, exchange: Exchange = LOCAL
    ) -> Float[Tensor, ""]:
        """Needs student.image and student.text with equally many rows."""
        z, y = needed(student.image), needed(student.text)
        scale = 100.0 if student.logit_scale is None else student.logit_scale
        return similarity_kl(z, exchange.gather(y), Labels(), logit_scale=scale, both=True, exchange=exchange) / 2

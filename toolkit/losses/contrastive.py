"""CLIP's own loss on paired samples, the baseline and the trainer of teachers."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from toolkit.embeddings import LOCAL, Embeddings, Exchange
from toolkit.losses.dime import needed


class Contrastive(nn.Module):
    """InfoNCE: (CE(s Z Y', i) + CE(s Y Z', i)) / 2 where row i of images and texts belong together (Radford et al. 2021).

    s is student.logit_scale (exponentiated, learnable), 100 where it is None. At identity: the cross-entropy of the
    batch's own similarities, not zero. The teacher is not used.
    """

    needs = frozenset({"pairs", "student_text"})

    def forward(
        self, student: Embeddings, teacher: Embeddings | None = None, exchange: Exchange = LOCAL
    ) -> Float[Tensor, ""]:
        """Needs student.image and student.text with equally many rows."""
        z, y = needed(student.image), needed(student.text)
        scale = 100.0 if student.logit_scale is None else student.logit_scale
        labels = torch.arange(len(z), device=z.device) + exchange.rank * len(z)
        images = F.cross_entropy(scale * z @ exchange.gather(y).T, labels)
        texts = F.cross_entropy(scale * y @ exchange.gather(z).T, labels)
        return (images + texts) / 2

"""Gradient distillation (CLIP-KD), cleanly defined, exact over ranks."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from toolkit.embeddings import LOCAL, Embeddings, Exchange
from toolkit.losses.bands import bands
from toolkit.losses.dime import needed
from toolkit.losses.scale import scale_of


class GD(nn.Module):
    """Sum of four MSEs between the InfoNCE gradients of student and teacher: images and texts, as anchors and as keys.

    With CE_i = -log softmax_j(s a_i.k_j)[i], s the model's own logit scale (100 where it has none) and a, k unit vectors:
    by the anchor dCE_i/da_i = s (sum_j q_ij k_j - k_i); by the key d(sum_i CE_i)/dk_j = s (sum_i q_ij a_i - a_j), for images
    as anchors and texts as keys and the other way round. Each MSE is the mean over rows and width of the squared difference.
    0 when student equals teacher and the scales agree. Temperature 1.

    Source: CLIP-KD (CVPR 2024), GD. Its code passes the scale where a temperature is expected, so that it divides, in the
    softmax and before it, and takes the gradients of the batch mean, n times smaller: hence its weight 1e8, which means
    nothing here. No published weight fits this definition; as its value grows with the square of the scale (1e4 at 100) and
    at weight 1 it would drown the others, 1e-3 is the default, a start. Both models need the same width.

    No rows x columns matrix of the whole batch: bands of rows, computed again in the backward pass. What the keys need of
    other ranks' anchors are their log-sum-exps, which are gathered with gradient.
    """

    needs = frozenset({"teacher", "pairs", "student_text", "text"})
    built_with: frozenset[str] = frozenset()

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs image and text of both, with equally many rows and one width."""
        own = sides_of(student, exchange)
        with torch.no_grad():
            their = sides_of(teacher, exchange)
        total = torch.stack([squared_difference(mine, other) for mine, other in zip(own, their, strict=True)]).sum()
        return total / own[0].rows.numel()


class Side(NamedTuple):
    """One modality of one model: its rows here, and what its gradients need of the other modality."""

    rows: Tensor
    """[b, e]"""
    partners: Tensor
    """[b, e]: the other modality of the same samples."""
    others: Tensor
    """[n, e]: the other modality on all ranks."""
    scale: float | Tensor
    norms: Tensor
    """[b, 1]: log-sum-exp over all others, for these rows as anchors."""
    other_norms: Tensor
    """[1, n]: the same for the other modality as anchors."""

    def part(self, band: slice) -> "Side":
        """Some of the rows."""
        return self._replace(rows=self.rows[band], partners=self.partners[band], norms=self.norms[band])

    def gradients(self) -> tuple[Tensor, Tensor]:
        """By the rows as anchors of their own cross-entropies, and as keys of the other modality's."""
        logits = self.scale * (self.rows @ self.others.T)
        as_anchors = (logits - self.norms).exp() @ self.others - self.partners
        as_keys = (logits - self.other_norms).exp() @ self.others - self.partners
        return self.scale * as_anchors, self.scale * as_keys


def sides_of(model: Embeddings, exchange: Exchange) -> tuple[Side, Side]:
    """Images and texts of one model."""
    image, text = needed(model.image), needed(model.text)
    images, texts = exchange.gather(image), exchange.gather(text)
    scale = scale_of(model)
    image_norms, text_norms = row_norms(image, texts, scale), row_norms(text, images, scale)
    all_image_norms, all_text_norms = exchange.gather(image_norms).T, exchange.gather(text_norms).T
    return (
        Side(image, text, texts, scale, image_norms, all_text_norms),
        Side(text, image, images, scale, text_norms, all_image_norms),
    )


def row_norms(rows: Tensor, columns: Tensor, scale: float | Tensor) -> Float[Tensor, "b 1"]:
    """Log-sum-exp of every row of scale * rows @ columns.T."""

    def norms(part: Tensor, columns: Tensor, scale: float | Tensor) -> Tensor:
        return (scale * (part @ columns.T)).logsumexp(1, keepdim=True)

    return torch.cat(
        [
            checkpoint(norms, rows[band], columns, scale, use_reentrant=False, preserve_rng_state=False)
            for band in bands(rows, columns)
        ]
    )


def squared_difference(own: Side, their: Side) -> Float[Tensor, ""]:
    """Sum over this rank's rows and the width of the squared differences of both gradients."""

    def difference(own: Side, their: Side) -> Tensor:
        with torch.no_grad():
            targets = their.gradients()
        found = zip(own.gradients(), targets, strict=True)
        return torch.stack([(mine - other).square().sum() for mine, other in found]).sum()

    parts = [
        checkpoint(difference, own.part(band), their.part(band), use_reentrant=False, preserve_rng_state=False)
        for band in bands(own.rows, own.others)
    ]
    return torch.stack(parts).sum()

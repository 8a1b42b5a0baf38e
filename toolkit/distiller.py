"""The one module that DeepSpeed wraps: the student and the losses; everything trainable runs in its forward."""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from toolkit.config import Preprocess
from toolkit.embeddings import Embeddings, Exchange, step_exchange
from toolkit.losses import LossGradients, LossOutput, LossSum
from toolkit.models.contract import normalise

MAX_LOG_SCALE = math.log(100)
FEATURES = ("image", "text", "masked_image")
"""Embeddings with a gradient that a student may have."""


class Distiller(nn.Module):
    """Student and losses behind one forward, so that ZeRO-3 gathers every parameter it needs."""

    def __init__(
        self, student: nn.Module, losses: LossSum, preprocess: Preprocess, *, text_tower: bool, compile: bool = False
    ) -> None:
        """`preprocess` normalises the student's pictures on the device; `compile` compiles its towers."""
        super().__init__()
        self.student = student
        self.losses = losses
        self.preprocess = preprocess
        self.text_tower = text_tower
        encode: dict[str, Any] = {"image": student.encode_image}
        if text_tower:
            encode["text"] = student.encode_text
        if compile:
            encode = {name: torch.compile(method) for name, method in encode.items()}
        route_through_forward(student, encode)

    def forward(
        self,
        batch: dict[str, Tensor],
        mode: Literal["loss", "embed", "from_features", "replay"] = "loss",
        teacher: Embeddings | None = None,
        exchange: Exchange | None = None,
        *,
        features: dict[str, Tensor] | None = None,
        gradients: LossGradients | None = None,
        share: float = 1.0,
        observe: bool = False,
    ) -> Any:
        """`loss`: LossOutput with graph. `embed`: dict of unit-norm features.

        For a global batch in several micro-batches: `from_features` gives the LossOutput of the `features` of all of them,
        with `gradients` by these, by the logit scale and by the losses' own parameters, and no graph; `replay` gives, for
        one micro-batch, the scalar whose gradient is `share` of theirs and the whole of its features'.

        `batch` holds `student_images` uint8 [b, 3, h, w] and, with a text tower, `student_tokens` int64 [m, l]. The
        features and the losses are fp32 whatever autocast does to the towers.
        """
        if mode == "from_features":
            assert features is not None
            return self.losses_of_features(features, teacher, exchange or step_exchange(), observe)
        student = self.embed(batch)
        found = {name: value for name in FEATURES if (value := getattr(student, name)) is not None}
        if mode == "embed":
            return found
        if mode == "replay":
            assert gradients is not None
            total = torch.stack([(found[name] * gradients.features[name]).sum() for name in found]).sum()
            if gradients.logit_scale is not None and student.logit_scale is not None:
                total = total + share * (student.logit_scale * gradients.logit_scale).sum()
            return total + share * self.losses(pull=gradients.parameters) if gradients.parameters else total
        return self.losses(student, teacher, exchange or step_exchange(), observe=observe)

    def losses_of_features(
        self, features: dict[str, Tensor], teacher: Embeddings | None, exchange: Exchange, observe: bool
    ) -> LossOutput:
        """The loss and its gradients on leaves of their own; nothing reaches the student's parameters."""
        with torch.enable_grad():
            leaves = {name: value.detach().requires_grad_() for name, value in features.items()}
            scale = self.logit_scale()
            scale = None if scale is None else scale.detach().requires_grad_()
            student = Embeddings(
                leaves.get("image"), leaves.get("text"), scale, masked_image=leaves.get("masked_image")
            )
            output: LossOutput = self.losses(student, teacher, exchange, observe=observe, leaves=leaves)
        return output

    def embed(self, batch: dict[str, Tensor]) -> Embeddings:
        """Run the towers on what the batch holds."""
        image = text = masked = None
        if "student_images" in batch:
            pictures = normalise(batch["student_images"], self.preprocess)
            image = self.student(Tower("image"), pictures)
            if self.training and self.losses.mask_fraction is not None:
                masked = self.student(Tower("image"), blanked(pictures, self.losses.mask_fraction))
        if self.text_tower and "student_tokens" in batch:
            text = self.student(Tower("text"), batch["student_tokens"])
        return Embeddings(image, text, self.logit_scale(), masked_image=masked)

    def logit_scale(self) -> Tensor | None:
        """The student's own scale, exponentiated and at most 100; the bound is straight-through, so it can come back."""
        raw = getattr(self.student, "logit_scale", None) if self.text_tower else None
        if raw is None:
            return None
        raw = raw if raw.dtype == torch.float64 else raw.float()
        return (raw + (raw.clamp(max=MAX_LOG_SCALE) - raw).detach()).exp()


class Tower(str):
    """Says to a routed student which of its towers is meant."""


def route_through_forward(student: nn.Module, encode: dict[str, Any]) -> None:
    """Let `student(Tower(name), given)` run a tower; any other call is the module's own forward.

    ZeRO-3 brings and releases a module's own parameters (CLIP's `text_projection`, say) around its forward, and around
    nothing else: called as a plain method, a tower would meet them in pieces.
    """
    own = student.forward

    def forward(first: Any, *args: Any, **kwargs: Any) -> Any:
        return encode[first](*args) if isinstance(first, Tower) else own(first, *args, **kwargs)

    student.forward = forward


def blanked(pictures: Float[Tensor, "b 3 h w"], fraction: float) -> Float[Tensor, "b 3 h w"]:
    """Normalised pictures with that share of their patches at the mean colour (0), other patches for each picture.

    A grid of 14 x 14 patches (16 pixels at 224), 8 x 8 for small pictures. Blanked in the picture, so that it serves any
    architecture; masks that drop tokens would be cheaper and serve plain ViTs only.
    """
    side = 14 if pictures.shape[-1] >= 112 else 8
    noise = torch.rand(len(pictures), side * side, device=pictures.device)
    hidden = noise.argsort(1).argsort(1) < round(fraction * side * side)
    mask = F.interpolate(hidden.view(-1, 1, side, side).float(), size=pictures.shape[-2:], mode="nearest")
    return pictures * (1 - mask)

"""The one module that DeepSpeed wraps: the student and the losses; everything trainable runs in its forward."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from toolkit.config import Preprocess
from toolkit.embeddings import Embeddings, Exchange, step_exchange
from toolkit.losses import LossSum
from toolkit.models.contract import normalise

MAX_LOG_SCALE = math.log(100)


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
        self._encode: dict[str, Any] = {"image": student.encode_image}
        if text_tower:
            self._encode["text"] = student.encode_text
        if compile:
            self._encode = {name: torch.compile(method) for name, method in self._encode.items()}

    def forward(
        self,
        batch: dict[str, Tensor],
        mode: Literal["loss", "embed"] = "loss",
        teacher: Embeddings | None = None,
        exchange: Exchange | None = None,
    ) -> Any:
        """`embed`: dict of unit-norm features. `loss`: (weighted sum, {term: unweighted value}).

        `batch` holds `student_images` uint8 [b, 3, h, w] and, with a text tower, `student_tokens` int64 [m, l]. The
        features and the losses are fp32 whatever autocast does to the towers.
        """
        student = self.embed(batch)
        if mode == "embed":
            return {name: getattr(student, name) for name in ("image", "text") if getattr(student, name) is not None}
        return self.losses(student, teacher, exchange or step_exchange())

    def embed(self, batch: dict[str, Tensor]) -> Embeddings:
        """Run the towers on what the batch holds."""
        image = text = None
        if "student_images" in batch:
            image = self._encode["image"](normalise(batch["student_images"], self.preprocess))
        if self.text_tower and "student_tokens" in batch:
            text = self._encode["text"](batch["student_tokens"])
        return Embeddings(image=image, text=text, logit_scale=self.logit_scale())

    def logit_scale(self) -> Tensor | None:
        """The student's own scale, exponentiated and at most 100; the bound is straight-through, so it can come back."""
        raw = getattr(self.student, "logit_scale", None) if self.text_tower else None
        if raw is None:
            return None
        return (raw + (raw.clamp(max=MAX_LOG_SCALE) - raw).detach()).float().exp()

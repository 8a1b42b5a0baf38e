"""What the harness asks of a model, and a student's answer; a Teacher answers it as it is."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from toolkit.config import Preprocess
from toolkit.errors import ConfigError
from toolkit.models import Model, Teacher, build_tokenizer
from toolkit.models.tokenizers import Tokenizer


@runtime_checkable
class Encoder(Protocol):
    """Unit-norm fp32 embeddings of pictures and of tokenised sentences."""

    preprocess: Preprocess

    def tokenizer(self) -> Tokenizer: ...

    def encode_image(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]: ...

    def encode_text(self, tokens: Int[Tensor, "m l"]) -> Float[Tensor, "m e"]: ...


class StudentEncoder:
    """A student through the forward of the wrapped module; without a text tower of its own it borrows the teacher's."""

    def __init__(
        self,
        model: Model,
        forward: Callable[..., Any],
        device: torch.device,
        *,
        text_tower: bool,
        teacher: Teacher | None,
    ) -> None:
        """`forward` is the engine or the bare Distiller: called with (batch, mode="embed")."""
        self.preprocess = model.preprocess
        self.model, self.forward, self.device, self.teacher = model, forward, device, teacher
        self.text_tower = text_tower
        if not text_tower and teacher is None:
            raise ConfigError(
                f"student {model.name} has no text tower and there is no teacher to borrow one from; set teacher.name"
            )

    def tokenizer(self) -> Tokenizer:
        """Of the text tower in use."""
        if self.text_tower:
            assert self.model.tokenizer is not None
            return build_tokenizer(self.model.tokenizer, self.model.context_length)
        assert self.teacher is not None
        return self.teacher.tokenizer()

    @torch.no_grad()
    def encode_image(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Unit-norm fp32."""
        return self.forward({"student_images": images.to(self.device)}, mode="embed")["image"].float()

    @torch.no_grad()
    def encode_text(self, tokens: Int[Tensor, "m l"]) -> Float[Tensor, "m e"]:
        """Unit-norm fp32."""
        if not self.text_tower:
            assert self.teacher is not None
            return self.teacher.encode_text(tokens)
        return self.forward({"student_tokens": tokens.to(self.device)}, mode="embed")["text"].float()

"""A teacher known from the manifest of its store: trained from without being in memory."""

from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from toolkit import config
from toolkit.config import Preprocess
from toolkit.models.teacher import Teacher, build_teacher
from toolkit.models.tokenizers import Tokenizer


class StoredTeacher(Teacher):
    """Answers as the teacher that filled a store would; it is loaded when something new has to be encoded (evaluation,
    class names) and let go by `release`.
    """

    def __init__(
        self, cfg: config.Teacher, manifests: dict[str, dict[str, Any]], precision: str, device: torch.device
    ) -> None:
        """`manifests` of its stores, by `image` and `text`; of embeddings from elsewhere only the width is known."""
        image, text = manifests["image"], manifests.get("text", {})
        self.cfg, self.manifests, self.precision, self.device = cfg, manifests, precision, device
        self.name, self.embed_dim = image["teacher"], int(image["width"])
        known = image.get("preprocess") or {}
        options: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in known.items()}
        self.preprocess = Preprocess(**options)
        self.tokenizer_name = image.get("tokenizer_name")
        self.context_length = int(text.get("context_length", 77))
        self.dtype = getattr(torch, image.get("computed_in", "float32"))
        self.logit_scale, self.logit_bias = (scalar(image.get(name), device) for name in ("logit_scale", "logit_bias"))
        self._loaded: Teacher | None = None

    @property
    def image_params(self) -> int:
        """0 where the store came from elsewhere."""
        return int(self.manifests["image"].get("image_params", 0))

    @property
    def text_params(self) -> int:
        """0 where the store came from elsewhere."""
        return int(self.manifests["image"].get("text_params", 0))

    def loaded(self) -> Teacher:
        """The teacher itself."""
        if self._loaded is None:
            self._loaded = build_teacher(self.cfg, self.precision, self.device)
        return self._loaded

    def release(self) -> None:
        """Out of memory again."""
        self._loaded = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def tokenizer(self) -> Tokenizer:
        """Its own."""
        return self.loaded().tokenizer()

    def encode_image(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Unit-norm fp32."""
        return self.loaded().encode_image(images)

    def encode_text(self, tokens: Int[Tensor, "m l"]) -> Float[Tensor, "m e"]:
        """Unit-norm fp32."""
        return self.loaded().encode_text(tokens)


def scalar(value: float | None, device: torch.device) -> Tensor | None:
    """[1]."""
    return None if value is None else torch.tensor([float(value)], device=device)

"""A model as the evaluation sees it: its encoder, and what a report says about it."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from toolkit.evaluate.models import Encoder


@dataclass
class Judged:
    """One of the models that are judged side by side."""

    name: str
    """Its row: `student`, `teacher`, or the word it was asked by."""
    what: str
    """Where its weights come from, in words."""
    encoder: Encoder
    sha256: str
    """Of the weights and of whatever else decides its embeddings of pictures: precision, numerics, format."""
    embed_dim: int
    image_params: int | None = None
    """None where a format does not tell."""
    text_params: int | None = None
    image_module: nn.Module | None = None
    """Has `encode_image(normalised pictures [b, 3, h, w]) -> [b, e]`, not unit norm, with a gradient; None where there is no
    torch module (ONNX)."""
    logit_scale: float = 100.0
    """Already exponentiated; 100 where it has none of its own, as in ELEVATER."""
    text_sha256: str = ""
    """The same for sentences, where another model encodes them; empty: as `sha256`."""
    licence: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    """More for the report: name, tag, checkpoint, numerics."""

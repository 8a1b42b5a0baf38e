"""Small inputs for every registered loss, and how to call it on them."""

from typing import Any

import torch
from torch import Tensor, nn

from toolkit.embeddings import Embeddings
from toolkit.losses import LOSSES, build_loss

B, E = 4, 3
STUDENT_SCALE, STUDENT_BIAS = 5.0, -1.0
TEACHER_SCALE, TEACHER_BIAS = 7.0, -2.0
SECOND_SCALE = 6.0
LETTERS = {"z": E, "y": E, "m": E, "v": E, "t": E, "v2": E + 1, "t2": E + 1}
"""Student's images, texts and masked images; the teacher's images and texts; a second teacher's, of another width."""
STUDENT, TEXTS = ("z", "y", "m"), ("y", "t", "t2")


def needs_of(name: str) -> frozenset[str]:
    return frozenset(LOSSES[name].needs)  # type: ignore[arg-type]


OPTIONAL_TEXT = [name for name in LOSSES if "text" in needs_of(name) and "student_text" not in needs_of(name)]
"""Losses that take the teacher's sentences for the student's where it has no text tower."""
VARIANTS = [(name, "student_text" in needs_of(name)) for name in LOSSES] + [(name, True) for name in OPTIONAL_TEXT]
"""(loss, does the student have a text tower)"""
CLASSES = torch.tensor([[1, 0.2, 0], [0.9, 0.4, -0.1], [1.2, 0.1, -0.4], [1, 0.5, 0.1], [0.8, 0.2, 0.2]]).double()


def near(base: Tensor, amount: float, seed: int) -> Tensor:
    """Rows a little off, so that probabilities at scale 100 are not all 0 or 1."""
    noise = torch.randn(base.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return base + amount * noise


def features(rows: int = B, texts: int = B, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Raw features, leaves with gradient, close to one direction."""
    found = {}
    for seed, (letter, width) in enumerate(LETTERS.items(), 1):
        centre = torch.tensor([[1.0, 0.3, -0.2, 0.1][:width]], dtype=torch.float64)
        rows_of_it = texts if letter in TEXTS else rows
        found[letter] = near(centre.expand(rows_of_it, width), 0.15, seed).to(dtype).requires_grad_()
    return found


def build(name: str, dtype: torch.dtype = torch.float64, **options: Any) -> nn.Module:
    """The loss with what a run would hand to it, its parameters the same each time."""
    given = {"embed_dim": E, "class_embeddings": CLASSES}
    torch.manual_seed(0)
    wanted: Any = LOSSES[name].built_with
    return build_loss(name, **{key: given[key] for key in wanted}, **options).to(dtype)


def student_of(raw: dict[str, Tensor], text: bool, scale: float | Tensor = STUDENT_SCALE) -> Embeddings:
    """With a scale and a bias of its own."""
    like = raw["z"].detach()
    return Embeddings(
        image=raw["z"], text=raw["y"] if text else None, masked_image=raw["m"],
        logit_scale=scale if isinstance(scale, Tensor) else like.new_full((1,), scale),
        logit_bias=like.new_full((1,), STUDENT_BIAS),
    )  # fmt: skip


def teacher_of(raw: dict[str, Tensor], second: bool = True) -> Embeddings:
    """The main teacher, and another one as in an ensemble."""
    like = raw["v"].detach()
    other = Embeddings(image=raw["v2"], text=raw["t2"], logit_scale=like.new_full((1,), SECOND_SCALE))
    return Embeddings(
        image=raw["v"], text=raw["t"], others=(other,) if second else (),
        logit_scale=like.new_full((1,), TEACHER_SCALE), logit_bias=like.new_full((1,), TEACHER_BIAS),
    )  # fmt: skip


def call(name: str, raw: dict[str, Tensor], text: bool | None = None, **options: Any) -> Tensor:
    """A new loss on raw features; the student's sentences are given where it must have them, or where asked."""
    text = "student_text" in needs_of(name) if text is None else text
    dtype = torch.float64 if raw["z"].dtype == torch.float64 else torch.float32
    return build(name, dtype, **options)(student_of(raw, text), teacher_of(raw))

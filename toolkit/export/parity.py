"""Does an export give back what the student gives, on pictures and sentences drawn at random."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from toolkit.data.images import plain_view
from toolkit.embeddings import unit
from toolkit.errors import ExportError
from toolkit.export.source import Source
from toolkit.models.contract import normalise

BOUND = 1e-5
"""Largest absolute difference of unit-norm embeddings, and of probabilities, in fp32."""
LEVELS_BOUND = 0.01
"""Largest difference of prepared pictures, in levels of 0..255, where the library shall prepare them as the student does."""
ROWS = 5
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ODD = ("", "A RED square, left of two blue dots!", "it's 3 o'clock; 50% off", "one " * 100)
"""Nothing, capitals and marks, figures, and more words than fit."""


@dataclass
class LoadedBack:
    """An export as the other library loads it; what the format does not hold is None."""

    image: Callable[[Tensor], Tensor] | None = None
    """Normalised pictures [b, 3, h, w] -> unit-norm embeddings [b, e]."""
    text: Callable[[Tensor], Tensor] | None = None
    """Tokens [b, l] -> unit-norm embeddings [b, e]."""
    probabilities: Callable[[Tensor], Tensor] | None = None
    """Normalised pictures [b, 3, h, w] -> probabilities [b, k]."""
    tokenize: Callable[[Sequence[str]], Tensor] | None = None
    """Sentences -> tokens [b, l], padded with the tokenizer's pad id."""
    prepare: Callable[[Image.Image], Tensor] | None = None
    """A picture -> normalised [3, h, w]."""


def drawn_images(source: Source) -> Tensor:
    """Pictures of noise, normalised for the student: [5, 3, h, w]."""
    side = source.student.preprocess.image_size
    pixels = torch.randint(0, 256, (ROWS, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return normalise(pixels, source.student.preprocess)


def drawn_sentences() -> list[str]:
    """Words of random letters, and what tokenizers stumble over."""
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list(LETTERS), random.integers(1, 9))) for _ in range(40)]
    return [*ODD, *(" ".join(random.choice(words, random.integers(1, 12))) for _ in range(ROWS))]


def drawn_picture(side: int) -> Image.Image:
    """A smooth picture half as large again as the student's, wider than high."""
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize((2 * side, side + side // 2), Image.Resampling.BICUBIC)


@torch.no_grad()
def compare(source: Source, loaded: LoadedBack, head: Tensor | None = None) -> dict[str, float]:
    """Largest absolute differences: `image_features`, `text_features`, `probabilities`, `tokens` (how many differ) and
    `picture_levels` (of 0..255, through the other library's own preparation).

    `head` [k, e] is that of `classifier`. Batches of one and of several go through, so that a batch that was taken for a
    constant shows.
    """
    found: dict[str, float] = {}
    images, sentences = drawn_images(source), drawn_sentences()
    embedded = unit(source.student.module.encode_image(images))  # type: ignore[operator]
    if loaded.image is not None:
        found["image_features"] = largest(loaded.image, images, embedded)
    if loaded.probabilities is not None:
        assert head is not None
        found["probabilities"] = largest(loaded.probabilities, images, (embedded @ head.T).softmax(dim=-1))
    tokens = source.tokenizer()(sentences)
    if loaded.text is not None:
        wanted = unit(source.text.module.encode_text(tokens))  # type: ignore[operator]
        found["text_features"] = largest(loaded.text, tokens, wanted)
    if loaded.tokenize is not None:
        theirs = loaded.tokenize(sentences)
        found["tokens"] = float((theirs != tokens).sum()) if theirs.shape == tokens.shape else math.inf
    if loaded.prepare is not None:
        preprocess = source.student.preprocess
        picture = drawn_picture(preprocess.image_size)
        ours = normalise(plain_view(picture, preprocess)[None], preprocess)[0]
        deviation = torch.tensor(preprocess.std).view(3, 1, 1)
        found["picture_levels"] = float(((loaded.prepare(picture) - ours) * deviation * 255).abs().max())
    return found


def largest(function: Callable[[Tensor], Tensor], given: Tensor, wanted: Tensor) -> float:
    """Largest absolute difference over a batch of one and the rest; infinite where shapes differ or numbers are none."""
    rows = torch.cat([function(given[:1]), function(given[1:])])
    if rows.shape != wanted.shape or not bool(rows.isfinite().all()):
        return math.inf
    return float((rows - wanted).abs().max())


def insist(found: dict[str, float], to: str) -> None:
    """Raise ExportError for an export that does not reproduce the student; `picture_levels` counts where it must be exact."""
    bounds = {"image_features": BOUND, "text_features": BOUND, "probabilities": BOUND, "tokens": 0.0}
    if to == "open_clip":
        bounds["picture_levels"] = LEVELS_BOUND
    wrong = [f"{name} differ by {found[name]:.2e} (at most {bounds[name]:.0e})" for name in found if
             name in bounds and not found[name] <= bounds[name]]  # fmt: skip
    if wrong:
        raise ExportError(
            f"the {to} export, loaded back, does not give what the student gives: {'; '.join(wrong)}. Its files were removed; "
            "export to another format, and report this one with the student's name and the versions of both libraries"
        )

"""Made-up pictures and a tiny tower for the tests of fine-tuning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from toolkit.config import Preprocess
from toolkit.evaluate.tune.pictures import HeldViews, LabelledViews, TunedImages

SIDE, WIDTH = 6, 5
PREPROCESS = Preprocess(image_size=SIDE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


class Tower(nn.Module):
    """A convolution, a nonlinearity, a linear layer; and a text side that pictures never reach."""

    def __init__(self, *more: nn.Module, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.visual = nn.Sequential(
                nn.Conv2d(3, 4, 3, stride=2), *more, nn.GELU(), nn.Flatten(), nn.Linear(16, WIDTH)
            )
            self.token_embedding = nn.Embedding(7, WIDTH)
        self.to(dtype)

    def encode_image(self, images: Tensor) -> Tensor:
        return 3 * self.visual(images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.token_embedding(tokens).mean(dim=1)


@dataclass
class Watched:
    """Views that note what was asked of them."""

    views: HeldViews
    asked: list[list[int]] = field(default_factory=list)
    when: list[str] = field(default_factory=list)
    """Shared by several, each under its `name`."""
    name: str = ""

    def __len__(self) -> int:
        return len(self.views)

    def batches(self, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        self.when.append(self.name)
        for one, found in zip(rows, self.views.batches(rows), strict=True):
            self.asked.append(one.tolist())
            yield found


def pictures(train: int, test: int, *, classes: int = 3, multi_label: bool = False, noise: float = 60) -> TunedImages:
    """Each class adds its own pattern to noise; every picture of several classes shows the sum."""
    generator = torch.Generator().manual_seed(3)
    patterns = 60 * torch.randn(classes, 3, SIDE, SIDE, generator=generator)
    count = train + test
    if multi_label:
        labels = (torch.rand(count, classes, generator=generator) < 0.4).to(torch.uint8)
        pure = torch.einsum("nk,kchw->nchw", labels.float(), patterns)
    else:
        labels = torch.arange(count) % classes
        pure = patterns[labels]
    drawn = 128 + pure + noise * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    views = drawn.clamp(0, 255).to(torch.uint8)
    parts = [LabelledViews(HeldViews(views[rows]), labels[rows]) for rows in (slice(train), slice(train, None))]
    return TunedImages(parts[0], parts[1], PREPROCESS)


def text_head(classes: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    """[k, WIDTH], unit rows."""
    rows = torch.randn(classes, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return nn.functional.normalize(rows, dim=1).to(dtype)


def seen(views: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normalised pictures, written out again."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (PREPROCESS.mean, PREPROCESS.std))
    return ((views.float() / 255 - mean) / std).to(dtype)

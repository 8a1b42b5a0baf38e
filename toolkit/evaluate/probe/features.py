"""What a probe reads: cached features with their labels, and where the heads start."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.errors import DataError


@dataclass(frozen=True)
class Labelled:
    """Pictures by their features [n, d] (fp32 or fp64) and labels: class numbers [n], or a 0/1 matrix [n, k]."""

    features: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Pictures."""
        return len(self.features)

    @property
    def multi_label(self) -> bool:
        """Whether a picture may show several classes."""
        return self.labels.ndim == 2

    def at(self, rows: Sequence[int]) -> "Labelled":
        """These pictures, in this order."""
        index = torch.tensor(rows, dtype=torch.int64)
        return Labelled(self.features[index], self.labels[index])


@dataclass(frozen=True)
class Start:
    """Weights before the first step."""

    weight: Tensor
    """[k, e]"""
    bias: Tensor
    """[k]"""
    projection: Tensor | None = None
    """[d, e]: trained with the head when given. Features are then those before the projection."""

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(part.numel() for part in (self.weight, self.bias, self.projection) if part is not None)


def start_from(
    classes: int, width: int, text_head: Tensor | None, projection: Tensor | None, seed: int, like: Tensor
) -> Start:
    """The zero-shot text matrix [k, e] with bias 0; without one, uniform in +-1/sqrt(e), as torch's Linear begins.

    Precision and device are those of `like`.
    """
    if text_head is not None:
        return Start(text_head.to(like), like.new_zeros(classes), _cast(projection, like))
    generator = torch.Generator().manual_seed(seed)
    bound = 1 / math.sqrt(width)
    weight = (2 * torch.rand(classes, width, generator=generator, dtype=like.dtype) - 1) * bound
    bias = (2 * torch.rand(classes, generator=generator, dtype=like.dtype) - 1) * bound
    return Start(weight.to(like), bias.to(like), _cast(projection, like))


def _cast(projection: Tensor | None, like: Tensor) -> Tensor | None:
    return None if projection is None else projection.to(like)


def check(train: Labelled, test: Labelled, classes: int, text_head: Tensor | None, projection: Tensor | None) -> int:
    """The width of the head; raises DataError for parts that do not fit together."""
    for name, part in (("training", train), ("test", test)):
        _check_part(name, part, classes, train.multi_label)
    width = train.features.shape[1]
    if test.features.shape[1] != width:
        raise DataError(
            f"linear probe: training features are {width} wide, test features {test.features.shape[1]}; compute both "
            "with one model"
        )
    if projection is not None and (projection.ndim != 2 or projection.shape[0] != width):
        raise DataError(
            f"linear probe: the projection must be [{width}, embed_dim], as the features are {width} wide (those before "
            f"the projection); found {list(projection.shape)}; transpose it or give the features before it"
        )
    embed_dim = width if projection is None else projection.shape[1]
    if text_head is not None and list(text_head.shape) != [classes, embed_dim]:
        raise DataError(
            f"linear probe: the text head must be {[classes, embed_dim]}, a row per class; found "
            f"{list(text_head.shape)}; take the class names of this set and the text tower of this model"
        )
    return embed_dim


def _check_part(name: str, part: Labelled, classes: int, multi_label: bool) -> None:
    """Raise DataError for features or labels that cannot be trained on or judged."""
    features, labels = part.features, part.labels
    if features.ndim != 2 or features.dtype not in (torch.float32, torch.float64) or len(part) < 2:
        raise DataError(
            f"linear probe: {name} features must be fp32 or fp64 [pictures, width], 2 pictures or more; found "
            f"{features.dtype} {list(features.shape)}"
        )
    check_labels(f"linear probe: {name}", labels, len(part), classes, multi_label)
    if not bool(features.isfinite().all()):
        bad = int((~features.isfinite()).any(dim=1).sum())
        raise DataError(
            f"linear probe: {bad} of {len(part)} {name} pictures have features that are not finite; compute them anew"
        )


def check_labels(what: str, labels: Tensor, count: int, classes: int, multi_label: bool) -> None:
    """Raise DataError for labels of `count` pictures that are no class numbers, or no 0/1 matrix; `what` begins the message."""
    wanted = [count, classes] if multi_label else [count]
    if list(labels.shape) != wanted:
        raise DataError(f"{what} labels must have the shape {wanted}; found {list(labels.shape)}")
    top = 2 if multi_label else classes
    low, high = int(labels.min()), int(labels.max())
    if labels.is_floating_point() or (labels.dtype != torch.int64 and not multi_label) or low < 0 or high >= top:
        raise DataError(
            f"{what} labels must be whole numbers (int64) in 0..{top - 1}; found {labels.dtype} from "
            f"{low} to {high}; mend the labels or the number of classes"
        )

"""The network that is fine-tuned: a copy of the image tower, unit length, BatchNorm without affine, a linear head."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.config import Preprocess
from toolkit.embeddings import unit
from toolkit.errors import ConfigError, DataError
from toolkit.evaluate.probe.features import Start, start_from
from toolkit.models.contract import checked_width, normalise
from toolkit.models.frozen import unquicken

BUILD_FRESH = "give a module_factory that builds the model fresh from its weights, as for training"


class Tuned(nn.Module):
    """uint8 pictures [b, 3, h, w] -> logits [b, k]. Its parameters are those of a tower it owns."""

    def __init__(self, tower: nn.Module, start: Start, preprocess: Preprocess) -> None:
        super().__init__()
        classes, width = start.weight.shape
        self.tower, self.preprocess = tower, preprocess
        self.norm = nn.BatchNorm1d(width, affine=False, device=start.weight.device, dtype=start.weight.dtype)
        self.head = nn.Linear(width, classes, device="meta")  # draws nothing from anybody's generator
        self.head.weight, self.head.bias = nn.Parameter(start.weight.clone()), nn.Parameter(start.bias.clone())

    def forward(self, images: Tensor) -> Tensor:
        """Normalised on the device."""
        features = self.tower.encode_image(as_seen(images, self.preprocess, self.head.weight))  # type: ignore[operator]
        return self.head(self.norm(unit(features)))


def as_seen(images: Tensor, preprocess: Preprocess, like: Tensor) -> Tensor:
    """Normalised pictures, on the device and in the precision of a parameter."""
    return normalise(images.to(like.device), preprocess).to(like.dtype)


@dataclass(frozen=True)
class Beginning:
    """Where every trial begins."""

    network: Tuned

    @property
    def device(self) -> torch.device:
        """Where it trains: where the given module was."""
        return self.network.head.weight.device

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(part.numel() for part in self.network.parameters() if part.requires_grad)

    def fresh(self) -> Tuned:
        """A copy with weights, buffers and momenta of its own; what is not trained (a text tower) is shared."""
        shared = {id(part): part for part in self.network.parameters() if not part.requires_grad}
        return copy.deepcopy(self.network, shared)


def begin(
    module_factory: Callable[[], Any],
    pictures: Tensor,
    classes: int,
    text_head: Tensor | None,
    seed: int,
    preprocess: Preprocess,
) -> Beginning:
    """The tower copied, its trained parameters found, the head set up; the module given is not touched.

    `pictures` are two of the set (uint8), to see what they move. A tower in half precision trains in fp32 (what rounding
    took from its weights stays lost); float64 stays float64. Raises ConfigError for a module that cannot be trained.
    """
    given = module_factory()
    tower = copied(given)
    like = next(part for part in tower.parameters() if part.is_floating_point())
    seen = as_seen(pictures, preprocess, like)
    width = checked_width(tower, "encode_image", seen, "fine-tune: the model")
    if text_head is not None and list(text_head.shape) != [classes, width]:
        raise DataError(
            f"fine-tune: the text head must be {[classes, width]}, a row per class; found {list(text_head.shape)}; "
            "take the class names of this set and the text tower of this model"
        )
    used = moved_by_pictures(tower, seen)
    asked = used & {name for name, part in given.named_parameters() if part.requires_grad}
    for name, part in tower.named_parameters():
        part.requires_grad_(name in (asked or used))
    return Beginning(Tuned(tower, start_from(classes, width, text_head, None, seed, like), preprocess))


def copied(given: Any) -> nn.Module:
    """A copy in fp32 or float64, in eval mode, with attention that knows dropout again."""
    if not isinstance(given, nn.Module) or not callable(getattr(given, "encode_image", None)):
        raise ConfigError(
            f"fine-tune: module_factory gave a {type(given).__name__}; it must give a torch module with encode_image "
            "(a model in a format without one cannot be fine-tuned)"
        )
    if any("train" in vars(part) for part in given.modules()):  # put there by torch.export; a copy would forget it
        raise ConfigError(f"fine-tune: {type(given).__name__} is an exported graph, which cannot train; {BUILD_FRESH}")
    try:
        tower = copy.deepcopy(given)
    except Exception as error:
        first_line = (str(error).splitlines() or [""])[0]
        raise ConfigError(
            f"fine-tune: a {type(given).__name__} cannot be copied for training ({type(error).__name__}: {first_line}); "
            f"{BUILD_FRESH}"
        ) from error
    unquicken(tower)
    kinds = {part.dtype for part in tower.parameters() if part.is_floating_point()}
    if not kinds:
        raise no_gradient(given, "it has no parameters in floating point")
    return (tower if torch.float64 in kinds else tower.float()).eval()


def moved_by_pictures(tower: nn.Module, seen: Tensor) -> set[str]:
    """Names of the parameters that encode_image depends on; ConfigError where no gradient reaches any."""
    parts = {name: part.requires_grad_() for name, part in tower.named_parameters() if part.is_floating_point()}
    with torch.enable_grad():
        features = tower.encode_image(seen)  # type: ignore[operator]
        if not features.requires_grad:
            raise no_gradient(tower, "its encode_image runs without gradient")
        try:
            slopes = torch.autograd.grad(features.sum(), list(parts.values()), allow_unused=True)
        except RuntimeError as error:
            raise no_gradient(tower, str(error).splitlines()[0]) from error
    return {name for name, slope in zip(parts, slopes, strict=True) if slope is not None}


def no_gradient(module: nn.Module, why: str) -> ConfigError:
    """What to raise for a tower that cannot learn."""
    return ConfigError(
        f"fine-tune: no gradient reaches the image tower of {type(module).__name__}: {why}; {BUILD_FRESH}"
    )

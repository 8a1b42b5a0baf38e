"""What a model must offer, and the check that says what is missing."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from toolkit.config import Preprocess
from toolkit.errors import ConfigError


@dataclass
class Model:
    """A network and what belongs to it: how it wants pictures and words."""

    module: nn.Module
    """Has `encode_image(images [b, 3, h, w]) -> [b, e]` and perhaps `encode_text(tokens [b, l]) -> [b, e]`."""
    preprocess: Preprocess
    name: str
    embed_dim: int
    tokenizer: str | None = None
    """open_clip name or path of a sentencepiece model; None: it has no text side."""
    context_length: int = 77

    @property
    def image_params(self) -> int:
        """Parameters of the image tower (`visual` where the module names it so, else all)."""
        return count_parameters(getattr(self.module, "visual", self.module))

    @property
    def text_params(self) -> int:
        """Everything that is not the image tower."""
        return count_parameters(self.module) - self.image_params


def count_parameters(module: nn.Module) -> int:
    """Numbers in all parameters; counts ZeRO-3 partitioned ones whole."""
    return sum(int(getattr(p, "ds_numel", p.numel())) for p in module.parameters())


def normalise(images: UInt8[Tensor, "b 3 h w"], preprocess: Preprocess) -> Float[Tensor, "b 3 h w"]:
    """Bytes to the model's mean and standard deviation, in fp32, on the images' device."""
    mean, std = (constants(values, images.device) for values in (preprocess.mean, preprocess.std))
    return (images.float() / 255 - mean) / std


def constants(values: tuple[float, ...], device: torch.device) -> Float[Tensor, "1 3 1 1"]:
    """Filled on the device: a copy from pageable memory at each step would wait for the GPU."""
    return torch.cat([torch.full((1, 1, 1, 1), value, device=device) for value in values], dim=1)


def scalar_parameters(module: nn.Module) -> list[str]:
    """Names of 0-d parameters: deepspeed 0.19.8 cannot start with one, in any ZeRO stage."""
    return [name for name, parameter in module.named_parameters() if parameter.dim() == 0]


def check_model(
    module: Any, preprocess: Preprocess, *, asked_by: str, text_tower: bool, context_length: int = 77
) -> int:
    """Push two fake pictures, with `text_tower` two sentences, through and return the embedding width.

    `asked_by` is the setting that named the model, such as `student.name=my_models:small`. A model on the meta device is
    only asked for shapes. Raises ConfigError saying which method, shape or dtype is wrong.
    """
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{asked_by} gave a {type(module).__name__}; it must return a torch.nn.Module")
    side = preprocess.image_size
    empty = any(parameter.is_meta for parameter in module.parameters())
    if empty:
        module.to("meta")  # accelerate's empty initialisation leaves buffers where they were
    fake = {"encode_image": torch.zeros(2, 3, side, side, device="meta" if empty else "cpu")}
    if text_tower:
        fake["encode_text"] = torch.ones(2, context_length, dtype=torch.int64, device="meta" if empty else "cpu")
    for method in fake:
        if not callable(getattr(module, method, None)):
            hint = " (if its forward already returns embeddings, add encode_image = forward to the class)"
            raise ConfigError(f"{asked_by} has no method {method}{hint if method == 'encode_image' else ''}")
    if names := scalar_parameters(module):
        raise ConfigError(
            f"{asked_by} has 0-d parameters ({', '.join(names)}), with which DeepSpeed cannot start; "
            "give them the shape (1,), for example nn.Parameter(torch.ones(1) * value)"
        )
    was_training = module.training
    module.eval()
    try:
        widths = [checked_width(module, method, given, asked_by) for method, given in fake.items()]
    finally:
        module.train(was_training)
    if len(set(widths)) > 1:
        raise ConfigError(
            f"{asked_by}: encode_image returns width {widths[0]}, encode_text {widths[1]}; make them equal"
        )
    return widths[0]


@torch.no_grad()
def checked_width(module: nn.Module, method: str, given: Tensor, asked_by: str) -> int:
    """Width of what a method returns for two samples; raises ConfigError unless it is a finite [2, e]."""
    try:
        found = getattr(module, method)(given)
    except Exception as error:
        first_line = (str(error).splitlines() or [""])[0]
        dtype = str(given.dtype).removeprefix("torch.")
        raise ConfigError(
            f"{asked_by}: {method} failed on a {dtype} tensor of shape {list(given.shape)}: "
            f"{type(error).__name__}: {first_line}"
        ) from error
    if not isinstance(found, Tensor):
        raise ConfigError(f"{asked_by}: {method} must return a tensor [b, e], it returned {type(found).__name__}")
    if found.dim() != 2 or len(found) != 2:
        raise ConfigError(
            f"{asked_by}: {method} must return [b, e], for 2 samples it returned {list(found.shape)}; pool and flatten"
        )
    if not found.is_floating_point() or not (found.is_meta or bool(found.isfinite().all())):
        values = "no values" if found.is_meta else found[0, :3].tolist()
        raise ConfigError(f"{asked_by}: {method} must return finite floats, it returned {found.dtype} with {values}")
    return int(found.shape[1])

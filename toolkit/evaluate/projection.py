"""A model's last linear layer apart from the rest, for probes that train it too (DIME-FM's own did, by the name it had)."""

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from toolkit.errors import ConfigError
from toolkit.evaluate.judged import Judged
from toolkit.models.contract import normalise


def before_projection(judged: Judged) -> tuple[Callable[[Tensor], Tensor], Float[Tensor, "d e"]]:
    """(pictures uint8 [b, 3, h, w] -> features [b, d] in fp32, the projection): unit(features @ projection) is its embedding.

    Raises ConfigError for a model whose embedding does not end in a linear layer without bias that is known by name.
    """
    module = judged.image_module
    found = None if module is None else projection_of(module)
    if module is None or found is None:
        raise ConfigError(
            f"--trained-projection: {judged.what} does not end in a projection that is known (visual.proj of a ViT, head.proj of "
            "a timm tower, image_projection); leave the option out"
        )
    owner, name, weight = found
    preprocess = judged.encoder.preprocess
    some = next(module.parameters())

    @torch.no_grad()
    def encode(images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Without the last layer."""
        kept = getattr(owner, name)
        setattr(owner, name, None if isinstance(kept, nn.Parameter) else nn.Identity())
        try:
            pixels = normalise(images.to(some.device), preprocess).to(some.dtype)
            features: Tensor = module.encode_image(pixels)  # type: ignore[operator]
            return features.float()
        finally:
            setattr(owner, name, kept)

    return encode, weight.detach().float().cpu()


def projection_of(module: nn.Module) -> tuple[nn.Module, str, Tensor] | None:
    """(its owner, its name there, weight [d, e])."""
    visual = getattr(module, "visual", None)
    weight = getattr(visual, "proj", None)
    if isinstance(visual, nn.Module) and isinstance(weight, nn.Parameter):
        return visual, "proj", weight
    for owner, name in ((getattr(visual, "head", None), "proj"), (module, "image_projection")):
        layer = getattr(owner, name, None)
        if isinstance(owner, nn.Module) and isinstance(layer, nn.Linear) and layer.bias is None:
            return owner, name, layer.weight.T
    return None

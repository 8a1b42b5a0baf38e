"""What a layout's reader hands on: the model in this toolkit's names, and everything that has to be said about it."""

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from toolkit.config import Preprocess


@dataclass(frozen=True)
class Found:
    """A model from elsewhere, ready to be built: `build_model(name, kwargs)` and `weights` into it."""

    layout: str
    name: str
    """open_clip architecture or `timm/<name>`."""
    kwargs: dict[str, Any]
    embed_dim: int
    text_tower: bool
    preprocess: Preprocess
    weights: dict[str, Tensor]
    """By the toolkit's names."""
    sources: dict[str, str]
    """The toolkit's name -> the name in the file."""
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """Why -> names in the file that are not taken over."""
    notes: tuple[str, ...] = ()
    """Decisions to be told, one sentence each."""

    def without_text(self) -> "Found":
        """The image tower alone; `kwargs` of the text tower go too."""
        text = [key for key in self.weights if not key.startswith("visual.")]
        return replace(
            self,
            text_tower=False,
            kwargs={key: value for key, value in self.kwargs.items() if key != "text_cfg"},
            weights={key: value for key, value in self.weights.items() if key not in text},
            dropped={**self.dropped, "text tower, as --image-only asks": [self.sources.get(key, key) for key in text]},
        )


def renamed(tensors: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """`names`: the toolkit's name -> the file's. fp32, and learnt scalars as [1] instead of 0-d (DeepSpeed refuses 0-d)."""
    found = {}
    for name, source in names.items():
        value = tensors[source]
        value = value.float() if value.is_floating_point() else value
        found[name] = value.reshape(1) if name in ("logit_scale", "logit_bias") else value
    return found

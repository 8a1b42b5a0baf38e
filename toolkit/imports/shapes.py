"""An open_clip architecture from the shapes of CLIP weights, and its name."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import open_clip
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from toolkit.errors import CheckpointError

CLIP_WORDS = 49408
"""Pieces of CLIP's tokenizer."""
PLAIN = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
"""Keys of an architecture that has nothing beyond CLIP's two towers."""


def count_blocks(names: Iterable[str], pattern: str) -> int:
    """One more than the highest number that `pattern` captures; 0 when nothing matches. Gaps show later as missing."""
    numbers = [int(match[1]) for name in names if (match := re.match(pattern, name))]
    return max(numbers, default=-1) + 1


def need(tensors: dict[str, Tensor], name: str, dims: int) -> tuple[int, ...]:
    """Shape of a tensor that decides the architecture; raises CheckpointError when it is missing or of another rank."""
    if name not in tensors:
        near = difflib.get_close_matches(name, tensors, n=1)
        hint = f" (nearest in the file: {near[0]})" if near else ""
        raise CheckpointError(
            f"{name} is missing{hint}, which says the size of the model; give a file with the whole model, or its layout"
        )
    shape = tuple(tensors[name].shape)
    if len(shape) != dims or 0 in shape:
        raise CheckpointError(f"{name} is {list(shape)}, wanted {dims} sizes above 0; this is no model of that layout")
    return shape


def vision_of(tensors: dict[str, Tensor], head_width: int = 64) -> dict[str, Any]:
    """open_clip's `vision_cfg` of a ViT or of CLIP's ResNet, from names `visual.*`; heads are 64 wide in CLIP."""
    if "visual.layer1.0.conv1.weight" in tensors:
        width = need(tensors, "visual.layer1.0.conv1.weight", 4)[0]
        counts = [count_blocks(tensors, rf"visual\.layer{part}\.(\d+)\.") for part in (1, 2, 3, 4)]
        side = square_root(need(tensors, "visual.attnpool.positional_embedding", 2)[0] - 1, "visual.attnpool")
        return {"layers": counts, "width": width, "patch_size": None, "image_size": 32 * side}
    width, _, _, patch = need(tensors, "visual.conv1.weight", 4)
    side = square_root(need(tensors, "visual.positional_embedding", 2)[0] - 1, "visual.positional_embedding")
    hidden = need(tensors, "visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0]
    if width % head_width:
        raise CheckpointError(f"visual.conv1.weight has width {width}, which heads of {head_width} do not divide")
    return {
        "layers": count_blocks(tensors, r"visual\.transformer\.resblocks\.(\d+)\."),
        "width": width,
        "head_width": head_width,
        "mlp_ratio": hidden / width,
        "patch_size": patch,
        "image_size": patch * side,
    }


def square_root(count: int, where: str) -> int:
    """Side of a square of patches."""
    side = round(max(count, 0) ** 0.5)
    if side < 1 or side * side != count:
        raise CheckpointError(f"{where} has {count} places beside the class token, which is no square of patches")
    return side


def text_of(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """open_clip's `text_cfg` of CLIP's text tower, from names without a prefix."""
    words, width = need(tensors, "token_embedding.weight", 2)
    hidden = need(tensors, "transformer.resblocks.0.mlp.c_fc.weight", 2)[0]
    if width % 64:
        raise CheckpointError(f"token_embedding.weight has width {width}, which heads of 64 do not divide")
    return {
        "context_length": need(tensors, "positional_embedding", 2)[0],
        "vocab_size": words,
        "width": width,
        "heads": width // 64,
        "layers": count_blocks(tensors, r"transformer\.resblocks\.(\d+)\."),
        "mlp_ratio": hidden / width,
    }


def complete(vision: dict[str, Any], text: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Both with open_clip's defaults filled in, so that they can be compared."""
    shown = asdict(CLIPVisionCfg(**vision))
    shown["layers"] = list(shown["layers"]) if isinstance(shown["layers"], list | tuple) else shown["layers"]
    return shown, None if text is None else asdict(CLIPTextCfg(**text))


def known_names(vision: dict[str, Any], text: dict[str, Any] | None, quick_gelu: bool | None = None) -> list[str]:
    """open_clip architectures of these towers, shortest name first; `text` None: of any; `quick_gelu` None: either."""
    wanted = complete(vision, text)
    found = []
    for name in open_clip.list_models():
        cfg = open_clip.get_model_config(name)
        if cfg is None or not set(cfg) <= PLAIN or set(cfg["text_cfg"]) & {"hf_model_name", "hf_tokenizer_name"}:
            continue  # only those whose both towers are CLIP's
        if quick_gelu is not None and bool(cfg.get("quick_gelu", False)) != quick_gelu:
            continue
        if complete(cfg["vision_cfg"], cfg["text_cfg"] if text is not None else None) == wanted:
            found.append(name)
    return sorted(found, key=lambda name: (len(name), name))


def named(vision: dict[str, Any], text: dict[str, Any] | None, quick_gelu: bool) -> tuple[str, dict[str, Any]]:
    """(open_clip name, kwargs): a known architecture as it is, else ViT-B-32 or RN50 with every size laid over it."""
    if names := known_names(vision, text, quick_gelu):
        return names[0], {}
    base = ("RN50" if isinstance(vision["layers"], list) else "ViT-B-32") + ("-quickgelu" if quick_gelu else "")
    kwargs: dict[str, Any] = {"vision_cfg": dict(vision)}
    if text is not None:
        kwargs["text_cfg"] = dict(text)
    return base, kwargs


def with_eps(kwargs: dict[str, Any], vision: float, text: float | None = None) -> dict[str, Any]:
    """`kwargs` that build LayerNorms with these epsilons; open_clip's own 1e-5 is not written down."""
    found = dict(kwargs)
    for tower, eps in (("vision_cfg", vision), ("text_cfg", text)):
        if eps is not None and eps != 1e-5:
            found[tower] = {**found.get(tower, {}), "norm_kwargs": {"eps": eps}}
    return found

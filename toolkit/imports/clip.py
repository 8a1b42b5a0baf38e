"""Weights in CLIP's own names: OpenAI's (everything stands in the shapes) and open_clip's (the architecture must be said)."""

from dataclasses import asdict
from typing import Any

import open_clip
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from toolkit.config import Preprocess
from toolkit.errors import CheckpointError, ConfigError
from toolkit.imports.found import Found, renamed
from toolkit.imports.reading import Weights, first_keys
from toolkit.imports.shapes import (
    CLIP_WORDS,
    PLAIN,
    known_names,
    named,
    need,
    text_of,
    vision_of,
    with_eps,
)
from toolkit.registry import did_you_mean

JIT_NUMBERS = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's archives keep beside the weights."""


def from_openai(weights: Weights, layer_norm_eps: float | None) -> Found:
    """OpenAI's CLIP: sizes from the shapes, heads 64 wide, QuickGELU, LayerNorm eps 1e-5 unless another is given."""
    tensors = {key: value for key, value in weights.tensors.items() if key not in JIT_NUMBERS}
    if not any(key.startswith("visual.") for key in tensors):
        raise CheckpointError(
            f"{weights.path} is no CLIP of OpenAI: no name begins with visual.; its names are {first_keys(tensors)}"
        )
    vision = vision_of(tensors)
    text = text_of(tensors) if any(not key.startswith("visual.") for key in tensors) else None
    embed_dim = width_of(tensors)
    name, kwargs = named(vision, text, quick_gelu=True)
    eps = 1e-5 if layer_norm_eps is None else layer_norm_eps
    kwargs = with_eps(kwargs, eps, eps if text is not None else None)
    check_numbers(weights, vision, text)
    return Found(
        layout="openai",
        name=name,
        kwargs=kwargs,
        embed_dim=embed_dim,
        text_tower=text is not None,
        preprocess=Preprocess(image_size=vision["image_size"]),
        weights=renamed(tensors, {key: key for key in tensors}),
        sources={key: key for key in tensors},
        dropped={"numbers that the shapes say too": found}
        if (found := [k for k in JIT_NUMBERS if k in weights.tensors])
        else {},
        notes=(f"QuickGELU, LayerNorm eps {eps:g}, heads 64 wide, as in all of OpenAI's",),
    )


def check_numbers(weights: Weights, vision: dict[str, Any], text: dict[str, Any] | None) -> None:
    """Raise CheckpointError where a number beside the weights contradicts their shapes."""
    said = {"input_resolution": vision["image_size"]}
    if text is not None:
        said |= {"context_length": text["context_length"], "vocab_size": text["vocab_size"]}
    for key, value in said.items():
        if key in weights.tensors and int(weights.tensors[key]) != value:
            raise CheckpointError(
                f"{weights.path}: {key} says {int(weights.tensors[key])}, the shapes {value}; the file is not whole"
            )


def width_of(tensors: dict[str, Tensor]) -> int:
    """Width of the embeddings."""
    if "visual.attnpool.c_proj.weight" in tensors:
        return need(tensors, "visual.attnpool.c_proj.weight", 2)[0]
    return need(tensors, "visual.proj", 2)[1]


def from_open_clip_file(weights: Weights, architecture: str | None, layer_norm_eps: float | None) -> Found:
    """open_clip's weights into the architecture that `architecture` or the `open_clip_config.json` beside them names."""
    published = weights.configs.get("open_clip_config.json", {})
    notes: list[str] = []
    kwargs: dict[str, Any] = {}
    if architecture is not None:
        cfg = open_clip.get_model_config(architecture)
        if cfg is None:
            hint = did_you_mean(architecture, open_clip.list_models())
            raise ConfigError(f"--architecture: open_clip has no model {architecture!r}{hint or '.'}")
        name = architecture
        notes.append(f"architecture {architecture}, as you say")
    elif isinstance(cfg := published.get("model_cfg"), dict):
        name, kwargs = from_model_cfg(cfg, weights)
        notes.append(f"architecture of open_clip_config.json: {name}" + (" with other sizes" if kwargs else ""))
    else:
        raise ConfigError(undecided(weights))
    if layer_norm_eps is not None:
        kwargs = with_eps(kwargs, layer_norm_eps, layer_norm_eps)
    side = {**cfg["vision_cfg"], **kwargs.get("vision_cfg", {})}.get("image_size", 224)
    shown = published.get("preprocess_cfg") or published_preprocess(name, notes)
    return Found(
        layout="open_clip",
        name=name,
        kwargs=kwargs,
        embed_dim=int(cfg["embed_dim"]),
        text_tower=True,
        preprocess=preprocess_of(shown, side if isinstance(side, int) else side[0]),
        weights=renamed(weights.tensors, {key: key for key in weights.tensors}),
        sources={key: key for key in weights.tensors},
        notes=tuple(notes),
    )


def from_model_cfg(cfg: dict[str, Any], weights: Weights) -> tuple[str, dict[str, Any]]:
    """(name, kwargs) of a `model_cfg`: an architecture that is exactly this, else CLIP's with every size laid over it."""
    if missing := {"embed_dim", "vision_cfg", "text_cfg"} - set(cfg):
        raise CheckpointError(
            f"{weights.path}: open_clip_config.json has no {', '.join(sorted(missing))}; download it again"
        )
    for name in sorted(open_clip.list_models(), key=lambda name: (len(name), name)):
        if open_clip.get_model_config(name) == cfg:
            return name, {}
    tokenizer = cfg["text_cfg"].get("hf_tokenizer_name") or cfg["text_cfg"].get("hf_model_name")
    if not set(cfg) <= PLAIN or tokenizer or cfg["text_cfg"].get("vocab_size", CLIP_WORDS) != CLIP_WORDS:
        raise ConfigError(
            f"{weights.path}: open_clip_config.json describes an architecture beyond CLIP's two towers that open_clip does not "
            "know by name; give the nearest by --architecture, it must fit in every key and shape"
        )
    base = "ViT-B-32-quickgelu" if cfg.get("quick_gelu") else "ViT-B-32"
    known = open_clip.get_model_config(base)
    assert known is not None
    kwargs = {}
    for tower, schema in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg)):
        full = asdict(schema(**cfg[tower]))  # what cfg leaves out is open_clip's default, not the base's
        kwargs[tower] = {**{key: full[key] for key in known[tower]}, **cfg[tower]}
    return base, kwargs


def undecided(weights: Weights) -> str:
    """What to say when only shapes are known: the same weights fit GELU and QuickGELU."""
    tensors = weights.tensors
    fitting: list[str] = []
    if "visual.proj" in tensors and "token_embedding.weight" in tensors:
        for head_width in (64, 80, 88, 104, 112):
            if tensors["visual.proj"].shape[0] % head_width == 0:
                fitting += known_names(vision_of(tensors, head_width), text_of(tensors))
    hint = f"those of these shapes are {', '.join(fitting)}" if fitting else "see `dime students` for names"
    return (
        f"{weights.path}: open_clip's weights do not say their architecture (GELU and QuickGELU have the same shapes) and no "
        f"open_clip_config.json lies beside them; give --architecture NAME: {hint}"
    )


def published_preprocess(name: str, notes: list[str]) -> dict[str, Any]:
    """Where all published weights of an architecture see pictures alike, that; else CLIP's, with a note."""
    keys = ("mean", "std", "interpolation", "resize_mode")
    all_of = [open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
    ways = {tuple(tuple(v) if isinstance(v := cfg.get(k), list) else v for k in keys) for cfg in all_of}
    if len(ways) == 1:
        notes.append("mean, deviation and resizing as all published weights of this architecture")
        return {key: value for key, value in zip(keys, ways.pop(), strict=True) if value}
    notes.append("mean and deviation are CLIP's; --mean-std sets others")
    return {}


def preprocess_of(shown: dict[str, Any], side: int) -> Preprocess:
    """open_clip's `preprocess_cfg` at the size of the tower."""
    default = Preprocess(image_size=side)
    mean, std = (tuple(map(float, shown.get(key) or getattr(default, key))) for key in ("mean", "std"))
    interpolation = shown.get("interpolation") or default.interpolation
    mode = shown.get("resize_mode") or default.resize_mode
    if len(mean) != 3 or len(std) != 3 or interpolation not in ("bicubic", "bilinear"):
        raise CheckpointError(
            f"the preprocessing {shown} is not known: three means and deviations, bicubic or bilinear"
        )
    return Preprocess(side, mean, std, interpolation, mode)

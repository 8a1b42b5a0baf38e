"""How a model wants pictures and words, without its weights: for what looks at the data of a run and trains nothing."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch

from toolkit import config
from toolkit.config import Preprocess
from toolkit.models.build import CARD_NAME, read_card
from toolkit.models.student import build_student
from toolkit.models.teacher import build_teacher


@dataclass(frozen=True)
class Outline:
    """What decides the bytes a model gets. Mean and deviation may be others than the model's: the device applies them."""

    preprocess: Preprocess
    tokenizer: str | None
    """None: it has no text side."""
    context_length: int
    built: bool = False
    """Was the model itself needed to find out (a user's function, a model on the hub)."""


def teacher_outline(cfg: config.Teacher) -> Outline:
    """Of a checkpoint folder by its card, of an open_clip name by its config; anything else is built, with its weights."""
    folder = Path(cfg.name)
    known = None if ":" in cfg.name else open_clip.get_model_config(cfg.name)
    if (folder / CARD_NAME).is_file():
        card = read_card(folder)
        shown: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in card["preprocess"].items()
        }
        name = card["tokenizer"]
        name = str(folder / name) if name and name.endswith(".model") else name
        found = Outline(Preprocess(**shown), name, card["context_length"])
    elif known is not None:
        published = open_clip.get_pretrained_cfg(cfg.name, cfg.pretrained) or {}
        how = {key: published[key] for key in ("interpolation", "resize_mode") if published.get(key)}
        context = int(known["text_cfg"].get("context_length", 77))
        found = Outline(
            Preprocess(image_size=side_of(known["vision_cfg"].get("image_size", 224)), **how), cfg.name, context
        )
    else:
        model = build_teacher(cfg, "fp32", torch.device("cpu"))
        found = Outline(model.preprocess, model.tokenizer_name, model.context_length, built=True)
    tokenizer = found.tokenizer if cfg.tokenizer is None else cfg.tokenizer
    return replace(found, preprocess=resized(found.preprocess, cfg.image_size), tokenizer=tokenizer)


def student_outline(cfg: config.Student, teacher: Outline | None) -> Outline:
    """Of an open_clip or timm name by its config; a user's function is called."""
    known = None if ":" in cfg.name else open_clip.get_model_config(cfg.name)
    architecture = cfg.name.removeprefix("timm/")
    if cfg.name.startswith("timm/") and timm.is_model(architecture):
        published = timm.get_pretrained_cfg(architecture)
        found = Outline(Preprocess(image_size=published.input_size[-1] if published else 224), None, 77)
    elif known is not None:
        context = int(known["text_cfg"].get("context_length", 77))
        found = Outline(Preprocess(image_size=side_of(known["vision_cfg"].get("image_size", 224))), cfg.name, context)
    else:
        bare = replace(cfg, pretrained=None, grad_checkpointing=False, text_tower=False, embed_dim=cfg.embed_dim or 512)
        model = build_student(bare, None)
        found = Outline(model.preprocess, model.tokenizer, model.context_length, built=True)
    tokenizer, context = found.tokenizer, found.context_length
    if tokenizer is None and teacher is not None:
        tokenizer, context = teacher.tokenizer, teacher.context_length
    return replace(
        found,
        preprocess=resized(found.preprocess, cfg.image_size),
        tokenizer=cfg.tokenizer or tokenizer,
        context_length=context,
    )


def side_of(size: int | list[int] | tuple[int, ...]) -> int:
    """open_clip's image sizes are numbers or pairs."""
    return size if isinstance(size, int) else size[0]


def resized(preprocess: Preprocess, side: int | None) -> Preprocess:
    """With the side that a run asks for."""
    return preprocess if side is None else replace(preprocess, image_size=side)

"""From the word on the command line to the models that are judged: a run, a folder of weights, or open_clip's name and tag."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from toolkit import config
from toolkit.distiller import MAX_LOG_SCALE
from toolkit.embed.pool import state_hash, tokenizer_identity
from toolkit.errors import ConfigError
from toolkit.evaluate.exported import is_export, open_export
from toolkit.evaluate.judged import Judged
from toolkit.evaluate.loading import SCALE, config_of_run, pick_checkpoint, scale_of
from toolkit.models import Teacher, build_teacher
from toolkit.models.build import from_folder, read_card
from toolkit.models.numerics import is_imported, numerics
from toolkit.models.tokenizers import Tokenizer

OPEN_CLIP = "open_clip:"


class Borrowing:
    """A student without a text tower: its own pictures, its teacher's sentences."""

    def __init__(self, images: Teacher, texts: Teacher) -> None:
        """`texts` is the teacher."""
        self.images, self.texts = images, texts
        self.preprocess = images.preprocess

    def tokenizer(self) -> Tokenizer:
        """The teacher's."""
        return self.texts.tokenizer()

    def encode_image(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Unit-norm fp32."""
        return self.images.encode_image(images)

    def encode_text(self, tokens: Int[Tensor, "m l"]) -> Float[Tensor, "m e"]:
        """Unit-norm fp32."""
        return self.texts.encode_text(tokens)


def models_named(
    word: str, *, which: str, overrides: Sequence[str], precision: str, device: torch.device
) -> dict[str, Judged]:
    """`{"student": ..., "teacher": ...}` of a run or a folder, or the one model by its word.

    `which` is the checkpoint (newest, best, or a folder); overrides apply to the run's saved config, or name the teacher
    beside an imported student. Raises ConfigError for a word that is none of the forms.
    """
    if word.startswith(OPEN_CLIP):
        return {word: from_open_clip(word, overrides, precision, device)}
    folder = Path(word)
    if is_export(folder):
        return {"student": from_export(folder, which, overrides, precision, device)}
    if (folder / "config.yaml").is_file() or is_imported(folder):
        return of_run(folder, which, overrides, precision, device)
    raise ConfigError(
        f"{word} is no model: give the out_dir of a run, a folder of `dime import` or `dime export`, or open_clip:NAME/TAG "
        "(open_clip:ViT-B-32-quickgelu/openai)"
    )


def from_open_clip(word: str, overrides: Sequence[str], precision: str, device: torch.device) -> Judged:
    """`open_clip:NAME/TAG`; the tag may also be a weights file, or `random`."""
    name, _, tag = word.removeprefix(OPEN_CLIP).partition("/")
    if overrides:
        raise ConfigError(f"{overrides[0]}: settings of a run do not go with {word}; leave them out")
    if not name or not tag:
        raise ConfigError(f"{word}: give name and tag, such as open_clip:ViT-B-32-quickgelu/openai")
    try:
        teacher = build_teacher(config.Teacher(name=name, pretrained=tag), precision, device)
    except ConfigError as error:
        raise ConfigError(
            str(error).replace("teacher.pretrained=", f"{word}: /").replace("teacher.name", word)
        ) from error
    return judged_alone(word, f"open_clip {name}, weights {tag}", teacher, precision)


def from_export(folder: Path, which: str, overrides: Sequence[str], precision: str, device: torch.device) -> Judged:
    """A folder of `dime export`, judged through the library it was written for."""
    if overrides or which != "newest":
        asked = overrides[0] if overrides else f"--checkpoint {which}"
        raise ConfigError(f"{asked} does not go with the export {folder}, which is one checkpoint; leave it out")
    if precision != "fp32":
        raise ConfigError(
            f"--precision {precision}: the export {folder} is judged as it was written; leave the option out"
        )
    return open_export(folder, device)


def of_run(
    folder: Path, which: str, overrides: Sequence[str], precision: str, device: torch.device
) -> dict[str, Judged]:
    """Student first, then the teacher where the run names one."""
    run = config_of_run(folder, overrides)
    chosen = pick_checkpoint(folder, which)
    student = from_folder(chosen, asked_by=str(chosen))
    teacher = (
        build_teacher(replace(run.teacher, dtype="bf16" if precision == "bf16" else "fp32"), precision, device)
        if run.teacher.name
        else None
    )
    what = f"{folder}, {'imported weights' if chosen == folder else f'checkpoint {chosen.name}'}"
    images = Teacher(student, dtype_of(precision), device)
    found: dict[str, Judged] = {}
    card = read_card(chosen)
    if card["text_tower"]:
        found["student"] = judged_alone("student", what, images, precision, bounded=True, kwargs=card["kwargs"])
    elif teacher is None:
        raise ConfigError(
            f"student {student.name} has no text tower and there is no teacher to borrow one from; set teacher.name"
        )
    else:
        found["student"] = replace(
            judged_alone("student", what, images, precision, kwargs=card["kwargs"]),
            what=f"{what}, with its teacher's text tower",
            encoder=Borrowing(images, teacher),
            text_sha256=weights_of(teacher, precision, run.teacher.kwargs),
            text_params=0,
            logit_scale=scale_of(teacher.logit_scale, SCALE),
        )
    if teacher is not None:
        given = " / ".join(part for part in (run.teacher.name, run.teacher.pretrained) if part)
        found["teacher"] = judged_alone("teacher", given, teacher, precision, kwargs=run.teacher.kwargs)
    return found


def judged_alone(
    name: str,
    what: str,
    model: Teacher,
    precision: str,
    *,
    bounded: bool = False,
    kwargs: Mapping[str, Any] | None = None,
) -> Judged:
    """A model with towers of its own; `bounded`: its scale is at most 100, as in training."""
    scale = scale_of(model.logit_scale, SCALE)
    return Judged(
        name=name,
        what=what,
        encoder=model,
        sha256=weights_of(model, precision, kwargs),
        embed_dim=model.embed_dim,
        image_params=model.image_params,
        text_params=model.text_params,
        image_module=model.module,
        logit_scale=min(scale, math.exp(MAX_LOG_SCALE)) if bounded else scale,
        facts={"name": model.name, "precision": precision, "numerics": numerics(model.module)},
    )


def weights_of(model: Teacher, precision: str, kwargs: Mapping[str, Any] | None = None) -> str:
    """sha256 of all weights and of what they do not show, as far as it is written down: a user's own code is not."""
    how: dict[str, Any] = {
        "numerics": numerics(model.module), "preprocess": asdict(model.preprocess), "precision": precision,
        "tokenizer": tokenizer_identity(model), "context_length": model.context_length, "name": model.name,
        "kwargs": dict(kwargs or {}),
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(how, sort_keys=True).encode())
    digest.update(state_hash(sorted(model.module.state_dict().items())).encode())
    return digest.hexdigest()


def dtype_of(precision: str) -> torch.dtype:
    """Of `fp32` or `bf16`."""
    return torch.bfloat16 if precision == "bf16" else torch.float32

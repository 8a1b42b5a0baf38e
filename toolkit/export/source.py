"""What is exported: a student of a run, and the text tower it is used with."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit.config import Run
from toolkit.config.resolve import merge, parse_overrides
from toolkit.distiller import MAX_LOG_SCALE
from toolkit.embed.pool import state_hash, weight_hash
from toolkit.errors import ConfigError
from toolkit.evaluate.loading import pick_checkpoint, saved_run
from toolkit.export.architecture import config_of_card, config_of_teacher
from toolkit.models import Model, Teacher, build_teacher, build_tokenizer
from toolkit.models.build import from_folder, read_card
from toolkit.models.teacher import own_scalar
from toolkit.models.tokenizers import Tokenizer

DEFAULT_SCALE = 100.0
"""Of a softmax over cosines where no tower has a scale of its own."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Source:
    """Both models in fp32, on the CPU, in eval mode."""

    run: Run
    checkpoint: Path
    student: Model
    text: Model
    """The model whose text tower goes with it: the student itself, or the teacher."""
    teacher: Teacher | None
    """None where the student has a text tower of its own."""
    student_config: dict[str, Any] | None
    """open_clip's, None where the student is the user's own module."""
    text_config: dict[str, Any] | None
    """open_clip's of the model with the text tower, None where that is the user's own module."""

    def tokenizer(self) -> Tokenizer:
        """Of the text tower."""
        assert self.text.tokenizer is not None  # `load_source` has seen to it
        return tokenizer_of(self.text.tokenizer, self.text.context_length)

    @property
    def logit_scale(self) -> float:
        """That of the text tower's model, already exponentiated; the student's own at most 100, as in training."""
        found = own_scalar(self.text.module, "logit_scale", CPU, exponentiate=True)
        scale = DEFAULT_SCALE if found is None else float(found)
        return scale if self.teacher is not None else min(scale, math.exp(MAX_LOG_SCALE))

    @property
    def logit_bias(self) -> float | None:
        """Of SigLIP-type models."""
        found = own_scalar(self.text.module, "logit_bias", CPU, exponentiate=False)
        return None if found is None else float(found)

    def facts(self) -> dict[str, Any]:
        """Where the weights come from, for the record beside the export."""
        weights = self.student.module.state_dict()
        facts: dict[str, Any] = {
            "run": str(self.run.out_dir or self.checkpoint),
            "checkpoint": self.checkpoint.name,
            "student": {
                "name": self.student.name,
                "embed_dim": self.student.embed_dim,
                "sha256": state_hash(sorted(weights.items())),
            },
            "params": {"image": self.student.image_params, "text": self.text.text_params},
        }
        if self.teacher is None:
            return {**facts, "text_tower": {"of": "student"}}
        chosen = self.run.teacher
        return {
            **facts,
            "text_tower": {
                "of": "teacher",
                "name": chosen.name,
                "pretrained": chosen.pretrained,
                "teacher_weights_sha256": weight_hash(self.teacher),
                "sha256": state_hash(sorted(text_state(self.text.module.state_dict()).items())),
                "licence": (
                    f"The text tower is a copy of the teacher's ({' / '.join(filter(None, (chosen.name, chosen.pretrained)))}). "
                    "The terms under which those weights were published hold for it; read them before you pass this export on."
                ),
            },
        }


@lru_cache(maxsize=2)
def tokenizer_of(name: str, context_length: int) -> Tokenizer:
    """Made once: CLIP's takes a tenth of a second."""
    return build_tokenizer(name, context_length)


def text_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the image tower of a CLIP."""
    return {name: value for name, value in state.items() if not name.startswith("visual.")}


def load_source(folder: Path, which: str, overrides: Sequence[str]) -> Source:
    """The student at a run's checkpoint (newest, best or a folder) or of a folder of `dime import`.

    Overrides apply to the run's saved config, for example `teacher.pretrained=FILE`. Raises ConfigError where no text tower
    can be had.
    """
    run = merge(saved_run(folder), parse_overrides(overrides))
    chosen = pick_checkpoint(folder, which)
    card = read_card(chosen)
    student = from_folder(chosen, asked_by=str(chosen))
    student.module.float().eval()
    own = config_of_card(card)
    if card["text_tower"]:
        return checked(Source(run, chosen, student, student, None, own, own))
    if not run.teacher.name:
        raise ConfigError(
            f"student {student.name} has no text tower and {folder} names no teacher to take one from; give teacher.name=..."
        )
    teacher = build_teacher(replace(run.teacher, dtype="fp32"), "fp32", CPU)
    return checked(Source(run, chosen, student, teacher.model, teacher, own, config_of_teacher(run.teacher)))


def checked(source: Source) -> Source:
    """Raise ConfigError where sentences could not become tokens, or the two widths differ."""
    if source.text.tokenizer is None:
        raise ConfigError(
            f"{source.text.name} has no tokenizer; set teacher.tokenizer to an open_clip name or a .model file"
        )
    if source.text.embed_dim != source.student.embed_dim:
        raise ConfigError(
            f"student {source.student.name} has width {source.student.embed_dim}, the text tower of {source.text.name} "
            f"{source.text.embed_dim}; give the teacher it was distilled from"
        )
    return source

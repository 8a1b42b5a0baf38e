"""The model that is trained, at the teacher's width."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from toolkit import config
from toolkit.errors import ConfigError
from toolkit.models.build import build_model, load_weights
from toolkit.models.contract import Model
from toolkit.models.numerics import fit_imported
from toolkit.models.teacher import Teacher


def build_student(cfg: config.Student, teacher: Teacher | None) -> Model:
    """The student of a run, untrained unless `student.pretrained` is set.

    Its width is the teacher's; without a teacher its own or `student.embed_dim`. Raises ConfigError where the two widths
    cannot match.
    """
    width = cfg.embed_dim
    if teacher is not None:
        if width is not None and width != teacher.embed_dim:
            raise ConfigError(
                f"student.embed_dim ({width}) differs from the width of {teacher.name} ({teacher.embed_dim}), so their "
                f"embeddings cannot be compared; leave student.embed_dim unset or set it to {teacher.embed_dim}"
            )
        width = teacher.embed_dim
    model = build_model(
        cfg.name,
        cfg.kwargs,
        embed_dim=width,
        text_tower=cfg.text_tower,
        image_size=cfg.image_size,
        tokenizer=cfg.tokenizer,
        asked_by="student.name",
    )
    if cfg.image_size is not None:
        model.preprocess = replace(model.preprocess, image_size=cfg.image_size)
    if cfg.text_tower and model.tokenizer is None and teacher is not None:
        model.tokenizer, model.context_length = teacher.tokenizer_name, teacher.context_length
    if cfg.text_tower and model.tokenizer is None:
        raise ConfigError(
            f"student {cfg.name} has a text tower and no tokenizer; set student.tokenizer to an open_clip name or a .model"
        )
    if cfg.pretrained:
        load_weights(model.module, Path(cfg.pretrained))
        fit_imported(model, Path(cfg.pretrained))
    if cfg.grad_checkpointing:
        enable = getattr(model.module, "set_grad_checkpointing", None)
        if enable is None:
            raise ConfigError(
                f"student.grad_checkpointing=true: {cfg.name} has no method set_grad_checkpointing; add one or switch it off"
            )
        enable(True)
    return model


def sync_batchnorm(module: nn.Module, world: int) -> nn.Module:
    """BatchNorm over all ranks, where torch offers it (CUDA)."""
    return nn.SyncBatchNorm.convert_sync_batchnorm(module) if world > 1 and torch.cuda.is_available() else module

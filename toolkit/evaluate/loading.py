"""The models of a run, from its folder: what judging and the demo start from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from toolkit import checkpoint, config, distributed
from toolkit.config.resolve import merge, parse_overrides
from toolkit.distiller import Distiller
from toolkit.errors import CheckpointError, ConfigError
from toolkit.evaluate.models import Encoder, StudentEncoder
from toolkit.losses import LossSum
from toolkit.models import Model, Teacher, build_teacher
from toolkit.models.build import from_folder, read_card
from toolkit.models.numerics import is_imported
from toolkit.registry import did_you_mean

SCALE = 100.0
"""Of the similarities of a model that has no scale of its own, as in ELEVATER."""


@dataclass
class RunModels:
    """Student and teacher of a run, in eval mode on this rank's device."""

    run: config.Run
    """As saved, with the overrides."""
    checkpoint: Path
    """The student's folder."""
    student: Model
    text_tower: bool
    """Has the student one of its own; without, its sentences are the teacher's."""
    teacher: Teacher | None
    encoders: dict[str, Encoder]
    """`teacher`, where the run names one, then `student`."""
    logit_scales: dict[str, float]
    """Of each encoder, exponentiated: its own; with the teacher's text tower the teacher's; else 100."""


def models_of_run(folder: Path, which: str, overrides: Sequence[str]) -> RunModels:
    """The student at a checkpoint (newest, best, or a checkpoint or imported folder) and the teacher the run names.

    `folder` is the out_dir of a run or a folder of `dime import`; overrides apply to its saved config. Raises ConfigError or
    CheckpointError when either cannot be had, and when the student has no text tower and there is no teacher.
    """
    run = config_of_run(folder, overrides)
    chosen = pick_checkpoint(folder, which)
    device = distributed.device()
    teacher = build_teacher(run.teacher, run.precision, device) if run.teacher.name else None
    student = from_folder(chosen, asked_by=str(chosen))
    text_tower = bool(read_card(chosen)["text_tower"])
    distiller = Distiller(student.module, LossSum({}, {}), student.preprocess, text_tower=text_tower)
    distiller.to(device).eval()
    encoders: dict[str, Encoder] = {}
    scales: dict[str, float] = {}
    if teacher is not None:
        encoders["teacher"] = teacher
        scales["teacher"] = scale_of(teacher.logit_scale, SCALE)
    encoders["student"] = StudentEncoder(student, distiller, device, text_tower=text_tower, teacher=teacher)
    borrowed = SCALE if text_tower else scales["teacher"]
    with torch.no_grad():
        scales["student"] = scale_of(distiller.logit_scale(), borrowed)
    return RunModels(run, chosen, student, text_tower, teacher, encoders, scales)


def scale_of(own: torch.Tensor | None, otherwise: float) -> float:
    """A model's own scale as a number, or the other where it has none."""
    return otherwise if own is None else float(own)


def config_of_run(folder: Path, overrides: Sequence[str]) -> config.Run:
    """The saved config of a run, or that of an imported folder, with overrides over it."""
    return merge(saved_run(folder), parse_overrides(overrides))


def saved_run(folder: Path) -> config.Run:
    """The config of a run; of an imported folder the defaults, in fp32."""
    if (folder / "config.yaml").is_file():
        return config.load(folder / "config.yaml")
    if is_imported(folder):
        return config.Run(precision="fp32")
    raise ConfigError(f"{folder} is no run: it has no config.yaml; give the out_dir of a run")


def pick_checkpoint(folder: Path, which: str) -> Path:
    """The checkpoint meant; raises CheckpointError when it does not exist or is torn."""
    if which not in ("newest", "best") and is_imported(Path(which)):
        return Path(which)
    if which == "newest" and is_imported(folder):
        return folder
    if which not in ("newest", "best"):
        if not Path(which).is_dir():
            near = did_you_mean(which, ["newest", "best"])
            raise CheckpointError(f"--checkpoint {which} is no folder{near}; give newest, best, or a checkpoint folder")
        chosen: Path | None = Path(which)
        why = checkpoint.complaint(Path(which))
        if why:
            raise CheckpointError(f"--checkpoint {which} is not complete: {why}")
    else:
        chosen = checkpoint.newest(folder)
        if chosen is not None and which == "best":
            best = json.loads((chosen / checkpoint.STATE).read_text())["best_step"]
            if best is None:
                raise CheckpointError(
                    f"{folder} kept no best checkpoint; set evaluation.best in the run, or use --checkpoint newest"
                )
            chosen = checkpoint.folder_of(folder, best)
    if chosen is None:
        raise CheckpointError(f"{folder} holds no complete checkpoint; let the run reach its first one")
    return chosen

"""The same training in plain PyTorch: one process, the whole batch, no DeepSpeed. What every engine run is compared with."""

import torch
from torch import nn

from toolkit import distributed
from toolkit.config import Run, batch_arithmetic
from toolkit.data.build import Streams, build_sources
from toolkit.distiller import Distiller
from toolkit.embeddings import LOCAL
from toolkit.engine import build_optimizer
from toolkit.losses import build_losses
from toolkit.models import build_student, build_teacher
from toolkit.playground.towers import scene_student
from toolkit.schedules import lr_at
from toolkit.step import teacher_embeddings


def dropout_student(embed_dim: int) -> nn.Module:
    """A student that draws random numbers in its forward."""
    student = scene_student(8, embed_dim=embed_dim)
    student.visual.append(nn.Dropout(0.2))
    return student


def reference_curve(run: Run) -> list[float]:
    """Loss before each update."""
    device = torch.device("cpu")
    teacher = build_teacher(run.teacher, run.precision, device)
    distributed.seed_everything(run.seed)
    student = build_student(run.student, teacher)
    distiller = Distiller(
        student.module, build_losses(run.losses, embed_dim=student.embed_dim), student.preprocess, text_tower=False
    )
    sources = build_sources(
        run.data,
        batch_arithmetic(run, 1),
        student=student.preprocess,
        teachers={"teacher": teacher.preprocess},
        tokenizers={"teacher_tokens": teacher.tokenizer()},
        seed=run.seed,
    )
    streams = Streams(sources, rank=0, world=1, first_step=0, workers=0)
    optimizer = build_optimizer(distiller, run.optim)
    losses = []
    for step in range(run.steps):
        tensors = {name: tensor for part in streams.next().values() for name, tensor in part.tensors.items()}
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, run.optim, run.steps)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=run.precision == "bf16"):
            loss = distiller(tensors, teacher=teacher_embeddings({"teacher": teacher}, tensors), exchange=LOCAL).total
        loss.backward()
        torch.nn.utils.clip_grad_norm_(distiller.parameters(), run.optim.gradient_clipping)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses

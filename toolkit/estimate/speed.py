"""Seconds of a step, and what follows from them."""

from dataclasses import dataclass
from typing import Any

from toolkit.config import Batch
from toolkit.estimate.hardware import Cluster
from toolkit.estimate.models import Frozen, Trained
from toolkit.estimate.traffic import Traffic

UPDATE_BYTES = 28
"""Read and written per number by AdamW: weight, gradient, two moments, three of them back."""


@dataclass(frozen=True)
class Work:
    """FLOPs of one step on one rank."""

    teacher: float
    student: float
    losses: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.teacher + self.student + self.losses


def passes(batch: Batch, *, global_batch: bool) -> int:
    """Forwards of the student per micro-batch: one more where the losses wait for all micro-batches."""
    return 2 if batch.grad_accum_steps > 1 and global_batch else 1


def work_of(
    batch: Batch,
    student: Trained,
    teachers: list[tuple[Frozen, bool]],
    traffic: Traffic,
    *,
    checkpointing: bool,
    global_batch: bool,
) -> Work:
    """Of a step; a teacher comes with whether it runs (not where its embeddings are stored)."""
    chosen = student.checkpointed if checkpointing and student.checkpointed else student.plain
    forwards = passes(batch, global_batch=global_batch)
    per_micro = forwards * chosen.forward_flops + chosen.backward_flops
    imitated = sum(
        (one.images.forward_flops + (one.texts.forward_flops if one.texts else 0.0) for one, live in teachers if live),
        0.0,
    )
    k = batch.grad_accum_steps
    return Work(k * imitated, k * per_micro, traffic.flops)


def compute_seconds(work: Work, cluster: Cluster, precision: str, teacher_precision: str) -> dict[str, float]:
    """Teacher, student, and the losses, whose kernel multiplies 16-bit factors."""
    return {
        "teacher": work.teacher / (cluster.flops_s(teacher_precision) * cluster.teacher_mfu),
        "student": work.student / (cluster.flops_s(precision) * cluster.student_mfu),
        "losses": work.losses / (cluster.flops_s("bf16") * cluster.student_mfu),
    }


def update_seconds(parameters: int, stage: int, cluster: Cluster) -> float:
    """AdamW is bound by memory; each rank updates its part above stage 0."""
    mine = parameters / (cluster.gpus if stage else 1)
    return UPDATE_BYTES * mine / (cluster.gpu.memory_gb_s * 1e9)


def step_seconds(parts: dict[str, float], images: float, cores: int | None, rate: float) -> dict[str, Any]:
    """The sum of what follows one another; decoding runs beside it, and holds the step up where it is slower."""
    busy = sum(parts.values())
    data = images / (cores * rate) if cores else 0.0
    return {**parts, "gpu": busy, "data": data, "total": max(busy, data)}

"""Bytes on one GPU by ZeRO stage, as DeepSpeed 0.19.8 allocates them for fp32 parameters (read in its source)."""

from dataclasses import dataclass, field, replace
from typing import Any

from toolkit.estimate.network import Sharding

OVERHEAD_BYTES = 1.5e9
"""CUDA context, NCCL and cuBLAS buffers, what the allocator cannot use: an assumption."""
LOSS_WORKSPACE = 2.0**28
"""One band of the gradient by the logits in the GPU kernel."""
MAX_LIVE = 1_000_000_000
"""Parameters that stage 3 keeps whole at one time (DeepSpeed's default)."""
STAGES = (0, 1, 2, 3)


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank; `parts` in order."""

    stage: int
    offloaded: bool = False
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Of all parts."""
        return sum(self.parts.values())

    def as_dict(self, gpu_bytes: float) -> dict[str, Any]:
        """As JSON has it."""
        return {**self.parts, "total": self.total, "fits": self.total <= gpu_bytes, "offloaded": self.offloaded}


def state_bytes(sharding: Sharding, ranks: int, *, moments: int = 2, offloaded: bool = False) -> dict[str, float]:
    """Parameters, gradients, optimizer and DeepSpeed's buffers; what is offloaded lies on the host and is not counted.

    Stages 1 and 2 hold a master copy of their part although the parameters are fp32 already, and every stage above 0 a
    bucket of `reduce_bucket_size` numbers, however small the model is.
    """
    whole, stage = sharding.bytes, sharding.stage
    part, bucket = whole / ranks, 4.0 * sharding.bucket
    flattened = min(whole, bucket)
    if stage == 0:
        return {"parameters": whole, "gradients": whole, "optimizer": moments * whole, "buckets": flattened}
    kept = 0.0 if offloaded else part
    optimizer = (1 + moments) * kept
    if stage in (1, 2):
        gradients = whole + part if stage == 1 else part
        return {"parameters": whole, "gradients": gradients, "optimizer": optimizer, "buckets": bucket + flattened}
    small, live = 4.0 * sharding.persistent, min(whole, 4.0 * MAX_LIVE)
    return {
        "parameters": max(kept, small) + live,
        "gradients": kept,
        "optimizer": optimizer,
        "buckets": bucket + flattened,
    }


def memory_at(
    sharding: Sharding,
    ranks: int,
    *,
    moments: int,
    offloaded: bool,
    teacher_weights: float,
    teacher_peak: float,
    student_peak: float,
    losses: float,
) -> Memory:
    """The whole: the teacher's working memory and the student's activations do not meet, so the larger one counts."""
    parts = state_bytes(sharding, ranks, moments=moments, offloaded=offloaded)
    parts["teacher"] = teacher_weights
    parts["activations"] = max(student_peak, teacher_peak)
    parts["losses"] = losses
    parts["overhead"] = OVERHEAD_BYTES
    return Memory(sharding.stage, offloaded, parts)


def all_stages(sharding: Sharding, **rest: Any) -> list[Memory]:
    """ZeRO 0 to 3 without offloading."""
    return [memory_at(replace(sharding, stage=stage), offloaded=False, **rest) for stage in STAGES]


def largest_batch(memory: Memory, gpu_bytes: float, batch: int) -> int:
    """Pictures per micro-batch that would just fit, if activations grow in proportion."""
    free = gpu_bytes - (memory.total - memory.parts["activations"])
    return max(0, int(batch * free / memory.parts["activations"])) if memory.parts["activations"] else 0

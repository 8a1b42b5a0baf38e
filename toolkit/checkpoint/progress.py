"""Where a run stands: everything of a checkpoint that is not a tensor, and the generators' state."""

from dataclasses import dataclass, field
from typing import Any

import torch

from toolkit import distributed
from toolkit.config import Run


@dataclass
class Progress:
    """Where a run stands: everything of a checkpoint that is not a tensor."""

    step: int = 0
    """Steps done; every stream stands at step * its global batch."""
    best: float | None = None
    """Best value so far of `evaluation.best`."""
    best_step: int | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    """Replaced samples over all ranks, by reason."""
    seconds: float = 0.0
    """Training time of all launches together."""
    nonfinite: int = 0
    """Steps whose update was left out because a loss or gradient was not finite."""
    nonfinite_in_a_row: int = 0


def layout(engine: Any, run: Run) -> dict[str, Any]:
    """What decides how DeepSpeed cuts the optimizer's state into pieces."""
    return {
        "world_size": distributed.world(),
        "zero_stage": int(engine.zero_optimization_stage()),
        "deepspeed": run.deepspeed,
    }


def rng_state() -> dict[str, torch.Tensor]:
    """State of this rank's generators (dropout and drop-path; data has its own, made from positions)."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_rng(state: dict[str, torch.Tensor]) -> None:
    """Undo of `rng_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])

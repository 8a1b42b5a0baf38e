"""What all ranks must decide alike at every step: is the loss finite everywhere, has anybody been asked to stop.

One all-reduce of two numbers a step, between forward and backward, so that no rank ever waits for one that has left.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from toolkit import distributed, heartbeat, signals
from toolkit.checkpoint import Progress
from toolkit.config import Run
from toolkit.data.index import write_aside
from toolkit.errors import ToolkitError
from toolkit.losses import LossOutput
from toolkit.signals import Asked


class NonFiniteLoss(ToolkitError):
    """A loss or gradient became NaN or infinite; every rank stops before the update."""


class Agreement:
    """One for a launch; `asked` is what the ranks agreed on in the last step."""

    def __init__(self, run: Run, progress: Progress) -> None:
        """Nobody has been asked to stop."""
        self.run, self.progress = run, progress
        self.asked = Asked.NOTHING
        self.bad = self.skipped = False
        self.batch: dict[str, Any] = {}
        """The batch of this step: its keys are written down where its loss is not finite."""

    def check(self, output: LossOutput) -> LossOutput:
        """Called between forward and backward. Raises NonFiniteLoss on every rank when a loss of any is not finite.

        With faults.nonfinite=skip it hands back a loss that is not finite on any rank, so that the update is left out everywhere.
        """
        finite = bool(output.total.isfinite())
        told = distributed.largest([float(not finite), float(signals.asked())])
        self.asked = Asked(int(told[1]))
        heartbeat.reached("backward")
        if told[0] and not self.bad:  # once a step, of whose micro-batches several may be bad
            self.bad = True
            wrong = [name for name, value in output.terms.items() if not bool(value.isfinite())]
            self._refused("the loss is", [] if finite else wrong or ["the sum"])
        return poisoned(output) if told[0] else output

    @contextmanager
    def unless_skipped(self, module: nn.Module) -> Iterator[None]:
        """A step inside leaves buffers (BatchNorm statistics, queues of losses) as they were when its update is left out."""
        self.bad = self.skipped = False
        before = [buffer.clone() for buffer in module.buffers()] if self.run.faults.nonfinite == "skip" else []
        yield
        if self.skipped:
            for buffer, old in zip(module.buffers(), before, strict=True):
                buffer.copy_(old)

    def updated(self, applied: bool) -> None:
        """Count a step; raises NonFiniteLoss when its gradient was not finite, so that no update was made."""
        if not applied and not self.bad:
            self._refused("the gradient is", ["of a finite loss"])
        self.skipped = not applied
        self.progress.nonfinite += not applied
        self.progress.nonfinite_in_a_row = 0 if applied else self.progress.nonfinite_in_a_row + 1

    def _refused(self, what: str, bad: list[str]) -> None:
        """Write down the batch; raise unless such steps are to be skipped and there were not too many in a row."""
        step = self.progress.step
        ranks = distributed.gather_strings([f"rank {distributed.rank()}: {', '.join(bad)}"] if bad else [])
        folder = Path(self.run.out_dir) / "nonfinite"
        content = {"step": step, "bad": bad, "keys": {name: part.keys for name, part in self.batch.items()}}
        folder.mkdir(parents=True, exist_ok=True)
        write_aside(
            folder / f"step_{step:08d}_rank_{distributed.rank():05d}.json", json.dumps(content, indent=1) + "\n"
        )
        said = (
            f"step {step}: {what} not finite ({'; '.join(ranks)}); no update was made. The batch's keys are in {folder}"
        )
        row = self.progress.nonfinite_in_a_row + 1
        if self.run.faults.nonfinite == "skip" and row < self.run.faults.nonfinite_limit:
            distributed.say(f"{said}; it is skipped (the {row}. in a row, limit {self.run.faults.nonfinite_limit})")
            return
        often = "" if self.run.faults.nonfinite == "stop" else f", for the {row}. time in a row"
        raise NonFiniteLoss(
            f"{said}{often}. Lower optim.lr, set optim.gradient_clipping=1, look for broken samples, or set faults.nonfinite=skip to "
            "leave such steps out; the last checkpoint is untouched"
        )


def poisoned(output: LossOutput) -> LossOutput:
    """The same with every gradient not a number, also on a rank whose own loss is finite."""
    nan = torch.full_like(output.total.detach(), float("nan"))
    gradients = output.gradients
    if gradients is not None:
        gradients = gradients._replace(features={name: value * nan for name, value in gradients.features.items()})
    return output._replace(total=output.total * nan, gradients=gradients)

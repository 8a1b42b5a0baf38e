"""Running means of a step's numbers: one synchronisation per log line, and a check for numbers that are none."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from toolkit import distributed
from toolkit.checkpoint import Progress
from toolkit.config import Run
from toolkit.errors import ToolkitError
from toolkit.losses import LossOutput
from toolkit.schedules import lr_at


class NonFiniteLoss(ToolkitError):
    """A loss became NaN or infinite; every rank stops before the update."""


class Meter:
    """Sums on the device between log lines; wall time without evaluation and checkpoints."""

    def __init__(self, run: Run, sources: dict[str, Any], progress: Progress) -> None:
        """`progress.seconds` is training time of earlier launches."""
        self.run = run
        self.global_batch = next(iter(sources.values())).global_batch
        self.base = dict(progress.skipped)
        self.earlier = progress.seconds
        self.progress = progress
        self.started = self.marked = time.monotonic()
        self.waited = self.pause = self.pause_at_mark = 0.0
        self.sums: Tensor | None = None
        self.seen: dict[str, Tensor] = {}
        self.steps = 0
        self.names: list[str] = []

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent waiting for data."""
        before = time.monotonic()
        yield
        self.waited += time.monotonic() - before

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that is not training: evaluation, checkpoints."""
        before = time.monotonic()
        yield
        self.pause += time.monotonic() - before

    def check_finite(self, output: LossOutput) -> None:
        """Raise NonFiniteLoss on every rank, before the update, when any rank's loss is not finite.

        Costs one all-reduce of a number and one wait for the forward pass per step.
        """
        if distributed.all_true(bool(output.total.isfinite())):
            return
        bad = [name for name, value in output.terms.items() if not bool(value.isfinite())]
        ranks = distributed.gather_strings([f"rank {distributed.rank()}: {', '.join(bad)}"] if bad else [])
        raise NonFiniteLoss(
            f"step {self.progress.step}: the loss is not finite ({'; '.join(ranks)}); no update was made. Lower optim.lr, set "
            "optim.gradient_clipping=1, or look for broken samples; the last checkpoint is untouched"
        )

    def add(self, output: LossOutput) -> None:
        """Count one step; nothing is read from the device. What was observed is that of the last step alone."""
        self.names = list(output.terms)
        self.seen = output.seen
        now = torch.stack([x.detach().float() for x in (output.total, *output.terms.values())])
        self.sums = now if self.sums is None else self.sums + now
        self.steps += 1

    def read(self, engine: Any, step: int, skipped: dict[str, int]) -> dict[str, float]:
        """Means over the steps since the last call and over ranks; a collective."""
        assert self.sums is not None
        reasons = distributed.broadcast_object(sorted({*self.base, *distributed_keys(skipped)}))
        numbers = [
            *self.sums.double().cpu().tolist(),
            self.waited,
            *(float(skipped.get(reason, 0)) for reason in reasons),
            *(float(value) for value in self.seen.values()),
        ]
        summed = distributed.reduce_sum(torch.tensor(numbers, dtype=torch.float64, device=self.sums.device)).tolist()
        world = distributed.world()
        means = [value / self.steps / world for value in summed[: 1 + len(self.names)]]
        now = time.monotonic()
        elapsed = max(now - self.marked - (self.pause - self.pause_at_mark), 1e-9)
        values = {
            "train/loss": means[0],
            **{f"train/loss_{name}": mean for name, mean in zip(self.names, means[1:], strict=True)},
        }
        values["optim/lr"] = lr_at(step - 1, self.run.optim, self.run.steps)
        norm = engine.get_global_grad_norm()
        if norm is not None:
            values["optim/grad_norm"] = float(norm)
        values["speed/images_per_second"] = self.global_batch * self.steps / elapsed
        values["data/wait_fraction"] = min(1.0, summed[1 + len(self.names)] / world / elapsed)
        rest = summed[2 + len(self.names) :]
        totals = {r: self.base.get(r, 0) + int(n) for r, n in zip(reasons, rest[: len(reasons)], strict=True)}
        values |= {f"observed/{n}": v / world for n, v in zip(self.seen, rest[len(reasons) :], strict=True)}
        values |= {f"data/skipped_{reason}": float(count) for reason, count in totals.items()}
        values["time/elapsed_seconds"] = self.seconds()
        self.progress.skipped = totals
        self.sums, self.steps, self.waited = None, 0, 0.0
        self.marked, self.pause_at_mark = now, self.pause
        return values

    def seconds(self) -> float:
        """Training time so far, earlier launches included, pauses not."""
        return self.earlier + time.monotonic() - self.started - self.pause


def distributed_keys(skipped: dict[str, int]) -> list[str]:
    """Reasons that any rank has met."""
    return sorted(set(distributed.gather_strings(list(skipped))))

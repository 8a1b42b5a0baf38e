"""Running means of a step's numbers, with one synchronisation per log line; names the ranks that hold up the others."""

import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from toolkit import distributed
from toolkit.checkpoint import Progress
from toolkit.config import Run
from toolkit.embeddings import ARRIVALS
from toolkit.losses import LossOutput
from toolkit.schedules import lr_at


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

    def add(self, output: LossOutput, *, counts: bool = True) -> None:
        """Count one step; nothing is read from the device. What was observed is that of the last step alone.

        A step whose update was left out is in no mean of the losses.
        """
        self.names = list(output.terms)
        self.seen = output.seen
        now = torch.stack(
            [x.detach().float() for x in (output.total, *output.terms.values(), output.total.new_ones(()))]
        )
        now = now if counts else torch.zeros_like(now)
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
        terms = 1 + len(self.names)
        means = [value / max(summed[terms], 1.0) for value in summed[:terms]]
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
        values["faults/nonfinite_steps"] = float(self.progress.nonfinite)
        values |= self._stragglers(self.waited / self.steps, elapsed / self.steps)
        values["data/wait_fraction"] = min(1.0, summed[terms + 1] / world / elapsed)
        rest = summed[terms + 2 :]
        totals = {r: self.base.get(r, 0) + int(n) for r, n in zip(reasons, rest[: len(reasons)], strict=True)}
        values |= {f"observed/{n}": v / world for n, v in zip(self.seen, rest[len(reasons) :], strict=True)}
        values |= {f"data/skipped_{reason}": float(count) for reason, count in totals.items()}
        values["time/elapsed_seconds"] = self.seconds()
        self.progress.skipped = totals
        self.sums, self.steps, self.waited = None, 0, 0.0
        self.marked, self.pause_at_mark = now, self.pause
        return values

    def _stragglers(self, waited: float, step_seconds: float) -> dict[str, float]:
        """How much later than the others the slowest rank comes to the exchange of a step; said when it is much; a collective.

        Before the exchange a rank waits for nobody, so that what it spends there is its own: data, and the forward passes.
        """
        if distributed.world() == 1:
            return {}
        own = [waited, ARRIVALS.mean_seconds(), step_seconds]
        rows = torch.tensor([own], dtype=torch.float64, device=distributed.device())
        data, arrival, lasted = distributed.gather_rows(rows).T.tolist()
        step_seconds = statistics.mean(lasted)  # what all ranks know alike: below, all must decide alike
        late = {
            rank: seconds - statistics.median(arrival[:rank] + arrival[rank + 1 :])
            for rank, seconds in enumerate(arrival)
        }
        slow = [rank for rank, seconds in late.items() if seconds > self.run.faults.slow_fraction * step_seconds]
        if slow:  # the same on every rank
            hosts = distributed.gather_strings([socket.gethostname()])
            for rank in slow:
                distributed.say(
                    f"slow: rank {rank} on {hosts[rank]} holds up each step by {late[rank]:.2f} of {step_seconds:.2f} s: it waits "
                    f"{data[rank]:.2f} s for data and computes {arrival[rank] - data[rank]:.2f} s before the exchange (median of all "
                    f"{statistics.median(data):.2f} and {statistics.median(a - d for a, d in zip(arrival, data, strict=True)):.2f})"
                )
        return {"speed/slowest_rank_late_fraction": max(0.0, *late.values()) / step_seconds}

    def seconds(self) -> float:
        """Training time so far, earlier launches included, pauses not."""
        return self.earlier + time.monotonic() - self.started - self.pause


def distributed_keys(skipped: dict[str, int]) -> list[str]:
    """Reasons that any rank has met."""
    return sorted(set(distributed.gather_strings(list(skipped))))

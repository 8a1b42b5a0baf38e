"""Run by two gloo ranks: every loss on two ranks against one rank on the whole batch, in float64, and wrong exchanges.

usage: worker.py OUT.json. Rank 0 writes {loss: {exchange: [value error, gradient error]}}.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from toolkit import distributed
from toolkit.embeddings import LOCAL, AllGather, Collective, Embeddings
from toolkit.losses import LOSSES, build_loss

ROWS, TEXTS, WIDTH = 6, 10, 5
"""Rows over both ranks; images and texts differ in number where the loss allows it."""


class NoGradient(Collective):
    """Mutant: all-gather without gradient (the classic bug: only the local rows would learn)."""

    def gather(self, x: Tensor) -> Tensor:
        """Detached rows of all ranks."""
        return AllGather.apply(x.detach())


class OwnSlice(Collective):
    """Mutant: gather without gradient, own slice put back (open_clip without gather_with_grad, local loss)."""

    def gather(self, x: Tensor) -> Tensor:
        """Gradient through the own rows only."""
        parts = list(AllGather.apply(x.detach()).chunk(self.world))
        parts[self.rank] = x
        return torch.cat(parts)


class Average(Collective):
    """Mutant: the backward pass averages over ranks (DisCo-CLIP's scale)."""

    def gather(self, x: Tensor) -> Tensor:
        """Right values, gradients too small by the number of ranks."""
        whole = AllGather.apply(x)
        whole.register_hook(lambda gradient: gradient / self.world) if whole.requires_grad else None
        return whole


class WrongOrder(Collective):
    """Mutant: the student's columns in another rank order than the teacher's (or than the labels)."""

    def gather(self, x: Tensor) -> Tensor:
        """Rows of the last rank first, where there is a gradient."""
        whole = AllGather.apply(x)
        return torch.cat(list(whole.chunk(self.world))[::-1]) if x.requires_grad else whole


class NoGather(Collective):
    """Mutant: no exchange at all, each rank sees its own rows (another loss)."""

    def gather(self, x: Tensor) -> Tensor:
        """The local rows."""
        return x


EXCHANGES = {c.__name__: c for c in (Collective, NoGradient, OwnSlice, Average, WrongOrder, NoGather)}


class Student(nn.Module):
    """Two linear towers and a learnable scale: parameters shared by all rows, as in a real student."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Linear(7, WIDTH, dtype=torch.float64)
        self.text = nn.Linear(7, WIDTH, dtype=torch.float64)
        self.scale = nn.Parameter(torch.full((1,), 2.0, dtype=torch.float64))


def run(
    name: str, student: Student, data: dict[str, Tensor], exchange, rank: int, world: int
) -> tuple[Tensor, list[Tensor]]:
    """Loss and parameter gradients of one rank's share."""
    student.zero_grad()
    mine = {key: value.chunk(world)[rank] for key, value in data.items()}
    paired = "pairs" in LOSSES[name].needs
    found = Embeddings(
        image=student.image(mine["images"]),
        text=student.text(mine["captions" if paired else "texts"]),
        logit_scale=student.scale.exp(),
    )
    teacher = Embeddings(image=mine["v"], text=mine["t"])
    try:
        loss = build_loss(name)(found, teacher, exchange=exchange)
    except IndexError:  # a mutant whose labels point past its columns: dead, and shown as infinitely wrong
        return torch.tensor(float("inf"), dtype=torch.float64), [
            torch.full_like(p, float("inf")) for p in student.parameters()
        ]
    loss.backward()
    return loss.detach(), [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in student.parameters()]


def main() -> None:
    """Compare, and let rank 0 write."""
    distributed.init()
    torch.manual_seed(0)
    student = Student()
    shapes = {"images": (ROWS, 7), "captions": (ROWS, 7), "texts": (TEXTS, 7), "v": (ROWS, WIDTH), "t": (TEXTS, WIDTH)}
    data = {key: torch.randn(*shape, dtype=torch.float64) for key, shape in shapes.items()}
    errors: dict[str, dict[str, list[float]]] = {}
    for name in LOSSES:
        wanted_value, wanted = run(name, student, data, LOCAL, 0, 1)
        for label, exchange in EXCHANGES.items():
            value, gradients = run(name, student, data, exchange(), distributed.rank(), distributed.world())
            for tensor in (value, *gradients):
                dist.all_reduce(tensor)
                tensor /= distributed.world()
            worst = max(float((a - b).abs().max()) for a, b in zip(gradients, wanted, strict=True))
            errors.setdefault(name, {})[label] = [float((value - wanted_value).abs()), worst]
    if distributed.is_main():
        Path(sys.argv[1]).write_text(json.dumps(errors))
    distributed.shutdown()


if __name__ == "__main__":
    main()

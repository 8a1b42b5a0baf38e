"""Run by two gloo ranks: every loss on two ranks against one rank on the whole batch, in float64, and wrong exchanges.

usage: worker.py OUT.json. Rank 0 writes {loss: {exchange: [value error, gradient error, buffer error]}}, and under
`<loss> without text` those of the losses that can do without a student text tower. Gradients are those of the student and of
the loss's own parameters; buffers are compared on every rank after two steps.
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


class Reversed(Collective):
    """Mutant: all columns in reversed rank order, the teacher's too: labels on the diagonal would be wrong."""

    def gather(self, x: Tensor) -> Tensor:
        """Rows of the last rank first."""
        return torch.cat(list(AllGather.apply(x).chunk(self.world))[::-1])


EXCHANGES = {c.__name__: c for c in (Collective, NoGradient, OwnSlice, Average, WrongOrder, NoGather, Reversed)}


class Student(nn.Module):
    """Two linear towers, a learnable scale and bias: parameters shared by all rows, as in a real student."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Linear(7, WIDTH, dtype=torch.float64)
        self.text = nn.Linear(7, WIDTH, dtype=torch.float64)
        self.scale = nn.Parameter(torch.full((1,), 2.0, dtype=torch.float64))
        self.bias = nn.Parameter(torch.full((1,), -3.0, dtype=torch.float64))


def build(name: str) -> nn.Module:
    """The loss with what a run would hand to it, the same on both ranks."""
    torch.manual_seed(1)
    given = {"embed_dim": WIDTH, "class_embeddings": torch.randn(4, WIDTH)}
    return build_loss(name, **{key: given[key] for key in LOSSES[name].built_with}).double()


def run(
    name: str, text: bool, student: Student, data: dict[str, Tensor], exchange, rank: int, world: int
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Loss, gradients by all parameters, and buffers of one rank's share, at the second of two steps."""
    loss = build(name)
    parameters = [*student.parameters(), *loss.parameters()]
    student.zero_grad()
    paired = "pairs" in LOSSES[name].needs
    for step in (1, 0):
        mine = {key: value.roll(step, 1).chunk(world)[rank] for key, value in data.items()}
        found = Embeddings(
            image=student.image(mine["images"]),
            text=student.text(mine["captions" if paired else "texts"]) if text else None,
            masked_image=student.image(mine["masked"]),
            logit_scale=student.scale.exp(),
            logit_bias=student.bias,
        )
        second = Embeddings(image=mine["v2"], text=mine["c2" if paired else "t2"])
        teacher = Embeddings(mine["v"], mine["c" if paired else "t"], torch.tensor([9.0]).double(), others=(second,))
        try:
            value = loss(found, teacher, exchange=exchange())
        except IndexError:  # a mutant whose labels point past its columns: dead, and shown as infinitely wrong
            value = None  # the other rank goes on to the next collective: so does this one
    if value is None:
        lost = [torch.full_like(p, float("inf")) for p in parameters]
        return torch.tensor(float("inf"), dtype=torch.float64), lost, []
    value.backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
    return value.detach(), gradients, [buffer.double() for buffer in loss.buffers()]


def main() -> None:
    """Compare, and let rank 0 write."""
    distributed.init()
    torch.manual_seed(0)
    student = Student()
    shapes = {
        "images": (ROWS, 7), "masked": (ROWS, 7), "captions": (ROWS, 7), "texts": (TEXTS, 7), "v": (ROWS, WIDTH),
        "t": (TEXTS, WIDTH), "c": (ROWS, WIDTH), "v2": (ROWS, 8), "t2": (TEXTS, 8), "c2": (ROWS, 8),
    }  # fmt: skip
    data = {key: torch.randn(*shape, dtype=torch.float64) for key, shape in shapes.items()}
    errors: dict[str, dict[str, list[float]]] = {}
    for name in LOSSES:
        for text in (True, False):
            needs = LOSSES[name].needs
            if not text and ("student_text" in needs or "text" not in needs):
                continue
            wanted_value, wanted, wanted_buffers = run(name, text, student, data, lambda: LOCAL, 0, 1)
            for label, exchange in EXCHANGES.items():
                value, gradients, buffers = run(
                    name, text, student, data, exchange, distributed.rank(), distributed.world()
                )
                for tensor in (value, *gradients):
                    dist.all_reduce(tensor)
                    tensor /= distributed.world()
                worst = max(float((a - b).abs().max()) for a, b in zip(gradients, wanted, strict=True))
                pairs = zip(buffers, wanted_buffers, strict=bool(buffers))
                apart = torch.tensor(max((float((a - b).abs().max()) for a, b in pairs), default=0.0))
                dist.all_reduce(apart, op=dist.ReduceOp.MAX)
                key = name if text else f"{name} without text"
                errors.setdefault(key, {})[label] = [float((value - wanted_value).abs()), worst, float(apart)]
    if distributed.is_main():
        Path(sys.argv[1]).write_text(json.dumps(errors))
    distributed.shutdown()


if __name__ == "__main__":
    main()

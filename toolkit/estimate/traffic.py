"""What the losses of a run gather: found by running them once on a handful of random rows."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from toolkit.config import Batch, Run
from toolkit.embeddings import Embeddings
from toolkit.errors import ConfigError
from toolkit.losses import build_losses

IMAGES, TEXTS = 4, 6
"""Rows of the trial; different, so that what is gathered is known by its rows. Equal where the run's are."""
WORLD = 2
RECOMPUTED = 5 / 3
"""The GPU kernel computes each similarity twice instead of keeping it: 5 products where torch in one band makes 3."""


@dataclass(frozen=True)
class Gathered:
    """One tensor that every rank gets whole: `rows` over all ranks, in fp32."""

    rows: int
    width: int
    backward: bool
    """Its gradient is reduce-scattered."""

    @property
    def bytes(self) -> float:
        """Of the whole."""
        return 4.0 * self.rows * self.width


@dataclass(frozen=True)
class Traffic:
    """Of one computation of the losses: one in a step, unless each micro-batch is compared with itself."""

    gathers: tuple[Gathered, ...]
    log_sum_exps: tuple[float, ...]
    """Bytes of each that is summed over ranks (a maximum and a sum, both all-reduced)."""
    flops: float
    """Of the losses on one rank in a step, forward and backward."""
    parameters: int
    """Trained with the student."""

    @property
    def memory_bytes(self) -> float:
        """Gathered features, their gradients, and 16-bit copies for the products, as the losses hold them at one time."""
        return sum((one.bytes * (2.5 if one.backward else 1.5) for one in self.gathers), 0.0)


class _Repeated(torch.autograd.Function):
    """Every rank has the rows of this one; notes that a gradient came back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, world: int, came_back: list[bool]) -> Tensor:
        ctx.world, ctx.came_back = world, came_back
        return x.repeat(world, *[1] * (x.dim() - 1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        ctx.came_back[0] = True
        return torch.stack(grads[0].chunk(ctx.world)).sum(0), None, None


class Recording:
    """An Exchange of `WORLD` equal ranks that writes down what it is asked; each tensor crosses once, as in training."""

    rank = 0
    world = WORLD

    def __init__(self) -> None:
        """Nothing asked yet."""
        self.gathered: dict[int, tuple[Tensor, Tensor, list[bool]]] = {}
        self.summed: list[tuple[int, int]] = []

    def gather(self, x: Tensor) -> Tensor:
        """The rows, `WORLD` times."""
        if id(x) not in self.gathered:
            came_back = [False]
            self.gathered[id(x)] = (x, _Repeated.apply(x, self.world, came_back), came_back)
        return self.gathered[id(x)][1]

    def sum_lse(self, x: Tensor) -> Tensor:
        """Of equal ranks."""
        self.summed.append((x.shape[0], x.shape[1]))
        return x + torch.tensor(float(self.world)).log()


def traffic_of(run: Run, batch: Batch, embed_dim: int, widths: tuple[int, ...]) -> Traffic:
    """What the run's losses gather, reduce and multiply at its batch; `widths` are the teachers', the main one first."""
    rows = {"image": IMAGES, "text": TEXTS if batch.global_texts != batch.global_images else IMAGES}
    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    try:
        losses = build_losses(run.losses, embed_dim=embed_dim, class_embeddings=classes_of(widths))
        exchange, flops = measured(run, losses, rows, embed_dim, widths)
    finally:
        torch.set_rng_state(torch_state)
    times = batch.grad_accum_steps if run.data.accumulation == "per_micro_batch" else 1
    wholes = {rows["image"]: batch.global_images // times, rows["text"]: batch.global_texts // times}
    gathers = tuple(
        Gathered(wholes[len(x)], x[0].numel(), came_back[0]) for x, _, came_back in exchange.gathered.values()
    )
    sums = tuple(4.0 * k * wholes[n // WORLD] for k, n in exchange.summed)
    local = batch.global_images / batch.world_size
    scale = local * wholes[rows["image"]] / (rows["image"] * rows["image"] * WORLD)
    own = sum(p.numel() for p in losses.parameters() if p.requires_grad)
    return Traffic(gathers, sums, flops * scale * RECOMPUTED, own)


def measured(
    run: Run, losses: Any, rows: dict[str, int], embed_dim: int, widths: tuple[int, ...]
) -> tuple[Recording, float]:
    """The trial itself; FLOPs of matrix products."""

    def features(kind: str, width: int, trained: bool) -> Tensor:
        return torch.randn(rows[kind], width).requires_grad_(trained)

    def teacher(width: int, others: tuple[Embeddings, ...]) -> Embeddings:
        scales = torch.full((1,), 100.0), torch.zeros(1)
        return Embeddings(features("image", width, False), features("text", width, False), *scales, others=others)

    student = Embeddings(
        features("image", embed_dim, True),
        features("text", embed_dim, True) if run.student.text_tower else None,
        torch.full((1,), 10.0, requires_grad=True) if run.student.text_tower else None,
        masked_image=features("image", embed_dim, True) if losses.mask_fraction is not None else None,
    )
    others = tuple(teacher(width, ()) for width in widths[1:])
    imitated = teacher(widths[0], others) if widths else None
    exchange = Recording()
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: addmm_flops})
    with counter:
        losses(student, imitated, exchange).total.backward()
    return exchange, float(counter.get_total_flops())


def addmm_flops(total: Any, left: Any, right: Any, *_: Any, **__: Any) -> int:
    """The counter knows addmm and not its in-place form."""
    return int(2 * left[0] * left[1] * right[1])


def classes_of(widths: tuple[int, ...]) -> Any:
    """For the losses with a head: as many rows as the classes file names, of random numbers."""

    def embeddings(path: str) -> Tensor:
        try:
            names = json.loads(Path(path).read_text())["classnames"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is no classes file ({error}); give a JSON file with classnames") from error
        return torch.randn(len(names), widths[0])

    return embeddings

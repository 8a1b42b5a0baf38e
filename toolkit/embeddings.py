"""Unit-norm embeddings of one rank, and `Exchange`, the one place where features cross ranks."""

import time
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from toolkit import heartbeat


def unit(features: Float[Tensor, "b e"]) -> Float[Tensor, "b e"]:
    """Rows divided by their norm, in fp32 or wider; a zero row stays zero instead of becoming NaN."""
    wide = features if features.dtype == torch.float64 else features.float()
    return F.normalize(wide, dim=-1)


@dataclass(frozen=True)
class Embeddings:
    """This rank's rows of one model: `image` [b, e], `text` [m, e], normalised on construction.

    `logit_scale` is already exponentiated. In unpaired runs row i of `image` has nothing to do with row i of `text`.
    """

    image: Float[Tensor, "b e"] | None = None
    text: Float[Tensor, "m e"] | None = None
    logit_scale: Tensor | None = None
    logit_bias: Tensor | None = None
    masked_image: Float[Tensor, "b e"] | None = None
    """The same pictures with most of their patches blanked, where a loss asks for it (`needs` masked_view)."""
    others: tuple["Embeddings", ...] = ()
    """Further teachers of an ensemble, each with its own width and scale."""

    def __post_init__(self) -> None:
        """Bring features to unit norm, whatever the model returned."""
        for name in ("image", "text", "masked_image"):
            features = getattr(self, name)
            if features is not None:
                object.__setattr__(self, name, unit(features))


@runtime_checkable
class Exchange(Protocol):
    """How a loss reaches the rows of other ranks; all ranks hold the same number of rows.

    With it a loss computes the mean over its own rows against the columns of all ranks. Then the mean over ranks of the
    values is the global-batch value, and the mean over ranks of parameter gradients is its gradient.
    """

    rank: int
    world: int

    def gather(self, x: Float[Tensor, "b e"]) -> Float[Tensor, "n e"]:
        """Rows of all ranks in rank order; the backward pass sums the gradients that all ranks have for a row."""
        ...

    def sum_lse(self, x: Float[Tensor, "k n"]) -> Float[Tensor, "k n"]:
        """Log-sum-exps over the rows of all ranks from those over each rank's own; without gradient."""
        ...


class Local:
    """One rank: the identity."""

    rank = 0
    world = 1

    def gather(self, x: Float[Tensor, "b e"]) -> Float[Tensor, "b e"]:
        """The rows themselves."""
        return x

    def sum_lse(self, x: Float[Tensor, "k n"]) -> Float[Tensor, "k n"]:
        """The log-sum-exps themselves."""
        return x


LOCAL = Local()


class Arrivals:
    """How long this rank takes from the beginning of a step to its first exchange: where the others would wait for it.

    Data, both models' forward passes and nothing that waits for another rank. On a GPU it is the time there.
    """

    def __init__(self) -> None:
        """Nothing measured."""
        self._began: Any = None
        self._pairs: list[tuple[Any, Any]] = []

    def begin(self, device: torch.device) -> None:
        """A step begins."""
        self._began = moment(device)

    def mark(self, device: torch.device) -> None:
        """The first exchange of the step; further ones, and those outside a step, do not count."""
        if self._began is not None:
            self._pairs.append((self._began, moment(device)))
            self._began = None

    def mean_seconds(self) -> float:
        """Over the steps since it was asked last, 0 without any; waits for the GPU."""
        seconds = [seconds_between(*pair) for pair in self._pairs]
        self._pairs = []
        return sum(seconds) / max(len(seconds), 1)


def moment(device: torch.device) -> Any:
    """Now: an event on the GPU's stream, or this machine's clock."""
    if device.type != "cuda":
        return time.monotonic()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(first: Any, second: Any) -> float:
    """Of two moments on one device."""
    if isinstance(first, float):
        return float(second - first)
    second.synchronize()
    return float(first.elapsed_time(second)) / 1000


ARRIVALS = Arrivals()
"""Of this process."""


class AllGather(torch.autograd.Function):
    """All-gather forward, reduce-scatter(SUM) backward: exact under the ordinary gradient mean over ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """[b, e] on each rank -> [world * b, e] on every rank."""
        x = x.contiguous()
        out = x.new_empty(dist.get_world_size() * x.shape[0], *x.shape[1:])
        dist.all_gather_into_tensor(out, x)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Sum over ranks of the gradient for this rank's rows."""
        grad = grads[0].contiguous()
        out = grad.new_empty(grad.shape[0] // dist.get_world_size(), *grad.shape[1:])
        dist.reduce_scatter_tensor(out, grad, op=dist.ReduceOp.SUM)
        return out


class Collective:
    """Exchange over the default process group. One instance serves one step: each tensor crosses the wire once."""

    def __init__(self) -> None:
        """Needs an initialised process group."""
        self.rank = dist.get_rank()
        self.world = dist.get_world_size()
        self._gathered: dict[int, tuple[Tensor, Tensor]] = {}

    def gather(self, x: Float[Tensor, "b e"]) -> Float[Tensor, "n e"]:
        """See Exchange; several terms that ask for one tensor share its gather."""
        ARRIVALS.mark(x.device)
        if id(x) not in self._gathered:
            heartbeat.reached("exchange with the other ranks")
            self._gathered[id(x)] = (x, AllGather.apply(x))  # x is kept so that its id is not reused
        return self._gathered[id(x)][1]

    def sum_lse(self, x: Float[Tensor, "k n"]) -> Float[Tensor, "k n"]:
        """See Exchange: the largest first, then the sum of what is left, so that nothing overflows."""
        top = x.clone()
        dist.all_reduce(top, op=dist.ReduceOp.MAX)
        total = (x - top).exp()
        dist.all_reduce(total)
        return total.log_().add_(top)


def step_exchange() -> Exchange:
    """The exchange of one step: over the process group if there is one with several ranks, else local."""
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return Collective() if several else LOCAL

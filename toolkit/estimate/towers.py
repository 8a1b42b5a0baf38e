"""FLOPs and bytes of the real towers, run on tensors without contents: no weights, no numbers, no GPU."""

import contextlib
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Pass:
    """One micro-batch through the towers of a model."""

    forward_flops: float
    backward_flops: float
    """With what is computed again under checkpointing; 0 for a frozen model."""
    held_bytes: float
    """Alive between forward and backward: activations, and 16-bit copies of weights under autocast."""
    peak_bytes: float
    """Most alive at one time; gradients of parameters are left out, ZeRO decides about them."""


class LiveBytes(TorchDispatchMode):
    """Bytes of all storages made inside, as long as something holds them."""

    def __init__(self) -> None:
        """Starts at 0; what existed before does not count."""
        super().__init__()
        self.now, self.peak = 0, 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, note the storages of its results."""
        before = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage not in self._known and id(storage) not in before:  # a view of a weight is no new memory
                    self._add(storage)
        return found

    def _add(self, storage: Any) -> None:
        size = int(storage.nbytes())
        self._known[storage] = size
        weakref.finalize(storage, self._free, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _free(self, size: int) -> None:
        self.now -= size


def run_frozen(module: nn.Module, calls: Callable[[], Any], *, fake: FakeTensorMode) -> Pass:
    """Forward without graph."""
    with counted(fake) as (live, flops), torch.no_grad():
        calls()
        total = float(flops.get_total_flops())
    return Pass(total, 0.0, 0.0, float(live.peak))


def run_trained(module: nn.Module, calls: Callable[[], list[Tensor]], *, fake: FakeTensorMode, autocast: bool) -> Pass:
    """Forward and backward; every gradient of a parameter is let go as soon as it is there."""

    def let_go(parameter: Tensor) -> None:
        parameter.grad = None

    handles = [p.register_post_accumulate_grad_hook(let_go) for p in module.parameters() if p.requires_grad]
    with counted(fake) as (live, flops):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            outputs = calls()
        forward, held = float(flops.get_total_flops()), float(live.now)
        torch.stack([one.float().sum() for one in outputs]).sum().backward()
        total, peak = float(flops.get_total_flops()), float(live.peak)
    for handle in handles:
        handle.remove()
    return Pass(forward, total - forward, held, peak)


@contextlib.contextmanager
def counted(fake: FakeTensorMode) -> Iterator[tuple[LiveBytes, FlopCounterMode]]:
    """Everything inside is counted and nothing computed; attention goes through the operators that the counter knows."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    live, flops = LiveBytes(), FlopCounterMode(display=False)
    try:
        with fake, live, flops:
            yield live, flops
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)

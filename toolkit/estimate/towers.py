"""FLOPs and bytes of the real towers, run on tensors without contents: no weights, no numbers, no GPU."""

import contextlib
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary


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
        self._known = WeakIdKeyDictionary(ref_type=weakref.ref)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, note the storages of its results."""
        given = [t.untyped_storage() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        old = {storage._cdata for storage in given}  # a view of a weight is no new memory
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in old and storage not in self._known:
                    self._add(storage)
        return found

    def _add(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self._known[storage] = size
        weakref.finalize(storage, self._free, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _free(self, size: int) -> None:
        self.now -= size


IN_FP32 = ("layer_norm", "group_norm", "softmax")
"""Functions that CUDA's autocast runs in fp32 and the CPU's, which is all that tensors without contents can have, does not."""


@contextlib.contextmanager
def as_on_cuda() -> Iterator[None]:
    """Autocast widens inputs as CUDA's does: those copies are kept for the backward."""

    def widened(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            narrow = torch.is_autocast_enabled("cpu") and x.dtype == torch.bfloat16
            return function(x.float() if narrow else x, *args, **kwargs)

        return call

    with contextlib.ExitStack() as stack:
        for name in IN_FP32:
            stack.enter_context(patch.object(F, name, widened(getattr(F, name))))
        yield


def run_frozen(calls: Callable[[], Any], fake: FakeTensorMode) -> Pass:
    """Forward without graph."""
    live, flops = LiveBytes(), FlopCounterMode(display=False)
    with hollow(fake), live, flops, torch.no_grad():
        calls()
    return Pass(float(flops.get_total_flops()), 0.0, 0.0, float(live.peak))


def run_trained(module: nn.Module, calls: Callable[[], list[Tensor]], fake: FakeTensorMode, *, autocast: bool) -> Pass:
    """Forward and backward, once for the bytes and once for the FLOPs: the counter holds on to tensors."""
    with let_go_of_gradients(module), hollow(fake), as_on_cuda():
        with LiveBytes() as live:
            total = total_of(calls, autocast)
            held = live.now
            total.backward()
        peak = live.peak
        with FlopCounterMode(display=False) as flops:
            total = total_of(calls, autocast)
            forward = flops.get_total_flops()
            total.backward()
            whole = flops.get_total_flops()
    return Pass(float(forward), float(whole - forward), float(held), float(peak))


def total_of(calls: Callable[[], list[Tensor]], autocast: bool) -> Tensor:
    """A number to go backward from."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outputs = calls()
    return torch.stack([one.float().sum() for one in outputs]).sum()


@contextlib.contextmanager
def let_go_of_gradients(module: nn.Module) -> Iterator[None]:
    """Every gradient of a parameter goes as soon as it is there."""

    def let_go(parameter: Tensor) -> None:
        parameter.grad = None

    handles = [p.register_post_accumulate_grad_hook(let_go) for p in module.parameters() if p.requires_grad]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def hollow(fake: FakeTensorMode) -> Iterator[None]:
    """Nothing inside is computed; attention goes through the operators that the counter of FLOPs knows."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with fake:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)

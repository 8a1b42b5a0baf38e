"""Torch's CPU generator for one sample, put back afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def kept_generator() -> Iterator[None]:
    """Torch's CPU generator is afterwards as it was before.

    Inside it is seeded directly, not by torch.manual_seed: where CUDA is not in use that queues a call with a formatted stack
    each time (0.2 ms, and it leaks).
    """
    before = torch.default_generator.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


@contextmanager
def cpu_generator(seed: int) -> Iterator[None]:
    """The same, and seeded inside."""
    with kept_generator():
        torch.default_generator.manual_seed(seed)
        yield

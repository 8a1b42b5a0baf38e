"""The learning rate of each update: the paper's numbers, and timm's scheduler at the absolute step."""

import pytest
import torch
from timm.scheduler import CosineLRScheduler

from toolkit.config import Optim
from toolkit.schedules import lr_at

STEPS = 324_800
PAPER = Optim(lr=8e-4, warmup_lr=4e-6, min_lr=4e-5, warmup_steps=12_992)


def test_the_papers_numbers() -> None:
    """First step, end of warm-up (where the rate falls a little), floor."""
    assert lr_at(0, PAPER, STEPS) == 4e-6
    assert lr_at(12_991, PAPER, STEPS) == pytest.approx(7.9994e-4, abs=5e-9)
    assert lr_at(12_992, PAPER, STEPS) == pytest.approx(7.9700e-4, abs=5e-9)
    assert lr_at(STEPS // 2, PAPER, STEPS) == pytest.approx((8e-4 + 4e-5) / 2)
    assert lr_at(STEPS, PAPER, STEPS) == 4e-5 == lr_at(STEPS + 5, PAPER, STEPS)


def test_no_lag() -> None:
    """The second update has left the first rate; the released code sets the rate after the update and repeats it."""
    assert lr_at(1, PAPER, STEPS) == pytest.approx(4e-6 + 7.96e-4 / 12_992)


@pytest.mark.parametrize("warmup", [0, 7, 40])
def test_equals_timm(warmup: int) -> None:
    """At every step of a short run, without warm-up prefix."""
    optim = Optim(lr=3e-3, warmup_lr=1e-4, min_lr=2e-5, warmup_steps=warmup)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=optim.lr)
    theirs = CosineLRScheduler(
        optimizer, t_initial=100, lr_min=optim.min_lr, warmup_t=warmup, warmup_lr_init=optim.warmup_lr,
        cycle_limit=1, t_in_epochs=False,
    )  # fmt: skip
    for step in range(100):
        theirs.step_update(step)
        assert lr_at(step, optim, 100) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), step

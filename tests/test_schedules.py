"""The learning rate of each update: the paper's numbers, and timm's scheduler at the absolute step."""

import pytest
import torch
from timm.scheduler import CosineLRScheduler

from toolkit.config import Optim
from toolkit.config.losses import VL
from toolkit.schedules import lr_at, weight_at

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


def test_weights_of_terms() -> None:
    """Constant, or from the first update's weight to the last one's."""
    constant, falling = VL(weight=0.7), VL(weight=1.0, final_weight=0.0)
    assert [weight_at(step, constant, 5) for step in range(5)] == [0.7] * 5
    assert [weight_at(step, falling, 5) for step in range(5)] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])
    cosine = VL(weight=0.0, final_weight=2.0, weight_schedule="cosine")
    assert [weight_at(step, cosine, 5) for step in (0, 2, 4)] == pytest.approx([0.0, 1.0, 2.0])
    assert weight_at(0, falling, 1) == 1.0

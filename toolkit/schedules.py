"""Learning rate and loss weights as functions of the step."""

import math

from toolkit.config import LossOptions, Optim


def lr_at(step: int, optim: Optim, steps: int) -> float:
    """Learning rate of the update number `step` (0-based) out of `steps`.

    Linear from `warmup_lr` to `lr` over `warmup_steps`; after that the cosine from `lr` to `min_lr` over all steps,
    evaluated at the absolute step (timm's CosineLRScheduler without warm-up prefix: the rate falls from 7.999e-4 to
    7.970e-4 at the end of the paper's warm-up). The released code sets the rate after the update and so lags by one step;
    this does not.
    """
    if step < optim.warmup_steps:
        return optim.warmup_lr + (optim.lr - optim.warmup_lr) * step / optim.warmup_steps
    return optim.min_lr + (optim.lr - optim.min_lr) * (1 + math.cos(math.pi * min(step, steps) / steps)) / 2


def weight_at(step: int, term: LossOptions, steps: int) -> float:
    """Weight of a term at update `step` (0-based) of `steps`: from `weight` at the first to `final_weight` at the last."""
    if term.final_weight is None:
        return term.weight
    done = step / max(1, steps - 1)
    if term.weight_schedule == "cosine":
        done = (1 - math.cos(math.pi * done)) / 2
    return term.weight + (term.final_weight - term.weight) * done

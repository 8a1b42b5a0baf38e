"""Who computes a similarity-KL: the fused Triton kernel where it serves, tiles in torch everywhere else."""

import warnings
from functools import cache

import torch
import torch.nn.functional as F

from toolkit.embeddings import LOCAL
from toolkit.kernels import fused, tiles
from toolkit.kernels.problem import Gradients, Problem, Target

__all__ = ["Gradients", "Problem", "Target", "solve"]
MIN_COSINE = 0.999
"""Between the gradients of the two on the trial problem; 16-bit factors leave 0.99999."""


def solve(problem: Problem) -> Gradients:
    """Value and gradients of a problem; `fused.solve` and `tiles.solve` force one of the two."""
    if fused.serves(problem) and fused_works(problem.rows.device):
        return fused.solve(problem)
    return tiles.solve(problem)


@cache
def fused_works(device: torch.device) -> bool:
    """One small problem through both at first use: a kernel that fails or differs on this machine is left, with a warning."""
    draw = torch.Generator().manual_seed(0)
    z, v, t = (F.normalize(torch.randn(rows, 256, generator=draw), dim=-1).to(device) for rows in (70, 70, 90))
    target = Target(v, t, 20.0)
    trial = Problem(z, t, 20.0, (target,), True, LOCAL, want_rows=True, want_columns=True)
    wanted = tiles.solve(trial)
    try:
        found = fused.solve(trial)
        pairs = [(found.rows, wanted.rows), (found.columns, wanted.columns)]
        cosines = [
            float(F.cosine_similarity(a.flatten(), b.flatten(), 0)) for a, b in pairs if a is not None and b is not None
        ]
        why = "" if min(cosines) > MIN_COSINE else f"its gradients differ from torch's (cosines {cosines})"
    except Exception as error:  # compilers and drivers fail in many ways, and torch can do the work
        why = f"it fails ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]})"
    if why:
        warnings.warn(
            f"the fused similarity-KL is not used on {device}: {why}; torch computes it in bands", stacklevel=2
        )
    return not why

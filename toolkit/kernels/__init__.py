"""Who computes a similarity-KL: the fused Triton kernel where it serves, tiles in torch everywhere else."""

from toolkit.kernels import fused, tiles
from toolkit.kernels.problem import Gradients, Problem, Target

__all__ = ["Gradients", "Problem", "Target", "solve"]


def solve(problem: Problem) -> Gradients:
    """Value and gradients of a problem; `fused.solve` and `tiles.solve` force one of the two."""
    return fused.solve(problem) if fused.serves(problem) else tiles.solve(problem)

"""Who computes a similarity-KL: the fused Triton kernel where it serves, tiles in torch everywhere else."""

from toolkit.kernels import tiles
from toolkit.kernels.problem import Gradients, Problem, Target

__all__ = ["Gradients", "Problem", "Target", "solve"]


def solve(problem: Problem) -> Gradients:
    """Value and gradients of a problem."""
    return tiles.solve(problem)

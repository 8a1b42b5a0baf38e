"""Similarity-KL with one teacher on CUDA: Triton kernels for the tiles, matrix products by cuBLAS for the gradients.

Every similarity is computed twice and never stored: once for the log-sum-exps of rows (and columns), once for the gradient
by the logits, of which a band of rows exists at a time. Two products then turn the band into gradients by the features.
Launch shapes are fixed, not tuned by timing at run time: a resumed run must compute the same bits.
"""

import math
import os
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from toolkit.kernels.problem import Gradients, Problem

PRODUCTS = torch.float16
"""Factors of products by default: as fast as bf16 with 8 times less rounding, and cosines times a scale fit its range."""
LIFT = 2.0**13
"""Times this the gradient by the logits fills fp16's range: its entries are differences of probabilities, of 1/n and below."""
WORKSPACE_BYTES = 2**28
"""Most that the gradient of one band of rows may take."""


class Blocks(NamedTuple):
    """Shape of a tile and how a program computes it."""

    rows: int
    columns: int
    inner: int
    """Width taken at a time."""
    warps: int
    stages: int
    """Loads in flight."""


class Plan(NamedTuple):
    """Blocks of the two kernels, and how products are taken."""

    norms: Blocks
    gradient: Blocks
    precision: str = "ieee"
    """Of products of fp32 factors: `ieee` or `tf32`. Narrower factors are exact in either."""


PLANS = {
    "large": Plan(norms=Blocks(128, 256, 64, 8, 3), gradient=Blocks(128, 128, 64, 8, 3)),
    "small": Plan(norms=Blocks(128, 128, 32, 8, 3), gradient=Blocks(128, 64, 32, 8, 3)),
    "exact": Plan(norms=Blocks(64, 64, 32, 4, 2), gradient=Blocks(64, 64, 32, 4, 2)),
    "interpreter": Plan(norms=Blocks(16, 64, 128, 4, 1), gradient=Blocks(32, 32, 128, 4, 1)),
}
"""16-bit factors where a program may have 160 KiB of shared memory (A100, H100, H200) and elsewhere; fp32; interpreter."""
GROUP = 16
"""Blocks of rows that are computed against one block of columns before the next is read."""


class Side(NamedTuple):
    """Student or teacher: rows with the scale folded in, and columns, both contiguous in the dtype of the products."""

    rows: Tensor
    columns: Tensor


def serves(problem: Problem) -> bool:
    """One target, not float64, on a GPU no older than Ampere (or under TRITON_INTERPRET=1 anywhere), Triton installed."""
    if len(problem.targets) != 1 or problem.dtype == torch.float64 or not has_triton():
        return False
    return interpreted() or (problem.rows.is_cuda and capability(problem.rows.device) >= (8, 0))


@cache
def has_triton() -> bool:
    """Comes with torch on Linux, not elsewhere."""
    return find_spec("triton") is not None


@cache
def capability(device: torch.device) -> tuple[int, int]:
    """Compute capability; asking the driver at every step would cost."""
    return torch.cuda.get_device_capability(device)


@cache
def shared_memory(device: torch.device) -> int:
    """Bytes that one program may have."""
    return int(torch.cuda.get_device_properties(device).shared_memory_per_block_optin)


def interpreted() -> bool:
    """Triton runs kernels as Python: set before it is imported, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def plan_for(device: torch.device, dtype: torch.dtype) -> Plan:
    """Which of the plans."""
    if interpreted():
        return PLANS["interpreter"]
    if dtype == torch.float32:
        return PLANS["exact"]
    return PLANS["large" if shared_memory(device) >= 160 * 1024 else "small"]


def solve(
    problem: Problem,
    *,
    dtype: torch.dtype | None = None,
    plan: Plan | None = None,
    workspace_bytes: int = WORKSPACE_BYTES,
) -> Gradients:
    """Value and gradients. Products take factors of `dtype`: fp16 by default, or bf16, or fp32 (exact, far slower).

    Whatever the dtype, products accumulate in fp32, and logits, softmaxes and results are fp32. fp16 relies on features of
    unit norm; with bf16 any would do. In Triton's interpreter the default is fp32.
    """
    dtype = dtype or (torch.float32 if interpreted() else PRODUCTS)
    plan = plan or plan_for(problem.rows.device, dtype)
    with torch.cuda.device_of(problem.rows):  # Triton launches on the current device
        student, teacher = sides(problem, dtype)
        b, n = len(student.rows), len(student.columns)
        step = plan.norms.rows
        height = min(b, max(step, workspace_bytes // (n * dtype.itemsize) // step * step))
        spans = [(start, min(start + height, b)) for start in range(0, b, height)]
        row_norms, column_norms = norms(problem, (student, teacher), spans, plan)
        return gradients(problem, student, teacher, spans, row_norms, column_norms, plan)


def sides(problem: Problem, dtype: torch.dtype) -> tuple[Side, Side]:
    """Student and teacher in the dtype of the products; columns that are the same tensor are converted once."""
    (target,) = problem.targets
    columns = problem.columns.to(dtype).contiguous()
    mine, theirs = problem.columns, target.columns
    same = (mine.data_ptr(), mine.dtype, mine.shape, mine.stride()) == (
        theirs.data_ptr(), theirs.dtype, theirs.shape, theirs.stride(),
    )  # fmt: skip
    return (
        Side((problem.rows.float() * problem.scale).to(dtype).contiguous(), columns),
        Side(
            (target.rows.float() * target.logit_scale).to(dtype).contiguous(),
            columns if same else theirs.to(dtype).contiguous(),
        ),
    )


def norms(
    problem: Problem, both_sides: tuple[Side, Side], spans: list[tuple[int, int]], plan: Plan
) -> tuple[Tensor, Tensor | None]:
    """Log-sum-exps, the student's, then the teacher's: [2, b] of rows and, if asked for, [2, n] of columns of all ranks."""
    from toolkit.kernels.fused_tiles import norms_tile

    b, n = len(both_sides[0].rows), len(both_sides[0].columns)
    new = both_sides[0].rows.new_empty
    of_rows = new((2, b), dtype=torch.float32)
    of_columns = None
    for start, stop in spans:
        grid = cdiv(stop - start, plan.norms.rows), cdiv(n, plan.norms.columns)
        by_row = new((2, grid[1], stop - start), dtype=torch.float32)
        by_column = new((2, grid[0] if problem.both else 0, n), dtype=torch.float32)
        for number, side in enumerate(both_sides):
            norms_tile[(grid[0] * grid[1],)](
                side.rows[start:stop], side.columns, by_row[number], by_column[number], stop - start, n,
                BOTH=problem.both, **launch(plan, plan.norms, side),
            )  # fmt: skip
        torch.logsumexp(by_row, 1, out=of_rows[:, start:stop])
        if problem.both:
            now = by_column.logsumexp(1)
            of_columns = now if of_columns is None else torch.logaddexp(of_columns, now)
    return of_rows, None if of_columns is None else problem.exchange.sum_lse(of_columns).contiguous()


def gradients(
    problem: Problem,
    student: Side,
    teacher: Side,
    spans: list[tuple[int, int]],
    row_norms: Tensor,
    column_norms: Tensor | None,
    plan: Plan,
) -> Gradients:
    """Value and gradients from the log-sum-exps, band by band."""
    from toolkit.kernels.fused_tiles import gradient_tile

    n, height = len(student.columns), spans[0][1]
    new = student.rows.new_empty
    ratio = problem.column_weight / problem.row_weight
    lift = LIFT / max(1.0, ratio) if column_norms is not None else LIFT
    weight = problem.row_weight / lift
    row_norms = row_norms - math.log(lift)  # a weight of the direction, see gradient_tile
    if column_norms is not None:
        column_norms = column_norms - math.log(lift * ratio)
    wanted = problem.want_rows or problem.want_columns
    band = new((height if wanted else 0, cdiv(n, 16) * 16))[:, :n]  # aligned rows, as fast products want them
    values = new((programs(height, n, plan.gradient),), dtype=torch.float32)
    value = values.new_zeros(())
    by_rows = new(student.rows.shape, dtype=torch.float32) if problem.want_rows else None
    by_columns = new(student.columns.shape, dtype=torch.float32) if problem.want_columns else None
    for start, stop in spans:
        count = programs(stop - start, n, plan.gradient)
        gradient_tile[(count,)](
            student.rows[start:stop], student.columns, teacher.rows[start:stop], teacher.columns,
            row_norms[:, start:stop], row_norms.stride(0), row_norms if column_norms is None else column_norms,
            band, band.stride(0), values, stop - start, n,
            BOTH=column_norms is not None, STORE=wanted, **launch(plan, plan.gradient, student, teacher),
        )  # fmt: skip
        value += values[:count].sum()
        if by_rows is not None:
            add_product(by_rows[start:stop], band[: stop - start], student.columns, weight, keep=False)
        if by_columns is not None:
            add_product(by_columns, band[: stop - start].T, student.rows[start:stop], weight, keep=start > 0)
    return Gradients(value * weight, None if by_rows is None else by_rows.mul_(problem.scale), by_columns)


def add_product(total: Tensor, left: Tensor, right: Tensor, weight: float, keep: bool) -> None:
    """total (or nothing, without `keep`) + weight * left @ right, accumulated in fp32 whatever the dtype of the factors."""
    if left.dtype == total.dtype:
        torch.addmm(total, left, right, beta=int(keep), alpha=weight, out=total)
    elif left.is_cuda:
        torch.addmm(total, left, right, total.dtype, beta=int(keep), alpha=weight, out=total)
    else:  # no CPU product of bf16 factors has an fp32 result
        torch.addmm(total, left.float(), right.float(), beta=int(keep), alpha=weight, out=total)


def launch(plan: Plan, blocks: Blocks, side: Side, teacher: Side | None = None) -> dict[str, Any]:
    """What both kernels take by name."""
    widths = {"width": side.columns.shape[1]}
    if teacher is not None:
        widths["teacher_width"] = teacher.columns.shape[1]
    return {
        **widths, "EVEN": all(width % blocks.inner == 0 for width in widths.values()),
        "ROWS": blocks.rows, "COLUMNS": blocks.columns, "INNER": blocks.inner, "GROUP": GROUP,
        "PRECISION": plan.precision, "num_warps": blocks.warps, "num_stages": blocks.stages,
        "enable_fp_fusion": True,
    }  # fmt: skip


def programs(b: int, n: int, blocks: Blocks) -> int:
    """Tiles of a band."""
    return cdiv(b, blocks.rows) * cdiv(n, blocks.columns)


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)

"""Similarity-KL in plain torch, a band of rows at a time: reference of the fused kernel, and what runs without a GPU."""

import torch
from torch import Tensor

from toolkit.kernels.problem import Gradients, Problem

TILE_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
"""Elements of one band (rows x columns) by device: small enough for a CPU's cache, large enough to fill a GPU."""


class Band:
    """Similarities of a band of rows with all columns, in buffers that the next band uses again."""

    def __init__(self, problem: Problem, columns: Tensor, target_columns: list[Tensor], height: int) -> None:
        """`columns` and `target_columns` are [width, e] in the working dtype."""
        self.problem, self.columns, self.target_columns = problem, columns, target_columns
        shape = (height, len(columns))
        new = columns.new_empty
        self.student = new(shape)
        """Student logits, later the gradient by them."""
        self.teachers = [new(shape) for _ in target_columns]
        self.spare, self.other = new(shape), new(shape)

    def load(self, start: int, stop: int) -> tuple[Tensor, list[Tensor], Tensor]:
        """Student logits and teachers' logits of rows start..stop, and the rows times the student's scale."""
        problem, count = self.problem, stop - start
        rows = problem.rows[start:stop].to(problem.dtype) * problem.scale
        student = torch.mm(rows, self.columns.T, out=self.student[:count])
        teachers = []
        for target, columns, buffer in zip(problem.targets, self.target_columns, self.teachers, strict=True):
            scaled = target.rows[start:stop].to(problem.dtype) * target.logit_scale
            teachers.append(torch.mm(scaled, columns.T, out=buffer[:count]))
        return student, teachers, rows


def solve(problem: Problem) -> Gradients:
    """Value and gradients, bands in order.

    With both directions the bands are computed twice, first for the columns' log-sum-exps; once if one band holds all.
    """
    columns = problem.columns.to(problem.dtype)
    target_columns = [target.columns.to(problem.dtype) for target in problem.targets]
    b, n = len(problem.rows), len(columns)
    height = min(b, max(16, TILE_ELEMENTS.get(columns.device.type, 2**22) // n))
    band = Band(problem, columns, target_columns, height)
    value = columns.new_zeros(())
    by_rows = torch.empty_like(problem.rows, dtype=problem.dtype) if problem.want_rows else None
    by_columns = torch.zeros_like(columns) if problem.want_columns else None
    spans = [(start, min(start + height, b)) for start in range(0, b, height)]
    loaded = band.load(0, b) if len(spans) == 1 else None
    norms = column_norms(problem, band, spans, loaded) if problem.both else None
    for start, stop in spans:
        student, teachers, rows = loaded or band.load(start, stop)
        gradient = band.other[: stop - start]
        value += rows_part(problem, student, teachers, start, gradient, band.spare[: stop - start])
        if norms is not None:
            value += columns_part(problem, student, teachers, start, norms, gradient, band.spare[: stop - start])
        if by_rows is not None:
            torch.mm(gradient, columns, out=by_rows[start:stop])
        if by_columns is not None:
            by_columns.addmm_(gradient.T, rows)
    return Gradients(value, None if by_rows is None else by_rows.mul_(problem.scale), by_columns)


def rows_part(
    problem: Problem, student: Tensor, teachers: list[Tensor], start: int, gradient: Tensor, p: Tensor
) -> Tensor:
    """Weighted KL of the rows; fills `gradient` with (Q - P) / b. `p` is scratch."""
    weight = problem.row_weight
    norm = student.logsumexp(1, keepdim=True)
    torch.sub(student, norm, out=gradient)  # log Q
    if not teachers:
        on = labels(problem, start, len(student))
        value = -gradient[on].sum() * weight
        gradient.exp_().mul_(weight)
        gradient[on] -= weight
        return value
    target_norms = [teacher.logsumexp(1, keepdim=True) for teacher in teachers]
    value = divergence(teachers, target_norms, gradient, p) * weight
    gradient.exp_().sub_(p).mul_(weight)
    return value


def columns_part(
    problem: Problem,
    student: Tensor,
    teachers: list[Tensor],
    start: int,
    norms: list[Tensor],
    gradient: Tensor,
    p: Tensor,
) -> Tensor:
    """This rank's part of the columns' KL; adds (Q - P) world / n to `gradient`. The logits are used up, `p` is scratch."""
    weight = problem.column_weight
    log_q = student.sub_(norms[0])
    if not teachers:
        on = labels(problem, start, len(student))
        value = -log_q[on].sum() * weight
        gradient.add_(log_q.exp_(), alpha=weight)
        gradient[on] -= weight
        return value
    value = divergence(teachers, norms[1:], log_q, p) * weight
    gradient.add_(log_q.exp_().sub_(p), alpha=weight)
    return value


def divergence(teachers: list[Tensor], norms: list[Tensor], log_q: Tensor, p: Tensor) -> Tensor:
    """sum P (log P - log Q) over the band; leaves P, the mean over teachers of exp(teacher - norm), in `p`."""
    if len(teachers) == 1:
        log_p = torch.sub(teachers[0], norms[0], out=p)
        difference = log_p - log_q
        torch.exp(log_p, out=p)
        return torch.dot(p.reshape(-1), difference.reshape(-1))
    p.zero_()
    for teacher, norm in zip(teachers, norms, strict=True):
        p.add_((teacher - norm).exp_(), alpha=1 / len(teachers))
    return torch.special.xlogy(p, p).sub_(p * log_q).sum()


def column_norms(
    problem: Problem, band: Band, spans: list[tuple[int, int]], loaded: tuple[Tensor, list[Tensor], Tensor] | None
) -> list[Tensor]:
    """Log-sum-exp of every column over the rows of all ranks: the student's, then each teacher's, [n] each."""
    found: list[Tensor] = []
    for start, stop in spans:
        student, teachers, _ = loaded or band.load(start, stop)
        now = [logits.logsumexp(0) for logits in (student, *teachers)]
        found = [torch.logaddexp(a, b) for a, b in zip(found, now, strict=True)] if found else now
    return list(problem.exchange.sum_lse(torch.stack(found)))


def labels(problem: Problem, start: int, count: int) -> tuple[Tensor, Tensor]:
    """Index of the diagonal of the global batch in a band."""
    device = problem.rows.device
    rows = torch.arange(count, device=device)
    return rows, rows + problem.first_label + start

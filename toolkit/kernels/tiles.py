"""Similarity-KL in plain torch, a band of rows at a time: reference of the fused kernel, and what runs without a GPU."""

import torch
from torch import Tensor

from toolkit.kernels.problem import Gradients, Problem

TILE_ELEMENTS = {"cpu": 2**22, "cuda": 2**26}
"""Elements of one band (rows x columns) by device: small enough for a CPU's cache, large enough to fill a GPU."""
MIN_ROWS = 128
"""A band is at least so high: thinner ones make slow matrix products."""


class Band:
    """Similarities of a band of rows with all columns, in buffers that the next band uses again.

    Buffers, because a fresh tensor of this size costs more in page faults than the arithmetic on it.
    """

    def __init__(self, problem: Problem, columns: Tensor, target_columns: list[Tensor], height: int) -> None:
        """`columns` and `target_columns` are [n, e] in the working dtype."""
        self.problem, self.columns, self.target_columns = problem, columns, target_columns
        shape = (height, len(columns))
        self._student = columns.new_empty(shape)
        self._teachers = [columns.new_empty(shape) for _ in target_columns]
        self._scratch = [columns.new_empty(shape) for _ in range(3)]

    def load(self, start: int, stop: int) -> None:
        """Compute the logits of rows start..stop."""
        problem, count = self.problem, stop - start
        self.start = start
        self.rows = problem.rows[start:stop].to(problem.dtype) * problem.scale
        """Rows times the student's scale."""
        self.student = torch.mm(self.rows, self.columns.T, out=self._student[:count])
        self.teachers = [
            torch.mm(target.rows[start:stop].to(problem.dtype) * target.logit_scale, columns.T, out=buffer[:count])
            for target, columns, buffer in zip(problem.targets, self.target_columns, self._teachers, strict=True)
        ]
        self.gradient, self.p, self.spare = (buffer[:count] for buffer in self._scratch)

    def labels(self) -> tuple[Tensor, Tensor]:
        """Index of the diagonal of the global batch."""
        rows = torch.arange(len(self.student), device=self.student.device)
        return rows, rows + self.problem.first_label + self.start


def solve(problem: Problem) -> Gradients:
    """Value and gradients, bands in order.

    With both directions the bands are computed twice, first for the columns' log-sum-exps; once if one band holds all.
    """
    columns = problem.columns.to(problem.dtype)
    target_columns = [target.columns.to(problem.dtype) for target in problem.targets]
    b, n = len(problem.rows), len(columns)
    height = min(b, max(MIN_ROWS, TILE_ELEMENTS[columns.device.type] // n))
    band = Band(problem, columns, target_columns, height)
    value = columns.new_zeros(())
    by_rows = torch.empty_like(problem.rows, dtype=problem.dtype) if problem.want_rows else None
    by_columns = torch.zeros_like(columns) if problem.want_columns else None
    spans = [(start, min(start + height, b)) for start in range(0, b, height)]
    norms = column_norms(band, spans) if problem.both else None
    for start, stop in spans:
        if norms is None or len(spans) > 1:
            band.load(start, stop)
        value += rows_part(band)
        if norms is not None:
            value += columns_part(band, norms)
        if by_rows is not None:
            torch.mm(band.gradient, columns, out=by_rows[start:stop])
        if by_columns is not None:
            by_columns.addmm_(band.gradient.T, band.rows)
    return Gradients(value, None if by_rows is None else by_rows.mul_(problem.scale), by_columns)


def rows_part(band: Band) -> Tensor:
    """Weighted KL of the band's rows; sets `gradient` to the gradient by the student's logits."""
    weight = band.problem.row_weight
    log_q = torch.log_softmax(band.student, 1, out=band.gradient)
    if not band.teachers:
        on = band.labels()
        value = -log_q[on].sum() * weight
        band.gradient.exp_().mul_(weight)
        band.gradient[on] -= weight
        return value
    if len(band.teachers) == 1:
        value = divergence(torch.log_softmax(band.teachers[0], 1, out=band.p), log_q, band.spare) * weight
    else:
        value = mixture([torch.log_softmax(t, 1) for t in band.teachers], log_q, band.p) * weight
    band.gradient.exp_().sub_(band.p).mul_(weight)
    return value


def columns_part(band: Band, norms: list[Tensor]) -> Tensor:
    """This rank's part of the columns' weighted KL; adds to `gradient`. The logits are used up."""
    weight = band.problem.column_weight
    log_q = band.student.sub_(norms[0])
    if not band.teachers:
        on = band.labels()
        value = -log_q[on].sum() * weight
        band.gradient.add_(log_q.exp_(), alpha=weight)
        band.gradient[on] -= weight
        return value
    if len(band.teachers) == 1:
        value = divergence(torch.sub(band.teachers[0], norms[1], out=band.p), log_q, band.spare) * weight
    else:
        value = (
            mixture([t.sub_(norm) for t, norm in zip(band.teachers, norms[1:], strict=True)], log_q, band.p) * weight
        )
    band.gradient.add_(log_q.exp_().sub_(band.p), alpha=weight)
    return value


def divergence(log_p: Tensor, log_q: Tensor, scratch: Tensor) -> Tensor:
    """sum P (log P - log Q); `log_p` becomes P."""
    difference = torch.sub(log_p, log_q, out=scratch)
    return torch.dot(log_p.exp_().view(-1), difference.view(-1))


def mixture(log_ps: list[Tensor], log_q: Tensor, p: Tensor) -> Tensor:
    """The same for P = the mean of several distributions, which is left in `p`."""
    p.zero_()
    for log_p in log_ps:
        p.add_(log_p.exp(), alpha=1 / len(log_ps))
    return (torch.special.xlogy(p, p) - p * log_q).sum()


def column_norms(band: Band, spans: list[tuple[int, int]]) -> list[Tensor]:
    """Log-sum-exp of every column over the rows of all ranks: the student's, then each teacher's, [n] each."""
    found: list[Tensor] = []
    for start, stop in spans:
        band.load(start, stop)
        now = [logits.logsumexp(0) for logits in (band.student, *band.teachers)]
        found = [torch.logaddexp(a, b) for a, b in zip(found, now, strict=True)] if found else now
    return list(band.problem.exchange.sum_lse(torch.stack(found)))

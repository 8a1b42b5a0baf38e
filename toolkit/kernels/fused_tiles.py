"""The two Triton kernels of fused.py: one program computes one tile of similarities and keeps it in registers.

Both recompute their tile from the features, so that nothing of size rows x columns is ever written but the gradient of a
band. Matrices are contiguous; rows come with the scale folded in. EVEN: INNER divides the widths, so loads need no mask.
`no_type_check`: what the test suite's import hook wraps, Triton cannot read.
"""

from typing import no_type_check

import triton
import triton.language as tl

COUNTS = ("b", "n", "row_norms_stride")
"""Any number of them runs the same binary: no compilation for the last band, or for a batch of another size."""


@triton.jit
@no_type_check
def place(row_blocks, column_blocks, GROUP: tl.constexpr):
    """Block of rows and block of columns of this program: `GROUP` blocks of rows share each block of columns in L2."""
    program = tl.program_id(0)
    return tl.swizzle2d(program // column_blocks, program % column_blocks, row_blocks, column_blocks, GROUP)


@triton.jit
@no_type_check
def similarities(
    rows, columns, row, column, b, n, width, EVEN: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr
):
    """fp32 products of the rows `row` and the columns `column`; past the end they repeat the last one."""
    inner = tl.arange(0, INNER)
    row_start = rows + tl.minimum(row, b - 1).to(tl.int64)[:, None] * width
    column_start = columns + tl.minimum(column, n - 1).to(tl.int64)[None, :] * width
    total = tl.zeros((row.shape[0], column.shape[0]), tl.float32)
    for start in range(0, width, INNER):
        k = start + inner
        if EVEN:
            left = tl.load(row_start + k[None, :])
            right = tl.load(column_start + k[:, None])
        else:
            left = tl.load(row_start + k[None, :], mask=k[None, :] < width, other=0.0)
            right = tl.load(column_start + k[:, None], mask=k[:, None] < width, other=0.0)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    return total


@triton.jit(do_not_specialize=COUNTS)
@no_type_check
def norms_tile(
    rows,
    columns,
    by_row,
    by_column,
    b,
    n,
    width,
    EVEN: tl.constexpr,
    BOTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Log-sum-exps of a tile along its columns, into by_row [column blocks, b], and (BOTH) rows, by_column [row blocks, n]."""
    row_block, column_block = place(tl.cdiv(b, ROWS), tl.cdiv(n, COLUMNS), GROUP)
    row = row_block * ROWS + tl.arange(0, ROWS)
    column = column_block * COLUMNS + tl.arange(0, COLUMNS)
    logits = similarities(rows, columns, row, column, b, n, width, EVEN, INNER, PRECISION)
    # Each direction masks only what it sums over: masking both would leave rows past the end without a finite logit.
    known = tl.where(column[None, :] < n, logits, float("-inf"))
    top = tl.max(known, 1)
    norm = top + tl.log(tl.sum(tl.exp(known - top[:, None]), 1))
    tl.store(by_row + column_block.to(tl.int64) * b + row, norm, mask=row < b)
    if BOTH:
        known = tl.where(row[:, None] < b, logits, float("-inf"))
        top = tl.max(known, 0)
        norm = top + tl.log(tl.sum(tl.exp(known - top[None, :]), 0))
        tl.store(by_column + row_block.to(tl.int64) * n + column, norm, mask=column < n)


@triton.jit
@no_type_check
def one_direction(student, teacher, student_norm, teacher_norm, on_row, on_column):
    """Q - P and the tile's sum of P (log P - log Q), for norms that broadcast along one side of the tile.

    The sum goes row by row with a mask on each side: with one mask of the tile's shape registers spill.
    """
    log_q = student - student_norm
    log_p = teacher - teacher_norm
    p = tl.exp(log_p)
    by_row = tl.sum(tl.where(on_column[None, :], p * (log_p - log_q), 0.0), 1)
    return tl.exp(log_q) - p, tl.sum(tl.where(on_row, by_row, 0.0))


@triton.jit(do_not_specialize=COUNTS)
@no_type_check
def gradient_tile(
    student_rows,
    student_columns,
    teacher_rows,
    teacher_columns,
    row_norms,
    row_norms_stride,
    column_norms,
    gradient,
    gradient_stride,
    values,
    b,
    n,
    width,
    teacher_width,
    EVEN: tl.constexpr,
    BOTH: tl.constexpr,
    STORE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    GROUP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A tile of the gradient by the student's logits, into gradient [b, n], and its part of the value, into values [programs].

    Norms are the student's, then the teacher's: row_norms [2, b], column_norms [2, n]. Whoever subtracts the logarithm of a
    weight from both weighs their direction.
    """
    row_block, column_block = place(tl.cdiv(b, ROWS), tl.cdiv(n, COLUMNS), GROUP)
    row = row_block * ROWS + tl.arange(0, ROWS)
    column = column_block * COLUMNS + tl.arange(0, COLUMNS)
    on_row, on_column = row < b, column < n
    student = similarities(student_rows, student_columns, row, column, b, n, width, EVEN, INNER, PRECISION)
    teacher = similarities(teacher_rows, teacher_columns, row, column, b, n, teacher_width, EVEN, INNER, PRECISION)
    mine = tl.load(row_norms + row, mask=on_row, other=0.0)[:, None]
    theirs = tl.load(row_norms + row_norms_stride + row, mask=on_row, other=0.0)[:, None]
    found, value = one_direction(student, teacher, mine, theirs, on_row, on_column)
    if BOTH:
        mine = tl.load(column_norms + column, mask=on_column, other=0.0)[None, :]
        theirs = tl.load(column_norms + n + column, mask=on_column, other=0.0)[None, :]
        more, part = one_direction(student, teacher, mine, theirs, on_row, on_column)
        found += more
        value += part
    if STORE:
        at = gradient + row.to(tl.int64)[:, None] * gradient_stride + column[None, :]
        tl.store(at, found.to(gradient.dtype.element_ty), mask=on_row[:, None] & on_column[None, :])
    tl.store(values + tl.program_id(0), value)

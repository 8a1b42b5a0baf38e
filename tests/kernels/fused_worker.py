"""Runs the fused kernel in a process of its own, where Triton may be told to interpret: errors against float64 as JSON.

python fused_worker.py interpret|cuda      every case, and (interpret) every mutant
python fused_worker.py compile             what Hopper's compiler makes of the kernels; needs no GPU
"""

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

MODE = sys.argv[1]
if MODE == "interpret":
    os.environ["TRITON_INTERPRET"] = "1"  # before the first import of triton

import torch  # noqa: E402
from fused_mutants import MUTANTS, mutate  # noqa: E402
from torch import Tensor  # noqa: E402

from toolkit import kernels  # noqa: E402
from toolkit.embeddings import LOCAL, Exchange, unit  # noqa: E402
from toolkit.kernels import Gradients, Problem, Target, fused, tiles  # noqa: E402
from toolkit.losses.similarity_kl import similarity_kl  # noqa: E402

DEVICE = "cuda" if MODE == "cuda" else "cpu"
GROW = 8 if MODE == "cuda" else 1
"""Tiles on a GPU are larger, and a case needs several."""


@dataclass(frozen=True)
class Case:
    """A problem; rows [b, e] and [b, d] against columns [n, e] and [n, d]."""

    b: int = 37
    n: int = 83
    e: int = 256
    d: int = 256
    both: bool = True
    want_rows: bool = True
    want_columns: bool = True
    scale: float = 20.0
    tensor_scale: bool = False
    bands: bool = False
    """As many as there are blocks of rows."""
    shared_columns: bool = False
    same: bool = False
    """The student is the teacher."""
    features: torch.dtype = torch.float32
    products: torch.dtype = torch.float32


CASES = {
    "ragged": Case(),
    "rows only": Case(both=False),
    "several bands": Case(bands=True),
    "several bands, rows only": Case(bands=True, both=False),
    "wider teacher": Case(e=256, d=768),
    "wider student": Case(e=768, d=256),
    "widths of no block": Case(b=20, n=31, e=328, d=264),
    "one row": Case(b=1, n=5),
    "exact blocks": Case(b=32, n=128),
    "no gradient for columns": Case(want_columns=False),
    "no gradient for rows": Case(want_rows=False),
    "value alone": Case(want_rows=False, want_columns=False),
    "scale as a tensor": Case(tensor_scale=True),
    "large logits": Case(scale=100.0),
    "shared columns": Case(shared_columns=True, both=False),
    "identical": Case(same=True, scale=100.0),
    "bf16 features": Case(features=torch.bfloat16),
    "fp16 products": Case(products=torch.float16),
    "fp16 products, large logits": Case(products=torch.float16, scale=100.0),
    "bf16 products": Case(products=torch.bfloat16),
}


def features(case: Case) -> dict[str, Tensor]:
    """Unit rows near one direction, so that the softmaxes are neither flat nor a single one."""
    generator = torch.Generator().manual_seed(0)
    b, n = case.b * GROW, case.n * GROW

    def near(count: int, width: int) -> Tensor:
        noise = torch.randn(count, width, generator=generator, dtype=torch.float64)
        centre = torch.ones(width, dtype=torch.float64)
        return unit(0.7 * noise + centre).to(DEVICE, case.features)

    drawn = {"rows": near(b, case.e), "columns": near(n, case.e)}
    if case.same:
        return drawn | {"target_rows": drawn["rows"], "target_columns": drawn["columns"]}
    columns = drawn["columns"] if case.shared_columns else near(n, case.d)
    return drawn | {"target_rows": near(b, case.d), "target_columns": columns}


def problem_of(case: Case, drawn: dict[str, Tensor], exchange: Exchange = LOCAL) -> Problem:
    """The features as a problem; the teacher's scale differs from the student's unless they are the same."""
    scale = torch.tensor([case.scale], device=DEVICE) if case.tensor_scale else case.scale
    target = Target(drawn["target_rows"], drawn["target_columns"], case.scale * (1.0 if case.same else 0.8))
    return Problem(
        drawn["rows"], drawn["columns"], scale, (target,), case.both, exchange, case.want_rows, case.want_columns
    )


def exact(case: Case, drawn: dict[str, Tensor]) -> Gradients:
    """The tiles in float64."""
    return tiles.solve(problem_of(case, {name: value.double() for name, value in drawn.items()}))


def found(module: ModuleType, case: Case, problem: Problem) -> Gradients:
    """What the kernel says."""
    if not case.bands:
        return module.solve(problem, dtype=case.products)  # type: ignore[no-any-return]
    return module.solve(problem, dtype=case.products, workspace_bytes=1)  # type: ignore[no-any-return]


def errors(a: Gradients, b: Gradients) -> dict[str, float | None]:
    """Largest difference over the largest entry; None where both have none."""

    def one(x: Tensor | None, y: Tensor | None) -> float | None:
        if x is None or y is None:
            return None if x is y else float("inf")
        if not bool(torch.isfinite(x).all()) or x.shape != y.shape:
            return float("inf")
        return float((x.double() - y).abs().max() / y.abs().max().clamp_min(1e-12))

    return {name: one(x, y) for name, x, y in zip(a._fields, a, b, strict=True)}


@dataclass
class TwoRanks:
    """Exchange of one of two ranks that are computed in turn: it knows the other's rows."""

    rank: int
    other: dict[str, Tensor]
    case: Case
    world: int = 2

    def gather(self, x: Tensor) -> Tensor:
        """Columns come gathered."""
        raise AssertionError

    def sum_lse(self, x: Tensor) -> Tensor:
        """With the other rank's log-sum-exps, in float64."""
        target = problem_of(self.case, self.other).targets[0]
        mine = self.case.scale * self.other["rows"].double() @ self.other["columns"].double().T
        theirs = target.logit_scale * target.rows.double() @ target.columns.double().T
        return torch.logaddexp(x.double(), torch.stack([mine.logsumexp(0), theirs.logsumexp(0)])).float()


def two_ranks(module: ModuleType, problem_type: type[Problem], case: Case) -> dict[str, float | None]:
    """Mean over ranks of values and gradients against one rank with all rows; `case.b` is a rank's."""
    drawn = features(replace(case, b=2 * case.b))
    half = len(drawn["rows"]) // 2
    halves = [
        {name: part if "columns" in name else part[r * half : (r + 1) * half] for name, part in drawn.items()}
        for r in (0, 1)
    ]
    results = []
    for rank in (0, 1):
        problem = problem_of(case, halves[rank], TwoRanks(rank, halves[1 - rank], case))
        results.append(found(module, case, problem_type(**vars(problem))))
    a, b = results
    assert a.rows is not None and b.rows is not None and a.columns is not None and b.columns is not None
    mean = Gradients((a.value + b.value) / 2, torch.cat([a.rows, b.rows]) / 2, (a.columns + b.columns) / 2)
    return errors(mean, exact(case, drawn))


def through_the_loss() -> dict[str, float | None]:
    """similarity_kl with a learnable scale: value and every gradient; float64 takes the tiles."""
    drawn = features(Case(d=128))
    results = []
    for dtype in (torch.float32, torch.float64):
        leaves = {name: value.detach().to(dtype) for name, value in drawn.items()}
        rows, columns = leaves["rows"].requires_grad_(), leaves["columns"].requires_grad_()
        scale = torch.tensor([20.0], dtype=dtype, device=DEVICE, requires_grad=True)
        target = Target(leaves["target_rows"], leaves["target_columns"], 15.0)
        value = similarity_kl(rows, columns, target, logit_scale=scale, both=True)
        (3 * value).backward()
        results.append((value.detach(), rows.grad, columns.grad, scale.grad))
    one, two = results
    return errors(Gradients(*one[:3]), Gradients(*two[:3])) | errors_of_scale(one[3], two[3])


def errors_of_scale(one: Tensor | None, two: Tensor | None) -> dict[str, float | None]:
    """The learnable scale's gradient."""
    assert one is not None and two is not None
    return {"scale": float((one.double() - two).abs() / two.abs())}


def chosen_by_itself() -> bool:
    """kernels.solve takes the fused kernel for one target: the same bits; and the tiles for two."""
    one = problem_of(CASES["ragged"], features(CASES["ragged"]))
    two = replace(one, targets=one.targets * 2)
    own, tiled = kernels.solve(one).rows, kernels.solve(two).rows
    fused_rows, tile_rows = fused.solve(one).rows, tiles.solve(two).rows
    assert own is not None and tiled is not None and fused_rows is not None and tile_rows is not None
    assert not torch.equal(own, tiles.solve(one).rows)  # type: ignore[arg-type]
    return torch.equal(own, fused_rows) and torch.equal(tiled, tile_rows)


def mutants() -> dict[str, float]:
    """The largest error of each, on two ranks and several bands."""
    case = Case(bands=True, b=20, n=45, e=128, d=128)
    worst = {}
    for name, (file, old, new) in MUTANTS.items():
        with TemporaryDirectory() as folder:
            modules = mutate(Path(folder), file, old, new)
            seen = two_ranks(modules["fused"], modules["problem"].Problem, case)
            worst[name] = max(value for value in seen.values() if value is not None)
    return worst


def run() -> dict[str, Any]:
    """All cases."""
    seen: dict[str, Any] = {}
    for name, case in CASES.items():
        if MODE == "interpret" and case.products == torch.bfloat16:
            continue  # the interpreter multiplies the bits of bf16 as if they were integers
        drawn = features(case)
        result = found(fused, case, problem_of(case, drawn))
        if case.same:
            assert result.rows is not None and result.columns is not None
            seen[name] = {"value": float(result.value), "rows": float(result.rows.abs().max())}
        else:
            seen[name] = errors(result, exact(case, drawn))
    seen["two ranks"] = two_ranks(fused, Problem, Case(bands=True, b=20))
    seen["two ranks, small"] = two_ranks(fused, Problem, Case(bands=True, b=20, n=45, e=128, d=128))
    seen["through the loss"] = through_the_loss()
    seen["chosen by itself"] = chosen_by_itself()
    if MODE == "interpret":
        seen["mutants"] = mutants()
    return seen


if __name__ == "__main__":
    print(json.dumps(run()))

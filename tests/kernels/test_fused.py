"""The fused kernel against tiles in float64, in Triton's interpreter (here) and on a GPU (-m gpu); mutants must be noticed.

Each check runs in one process of its own: TRITON_INTERPRET is read when Triton is imported, and would reach other tests.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from toolkit import kernels
from toolkit.embeddings import LOCAL
from toolkit.kernels import Problem, Target, fused, fused_works, tiles

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is not installed (torch brings it on Linux)"
)


def python(*words: str, **env: str) -> dict[str, Any]:
    """The last line of a script's output."""
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(HERE / words[0]), *words[1:]],
        env=inherited | {"PYTHONPATH": str(HERE.parents[1])} | env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


ALLOWED = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}
"""Largest error by the factors of products; a mutant must be further off than any."""
NAMED = {"fp16": torch.float16, "bf16": torch.bfloat16}


def judge(seen: dict[str, Any], default: torch.dtype) -> None:
    """Every error within what its products allow; `default` is what a caller gets who names no dtype."""
    assert seen.pop("chosen by itself") is True
    for name, errors in seen.items():
        dtype = NAMED.get(name.split()[0], torch.float32) if "products" in name else torch.float32
        limit = 1e-6 if name == "identical" else ALLOWED[default if name == "through the loss" else dtype]
        bad = {key: error for key, error in errors.items() if error is not None and not error <= limit}
        assert not bad, f"{name}: {bad}, allowed {limit}"


@needs_triton
def test_every_case_and_every_mutant_in_the_interpreter() -> None:
    """Ragged sizes, widths, bands, ranks, scales; and one wrong line at a time is far outside of what is allowed."""
    seen = python("fused_worker.py", "interpret")
    assert {"ragged", "several bands", "two ranks", "large logits", "identical", "through the loss"} < set(seen)
    mutants = seen.pop("mutants")
    judge(seen, torch.float32)
    assert len(mutants) >= 15
    assert not {name: error for name, error in mutants.items() if error < 0.05}


@needs_triton
def test_compiles_for_hopper(tmp_path: Path) -> None:
    """Without a GPU: fits a program's shared memory, and its products are those of the tensor cores."""
    seen = python("fused_compile.py", TRITON_CACHE_DIR=str(tmp_path))
    assert set(seen) == {"norms_tile", "gradient_tile"}
    for kernel in seen.values():
        assert kernel["tensor_cores"] and 0 < kernel["shared"] <= 227 * 1024


@pytest.mark.gpu
@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_every_case_on_the_gpu() -> None:
    """The same cases, larger, compiled: fp32, bf16 and fp16 products."""
    judge(python("fused_worker.py", "cuda"), fused.PRODUCTS)


@needs_triton
def test_who_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """One teacher, not float64, and a GPU unless Triton interprets."""

    def problem(targets: int = 1, dtype: torch.dtype = torch.float32) -> Problem:
        x = torch.ones(2, 4, dtype=dtype)
        return Problem(x, x, 1.0, (Target(x, x, 1.0),) * targets, True, LOCAL, True, True)

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not fused.serves(problem())
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert fused.serves(problem()) and fused.serves(problem(dtype=torch.bfloat16))
    assert not fused.serves(problem(targets=2)) and not fused.serves(problem(targets=0))
    assert not fused.serves(problem(dtype=torch.float64))
    monkeypatch.setattr(fused, "has_triton", lambda: False)
    assert not fused.serves(problem())


@pytest.fixture
def forgetful() -> Iterator[None]:
    """The trial is made once per device; forget its outcome before and after."""
    fused_works.cache_clear()
    yield
    fused_works.cache_clear()


@pytest.mark.parametrize("wrong", ["raises", "differs"])
def test_a_kernel_that_does_not_work_here_is_left(forgetful: None, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    """A warning that says why, and torch computes; nothing is asked of it again."""
    asked = []

    def broken(problem: Problem) -> Any:
        asked.append(problem)
        if wrong == "raises":
            raise RuntimeError("no kernel image is available\nfor execution")
        found = tiles.solve(problem)
        return found._replace(rows=-found.rows)

    monkeypatch.setattr(fused, "serves", lambda problem: True)
    monkeypatch.setattr(fused, "solve", broken)
    rows = torch.nn.functional.normalize(torch.randn(4, 8), dim=-1)
    problem = Problem(
        rows, rows, 5.0, (Target(rows.flip(0), rows, 5.0),), False, LOCAL, want_rows=True, want_columns=True
    )
    reason = "no kernel image is available" if wrong == "raises" else "gradients differ"
    with pytest.warns(UserWarning, match=reason):
        found = kernels.solve(problem)
    again = kernels.solve(problem)
    assert len(asked) == 1
    assert torch.equal(found.rows, tiles.solve(problem).rows) and torch.equal(found.rows, again.rows)

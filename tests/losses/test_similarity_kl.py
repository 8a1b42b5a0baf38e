"""The primitive against full matrices and autograd, however it is cut into bands; nothing of size rows x columns is made."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from toolkit.config import FIELD_PRESETS
from toolkit.embeddings import LOCAL, Embeddings
from toolkit.kernels import Target, tiles
from toolkit.losses import build_losses
from toolkit.losses.observe import watching
from toolkit.losses.similarity_kl import Labels, similarity_kl

B, N, E = 37, 53, 5


def draw(rows: int, width: int = E, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=-1).to(dtype)


def dense(rows: Tensor, columns: Tensor, targets: list[Target] | None, scale: Any, both: bool) -> Tensor:
    """Full matrices, torch's own kl_div, autograd."""
    total = rows.new_zeros(())
    for dim in (1, 0)[: 1 + both]:
        log_q = (scale * rows @ columns.T).log_softmax(dim)
        if targets is None:
            total = total - log_q.diagonal().mean()
            continue
        p = sum((t.logit_scale * t.rows @ t.columns.T).softmax(dim) for t in targets) / len(targets)
        total = total + (torch.xlogy(p, p) - p * log_q).sum() / log_q.shape[1 - dim]
    return total


@pytest.fixture(params=[1, 7, 10**6], ids=["one_row", "ragged_bands", "one_band"])
def height(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(tiles, "MIN_ROWS", request.param)
    monkeypatch.setitem(tiles.TILE_ELEMENTS, "cpu", 1)
    return int(request.param)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("teachers", [0, 1, 3])
def test_value_and_gradients(height: int, teachers: int, both: bool) -> None:
    """By rows, columns and a learnable scale; the teachers have widths of their own."""
    columns_count = B if teachers == 0 else N
    rows, columns = draw(B, seed=1).requires_grad_(), draw(columns_count, seed=2).requires_grad_()
    scale = torch.tensor([9.0], dtype=torch.float64, requires_grad=True)
    targets = [Target(draw(B, E + k, 3 + k), draw(N, E + k, 7 + k), 5.0 + k) for k in range(teachers)]
    found = similarity_kl(rows, columns, targets or Labels(), logit_scale=scale, both=both)
    got = torch.autograd.grad(3 * found, (rows, columns, scale))
    wanted = dense(rows, columns, targets or None, scale, both)
    expected = torch.autograd.grad(3 * wanted.sum(), (rows, columns, scale))
    torch.testing.assert_close(found, wanted.sum(), rtol=1e-12, atol=1e-12)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_rows_that_are_the_columns(height: int) -> None:
    """udist on one rank: both gradients end in one tensor."""
    z = draw(B, seed=1).requires_grad_()
    target = Target(draw(B, seed=2), draw(B, seed=2), 8.0)
    (got,) = torch.autograd.grad(similarity_kl(z, z, target, logit_scale=8.0), z)
    (expected,) = torch.autograd.grad(dense(z, z, [target], 8.0, False), z)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_narrow_features_accumulate_in_fp32() -> None:
    """bf16 in: the value is that of the rounded features to fp32's precision, gradients come back as bf16."""
    rows, columns = draw(B, 64, 1, torch.bfloat16).requires_grad_(), draw(N, 64, 2, torch.bfloat16)
    target = Target(draw(B, 64, 3, torch.bfloat16), draw(N, 64, 4, torch.bfloat16), 50.0)
    value = similarity_kl(rows, columns, target, logit_scale=50.0)
    value.backward()
    wide = Target(target.rows.double(), target.columns.double(), 50.0)
    exact = dense(rows.detach().double(), columns.double(), [wide], 50.0, False)
    assert value.dtype == torch.float32 and rows.grad is not None and rows.grad.dtype == torch.bfloat16
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)


def test_extreme_logits_stay_finite() -> None:
    """Scale 100 on opposite vectors: probabilities of e^-200."""
    rows = torch.cat([draw(3, seed=1), -draw(3, seed=1)]).float().requires_grad_()
    columns = draw(3, seed=1).float()
    value = similarity_kl(rows, columns, Target(-rows.detach(), columns, 100.0), logit_scale=100.0, both=True)
    value.backward()
    assert value.isfinite() and rows.grad is not None and bool(rows.grad.isfinite().all())


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.numel = max(self.numel, leaf.numel())
        return out


def test_nothing_of_size_rows_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """All three losses, forward and backward; the plain form is caught by the same trap."""
    monkeypatch.setattr(tiles, "MIN_ROWS", 4)
    monkeypatch.setitem(tiles.TILE_ELEMENTS, "cpu", 1)
    n = 96
    z = draw(n, seed=1).requires_grad_()
    teacher = Embeddings(draw(n, seed=2), draw(n, seed=3))
    with Largest() as found:
        build_losses(FIELD_PRESETS["dimefm-udist"])(Embeddings(z), teacher, LOCAL).total.backward()
    assert found.numel < n * n / 8
    with Largest() as found:
        dense(z, teacher.text, [Target(teacher.image, teacher.text, 100.0)], 100.0, False)
    assert found.numel == n * n


def test_watching_tells_entropy_and_agreement() -> None:
    """Nothing is noted unless somebody watches; a perfect student agrees everywhere."""
    v, t = draw(B, seed=1), draw(N, seed=2)
    target = Target(v, t, 10.0)
    with watching() as noted:
        similarity_kl(v, t, target, logit_scale=10.0)
        similarity_kl(-v, t, target, logit_scale=10.0)
    p = (10 * v @ t.T).softmax(-1)
    assert noted["target_entropy"].item() == pytest.approx(-(p * p.log()).sum(-1).mean().item(), rel=1e-6)
    assert noted["top1_agreement"].item() == pytest.approx(0.5)
    with watching(False) as nothing:
        similarity_kl(v, t, target, logit_scale=10.0)
    assert nothing == {}

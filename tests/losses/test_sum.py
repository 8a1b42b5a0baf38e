"""Weights are applied in one place; what has no weight is not computed."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from toolkit.config.losses import PVL, VL, Contrastive, Feature, LossOptions
from toolkit.embeddings import LOCAL, Embeddings, unit
from toolkit.losses import LossSum, build_loss, build_losses


def some(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed))


STUDENT, TEACHER = Embeddings(image=some(4, 1)), Embeddings(image=some(4, 2), text=some(4, 3))


class Explodes(nn.Module):
    """A term that must not be reached."""

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: object = LOCAL) -> Tensor:
        raise AssertionError("a term without weight was computed")


def test_weights_multiply_and_values_stay_unweighted() -> None:
    """`train/loss_vl` is comparable between runs of different weights."""
    total, values, *_ = build_losses({"vl": VL(weight=3.0), "pvl": PVL(weight=0.5)})(STUDENT, TEACHER, LOCAL)
    vl, pvl = build_loss("vl")(STUDENT, TEACHER), build_loss("pvl")(STUDENT, TEACHER)
    assert values == {"vl": vl, "pvl": pvl}
    assert total.item() == pytest.approx(3 * vl.item() + 0.5 * pvl.item(), rel=1e-6)


def test_weight_zero_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The term is not built at all, so a term that raises does no harm."""
    monkeypatch.setitem(__import__("toolkit.losses.registry").losses.registry.LOSSES, "feature", Explodes)
    options: dict[str, LossOptions] = {"vl": VL(), "feature": replace(Feature(), weight=0.0)}
    _, values, *_ = build_losses(options)(STUDENT, TEACHER, LOCAL)
    assert list(values) == ["vl"]


def test_one_kind_twice() -> None:
    """Keys are the user's own; the kind says which loss, and options go to it."""
    terms = {"sharp": VL(temperature=0.5), "soft": VL(temperature=4.0)}
    _, values, *_ = build_losses(terms)(STUDENT, TEACHER, LOCAL)
    assert values["sharp"].item() == build_loss("vl", temperature=0.5)(STUDENT, TEACHER).item()
    assert values["soft"].item() == build_loss("vl", temperature=4.0)(STUDENT, TEACHER).item()


def test_fp32_under_autocast() -> None:
    """A bf16 matrix product at scale 100 would be off by up to 0.25 in every logit."""
    losses = build_losses({"vl": VL(weight=1.0)})
    plain, *_ = losses(STUDENT, TEACHER, LOCAL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, *_ = losses(STUDENT, TEACHER, LOCAL)
    assert cast.dtype == torch.float32 and cast.item() == plain.item()


def test_without_a_teacher() -> None:
    """Paired training has none."""
    pairs = Embeddings(image=some(4, 1), text=some(4, 2))
    total, values, *_ = build_losses({"contrastive": Contrastive()})(pairs, None, LOCAL)
    assert total.item() == values["contrastive"].item() > 0


def test_gradient_is_weighted() -> None:
    """The backward pass sees the weights too."""
    z = some(4, 1).requires_grad_()
    LossSum({"vl": build_loss("vl")}, {"vl": 0.25})(Embeddings(image=z), TEACHER, LOCAL)[0].backward()
    weighted, z.grad = z.grad, None
    build_loss("vl")(Embeddings(image=z), TEACHER).backward()
    assert weighted is not None and z.grad is not None
    torch.testing.assert_close(weighted, z.grad / 4)


def test_unit_rows() -> None:
    """fp32 from bf16, float64 kept, and a zero row stays zero instead of becoming NaN."""
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert unit(rows).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]
    assert unit(rows.bfloat16()).dtype == torch.float32 and unit(rows.double()).dtype == torch.float64
    assert Embeddings(image=rows).text is None


def test_shares_of_the_gradient_add_up() -> None:
    """Weighted: a term of nine times the weight has nine times the norm."""
    z = some(4, 1).requires_grad_()
    twice = LossSum({"a": build_loss("pvl"), "b": build_loss("pvl")}, {"a": 0.1, "b": 0.9})
    seen = twice(Embeddings(image=z), TEACHER, LOCAL, observe=True).seen
    assert seen["a_gradient_share"].item() == pytest.approx(0.1) and seen["b_gradient_share"].item() == pytest.approx(
        0.9
    )
    assert 0 <= seen["a_top1_agreement"].item() <= 1 and seen["a_target_entropy"].item() > 0


def test_a_term_that_starts_at_zero_is_built() -> None:
    """Its weight may grow; one without final weight is not."""
    terms = {"vl": VL(), "pvl": PVL(weight=0.0, final_weight=1.0), "feature": replace(Feature(), weight=0.0)}
    assert set(build_losses(terms).terms) == {"vl", "pvl"}


def test_gradients_on_leaves() -> None:
    """With `leaves` the output has the gradients that a backward pass would give, and no graph."""
    losses = build_losses({"vl": VL(weight=0.7), "pvl": PVL(weight=0.3)})
    z = unit(some(4, 1)).requires_grad_()
    losses(Embeddings(image=z), TEACHER, LOCAL).total.backward()
    leaf = z.detach().requires_grad_()
    output = losses(Embeddings(image=leaf), TEACHER, LOCAL, leaves={"image": leaf})
    assert not output.total.requires_grad and leaf.grad is None
    torch.testing.assert_close(output.gradients.features["image"], z.grad)

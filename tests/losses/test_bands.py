"""Losses in bands of rows, and the gradients that `gd` compares against those of autograd."""

import pytest
import torch
import torch.nn.functional as F
from losses.cases import build, features, student_of, teacher_of
from torch import Tensor

from toolkit.embeddings import LOCAL, Embeddings
from toolkit.losses import bands as banding
from toolkit.losses.gradient import sides_of

ROWS = 7


def value_and_gradients(name: str, raw: dict[str, Tensor]) -> list[Tensor]:
    """The loss, and its gradients by features, scale and bias."""
    scale = torch.tensor([5.0], dtype=torch.float64, requires_grad=True)
    student = student_of(raw, True, scale)
    assert student.logit_bias is not None
    student.logit_bias.requires_grad_()
    value = build(name)(student, teacher_of(raw))
    inputs = [raw["z"], raw["y"], scale, student.logit_bias]
    found = torch.autograd.grad(value, inputs, allow_unused=True)
    return [value.detach(), *(x for x in found if x is not None)]


@pytest.mark.parametrize("name", ["siglip_soft", "gd"])
@pytest.mark.parametrize("elements", [1, 2 * ROWS, 3 * ROWS + 1])
def test_bands_do_not_show(name: str, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row at a time, two, three with a rest: the same to rounding as all at once."""
    raw = features(ROWS, ROWS)
    whole = value_and_gradients(name, raw)
    monkeypatch.setattr(banding, "BAND_ELEMENTS", {"cpu": elements})
    assert len(list(banding.bands(raw["z"], raw["t"]))) > 1
    in_bands = value_and_gradients(name, raw)
    assert len(whole) == len(in_bands) == (5 if name == "siglip_soft" else 4)
    for a, b in zip(whole, in_bands, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_bands_cover_every_row_once() -> None:
    """In order."""
    rows = torch.zeros(10, 2)
    assert [list(range(10))[band] for band in banding.bands(rows, torch.zeros(2**20 // 4, 2))] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9],
    ]  # fmt: skip


def test_no_matrix_of_the_whole_batch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What autograd keeps between forward and backward has no tensor of rows x columns."""
    raw = features(ROWS, ROWS)
    monkeypatch.setattr(banding, "BAND_ELEMENTS", {"cpu": ROWS})
    for name in ("siglip_soft", "gd"):
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):  # noqa: B023
            build(name)(student_of(raw, True), teacher_of(raw))
        assert kept and max(kept) < ROWS * ROWS


def test_gradients_are_those_of_the_cross_entropies() -> None:
    """By anchors each of its own, by keys of the sum of all; images and texts in both parts."""
    image, text = (x.detach().requires_grad_() for x in (features()["z"], features()["y"]))
    model = Embeddings(image=image, text=text, logit_scale=torch.tensor([5.0], dtype=torch.float64))
    assert model.image is not None and model.text is not None
    logits = 5 * model.image @ model.text.T
    labels = torch.arange(len(logits))
    to_texts = F.cross_entropy(logits, labels, reduction="sum")
    to_images = F.cross_entropy(logits.T, labels, reduction="sum")
    images, texts = sides_of(model, LOCAL)
    for side, as_anchor, as_key in ((images, to_texts, to_images), (texts, to_images, to_texts)):
        by_anchor, by_key = side.gradients()
        (expected,) = torch.autograd.grad(as_anchor, side.rows, retain_graph=True)
        torch.testing.assert_close(by_anchor, expected)
        (expected,) = torch.autograd.grad(as_key, side.rows, retain_graph=True)
        torch.testing.assert_close(by_key, expected)

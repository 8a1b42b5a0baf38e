"""Regression values of the released code, computed in double precision from three images and three sentences."""

import pytest
import torch
from torch import Tensor

from toolkit.config import FIELD_PRESETS
from toolkit.embeddings import LOCAL, Embeddings
from toolkit.kernels import Target
from toolkit.losses import build_loss, build_losses
from toolkit.losses.similarity_kl import similarity_kl

IMAGES_TO_TEXTS, TEXTS_TO_IMAGES = 0.07012839, 0.10013359
VALUES = {"vl": 0.17026198, "pvl": 0.02497845, "udist": 0.01745287}
SUMS = {"dimefm": 0.12667692, "dimefm-udist": 0.12301869}
GRADIENT = [
    [-0.01654584, 0.11030558, 0.05569819],
    [-0.01848076, -0.23444771, 0.64446262],
    [-0.68318847, 0.08625049, 2.03519033],
]


def student_rows() -> Tensor:
    """z; its rows are not of unit length."""
    return torch.tensor([[1, 0.15, 0], [0.95, 0.2, 0.1], [0.9, 0.05, 0.3]], dtype=torch.float64, requires_grad=True)


def teacher() -> Embeddings:
    """v and t."""
    v = torch.tensor([[1, 0.1, 0], [1, 0.2, 0.05], [0.9, 0, 0.2]], dtype=torch.float64)
    t = torch.tensor([[1, 0.02, 0.01], [0.99, 0.15, 0], [0.97, 0.1, 0.1]], dtype=torch.float64)
    return Embeddings(image=v, text=t)


@pytest.mark.parametrize("name", VALUES)
def test_value_of_each_term(name: str) -> None:
    """Direction of the KL, both directions of vl, the factors 2, the default temperatures, no temperature squared."""
    value = build_loss(name)(Embeddings(image=student_rows()), teacher())
    assert value.item() == pytest.approx(VALUES[name], abs=1e-8)


def test_the_two_halves_of_vl() -> None:
    """Rows are images in one half and sentences in the other."""
    z, t = Embeddings(image=student_rows()).image, teacher()
    assert z is not None and t.image is not None and t.text is not None
    to_texts = similarity_kl(z, t.text, Target(t.image, t.text, 100.0), logit_scale=100.0)
    to_images = similarity_kl(t.text, z, Target(t.text, t.image, 100.0), logit_scale=100.0)
    assert to_texts.item() == pytest.approx(IMAGES_TO_TEXTS, abs=1e-8)
    assert to_images.item() == pytest.approx(TEXTS_TO_IMAGES, abs=1e-8)


@pytest.mark.parametrize("preset", SUMS)
def test_value_of_each_preset(preset: str) -> None:
    """0.7/0.3/0 and 0.68/0.22/0.10."""
    total, *_ = build_losses(FIELD_PRESETS[preset])(Embeddings(image=student_rows()), teacher(), LOCAL)
    assert total.item() == pytest.approx(SUMS[preset], abs=1e-8)


def test_gradient_of_the_main_preset() -> None:
    """With respect to the student's rows before they are normalised."""
    z = student_rows()
    total, *_ = build_losses(FIELD_PRESETS["dimefm"])(Embeddings(image=z), teacher(), LOCAL)
    total.backward()
    torch.testing.assert_close(z.grad, torch.tensor(GRADIENT, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("length", [0.01, 1.0, 300.0])
def test_zero_for_the_teacher_at_any_length(name: str, length: float) -> None:
    """Only directions enter."""
    v = teacher()
    assert v.image is not None
    value = build_loss(name)(Embeddings(image=v.image * length), v)
    assert value.item() == pytest.approx(0.0, abs=1e-10)

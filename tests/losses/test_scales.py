"""Scales of the losses that use each model's own, learn one, or know several teachers."""

import math

import pytest
import torch
from losses.by_hand import mean_cross_entropy, mean_kl, unit_rows
from losses.cases import STUDENT_SCALE, TEACHER_SCALE, build, call, features, student_of, teacher_of

from toolkit.embeddings import Embeddings
from toolkit.errors import ConfigError
from toolkit.losses import build_loss

OWN = ["contrastive", "crd", "open_clip_distil", "ensemble_kl", "cross_kd", "gd", "siglip_soft"]
"""Losses at the student's own scale."""


@pytest.mark.parametrize("name", OWN)
def test_the_students_scale_learns(name: str) -> None:
    """As in CLIP; the teacher's does not."""
    raw = features()
    scale = torch.tensor([STUDENT_SCALE], dtype=torch.float64, requires_grad=True)
    teacher = teacher_of(raw)
    assert teacher.logit_scale is not None
    teacher.logit_scale.requires_grad_()
    build(name)(student_of(raw, True, scale), teacher).backward()
    assert scale.grad is not None and float(scale.grad.abs()) > 1e-4
    assert teacher.logit_scale.grad is None


@pytest.mark.parametrize("name", ["crd", "open_clip_distil", "cross_kd", "ensemble_kl"])
def test_a_student_without_a_scale_takes_the_teachers(name: str) -> None:
    """So that the teacher's own embeddings are a perfect student."""
    raw = features()
    teacher = teacher_of(raw, second=False)
    assert build(name)(Embeddings(raw["v"], raw["t"]), teacher).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", ["vl", "pvl", "udist"])
def test_scale_of_the_teacher(name: str) -> None:
    """`scale=None`, temperature still divides; nothing learns from it."""
    raw = features()
    student, teacher = Embeddings(raw["z"]), teacher_of(raw)
    own = build(name, scale=None, temperature=2.0)(student, teacher)
    assert own.item() == pytest.approx(
        build(name, scale=TEACHER_SCALE, temperature=2.0)(student, teacher).item(), rel=1e-12
    )
    own.backward()


@pytest.mark.parametrize("name", ["crd", "open_clip_distil", "cross_kd", "ensemble_kl", "gd"])
def test_without_scales_both_are_100(name: str) -> None:
    """Where a model has none of its own."""
    raw = features()
    bare = build(name)(Embeddings(raw["z"], raw["y"]), Embeddings(raw["v"], raw["t"]))
    named = build(name)(
        Embeddings(raw["z"], raw["y"], torch.tensor([100.0])), Embeddings(raw["v"], raw["t"], torch.tensor(100.0))
    )
    assert bare.item() == pytest.approx(named.item(), rel=1e-12)


def test_affinity_at_each_models_own_scale() -> None:
    """`scale=None` is crd; a fixed one serves both models."""
    raw = features()
    own = call("affinity", raw, True, scale=None).item()
    assert own == call("crd", raw, True).item() != call("affinity", raw, True).item()
    v, t, z, y = (unit_rows(raw[letter].tolist()) for letter in "vtzy")
    expected = (mean_kl((v, t), (z, y), 20.0) + mean_kl((t, v), (y, z), 20.0)) / 2
    assert call("affinity", raw, True, scale=20.0).item() == pytest.approx(expected, rel=1e-10)


def test_scales_of_an_ensemble() -> None:
    """One for each teacher, in order; another number of them is a mistake; one teacher alone gives crd."""
    raw = features()
    same = call("ensemble_kl", raw, True, scales=(TEACHER_SCALE, 6.0)).item()
    assert same == pytest.approx(call("ensemble_kl", raw, True).item(), rel=1e-12)
    assert call("ensemble_kl", raw, True, scales=(6.0, TEACHER_SCALE)).item() != pytest.approx(same, rel=1e-3)
    with pytest.raises(ConfigError, match="ensemble_kl has 1 scales and the run 2 teachers"):
        call("ensemble_kl", raw, True, scales=(70.0,))
    alone = build("ensemble_kl")(student_of(raw, True), teacher_of(raw, second=False))
    assert alone.item() == call("crd", raw, True).item()


@pytest.mark.parametrize("name", ["crd", "affinity", "ensemble_kl", "siglip_soft"])
def test_widths_without_a_student_text_tower(name: str) -> None:
    """The teacher's sentences stand in for the student's only in one space; with its own they need not."""
    raw = features()
    wide = Embeddings(image=raw["v2"], text=raw["t2"])
    with pytest.raises(ConfigError, match="images have width 3 and the teacher's sentences 4"):
        build(name)(Embeddings(image=raw["z"]), wide)
    assert math.isfinite(build(name)(Embeddings(image=raw["z"], text=raw["y"]), wide).item())


@pytest.mark.parametrize("name", ["icl", "afd"])
def test_learnable_scale(name: str) -> None:
    """Starts where the option says, is exponentiated, and is bounded at 100 without losing its gradient."""
    raw = features()
    loss = build(name, initial_scale=3.0)
    assert loss.scale(raw["z"]).item() == pytest.approx(3.0, rel=1e-6)
    with torch.no_grad():
        loss.scale.log_scale.fill_(9.0)
    assert loss.scale(raw["z"]).item() == pytest.approx(100.0)
    loss(student_of(raw, True), teacher_of(raw)).backward()
    assert float(loss.scale.log_scale.grad.abs()) > 0 and loss.scale.log_scale.item() == 9.0


def test_icl_at_its_scale() -> None:
    """Student anchors, teacher keys, both modalities."""
    raw = features()
    z, y, v, t = (unit_rows(raw[letter].tolist()) for letter in "zyvt")
    expected = (mean_cross_entropy(z, t, 3.0) + mean_cross_entropy(y, v, 3.0)) / 2
    assert call("icl", raw, initial_scale=3.0).item() == pytest.approx(expected, rel=1e-6)


def test_siglip_fallbacks() -> None:
    """The options serve a teacher without scale and bias; a student without takes its teacher's."""
    raw = features()
    loss = build("siglip_soft", scale=STUDENT_SCALE, bias=-1.0)
    bare, named = Embeddings(raw["z"], raw["y"]), teacher_of(raw)
    own = Embeddings(raw["z"], raw["y"], named.logit_scale, named.logit_bias)
    assert loss(bare, named).item() == loss(own, named).item()
    nobody = Embeddings(raw["v"], raw["t"])
    scale, bias = torch.tensor([STUDENT_SCALE], dtype=torch.float64), torch.tensor([-1.0], dtype=torch.float64)
    both = (Embeddings(raw["z"], raw["y"], scale, bias), Embeddings(raw["v"], raw["t"], scale, bias))
    assert loss(bare, nobody).item() == pytest.approx(loss(*both).item(), rel=1e-12)
    bias = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    loss(Embeddings(raw["z"], raw["y"], logit_bias=bias), teacher_of(raw)).backward()
    assert bias.grad is not None and float(bias.grad.abs()) > 1e-4


def test_no_width_no_factor() -> None:
    """build_loss makes a loss from keyword options alone."""
    assert build_loss("ensemble_kl", scales=[70.0, 60.0]).scales == (70.0, 60.0)

"""Every registered loss against a re-derivation in plain loops, and the contract that all of them keep."""

import math

import pytest
import torch
from losses.by_hand import Given, by_hand
from losses.cases import (
    STUDENT,
    TEACHER_SCALE,
    VARIANTS,
    build,
    call,
    features,
    needs_of,
    student_of,
    teacher_of,
)  # fmt: skip
from torch import Tensor

from toolkit.embeddings import Embeddings
from toolkit.losses import LOSSES

NOT_ZERO = {"contrastive", "icl", "afd", "siglip_soft"}
"""Cross-entropies: at identity they have the value that their formula gives, as they say."""


def learning(name: str, text: bool) -> set[str]:
    """Which of the student's features a loss sends a gradient to."""
    if name == "mfd":
        return {"m"}
    return {"z", "y"} if text else {"z"}


@pytest.mark.parametrize(("name", "text"), VARIANTS)
def test_equals_the_plain_loops(name: str, text: bool) -> None:
    """0-d, finite, and the formula."""
    raw = features()
    value = call(name, raw, text)
    expected = by_hand(name, Given.of(raw, text, build(name)))
    assert value.dim() == 0 and math.isfinite(value.item()) and value.dtype == torch.float64
    assert value.item() == pytest.approx(expected, rel=1e-10) and expected > 1e-3


@pytest.mark.parametrize(("name", "text"), VARIANTS)
def test_value_at_identity(name: str, text: bool) -> None:
    """Zero where the student is the teacher; a cross-entropy gives the batch's own."""
    raw = features()
    raw["z"], raw["y"], raw["m"] = raw["v"], raw["t"], raw["v"]
    student, loss = student_of(raw, text, TEACHER_SCALE), build(name)
    stated = 0.0
    if name in NOT_ZERO:
        given = Given.of(raw, text, loss)
        given.own = given.their
        stated = by_hand(name, given)
        assert stated > 0.01
    assert loss(student, teacher_of(raw, second=False)).item() == pytest.approx(stated, abs=1e-12)


@pytest.mark.parametrize(("name", "text"), VARIANTS)
def test_gradient_reaches_the_student_and_never_the_teacher(name: str, text: bool) -> None:
    """Even where the teacher's features carry a gradient of their own."""
    raw = features()
    call(name, raw, text).backward()
    for letter, leaf in raw.items():
        if letter in learning(name, text):
            assert leaf.grad is not None and bool((leaf.grad.abs().sum(dim=1) > 0).all())
        else:
            assert leaf.grad is None


@pytest.mark.parametrize("name", LOSSES)
def test_own_parameters(name: str) -> None:
    """None is 0-d (DeepSpeed cannot start with one), each gets a gradient, and no buffer does."""
    raw, loss = features(), build(name)
    loss(student_of(raw, "student_text" in needs_of(name)), teacher_of(raw)).backward()
    for parameter in loss.parameters():
        assert parameter.dim() > 0 and parameter.grad is not None and float(parameter.grad.abs().max()) > 0
    assert all(buffer.dim() > 0 and not buffer.requires_grad for buffer in loss.buffers())


@pytest.mark.parametrize(("name", "text"), VARIANTS)
def test_gradcheck(name: str, text: bool) -> None:
    """The gradient is that of the value, by finite differences: by features, scale and the loss's own parameters."""
    raw = {letter: value.detach() for letter, value in features().items()}
    learnt = [raw[letter].requires_grad_() for letter in sorted(learning(name, text))]
    scale = torch.tensor([5.0], dtype=torch.float64)
    loss = build(name).eval()
    probe = loss(student_of(raw, text, scale.requires_grad_()), teacher_of(raw))
    uses_scale = torch.autograd.grad(probe, scale, allow_unused=True)[0] is not None

    def value(*_: Tensor) -> Tensor:
        return loss(student_of(raw, text, scale), teacher_of(raw))

    inputs = (*learnt, *([scale] if uses_scale else []), *loss.parameters())
    assert torch.autograd.gradcheck(value, inputs)


@pytest.mark.parametrize(("name", "text"), VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_inputs_give_fp32(name: str, text: bool, dtype: torch.dtype) -> None:
    """bf16 features are widened before they are normalised: their rounding is all that is lost."""
    narrow = features(dtype=dtype)
    value = call(name, narrow, text)
    exact = call(name, {key: feature.detach().double() for key, feature in narrow.items()}, text)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=1e-4)
    value.backward()
    assert all(narrow[letter].grad is not None for letter in learning(name, text))


@pytest.mark.parametrize("name", LOSSES)
def test_float64_features_with_fp32_parameters(name: str) -> None:
    """Parameters and buffers are cast to the features, which decide how exact the loss is."""
    raw = features()
    loss = build(name, torch.float32)
    value = loss(student_of(raw, "student_text" in needs_of(name)), teacher_of(raw))
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(call(name, raw).item(), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_missing_embeddings_are_named(name: str) -> None:
    """A caller that leaves the images out is told so, not `NoneType has no attribute`."""
    raw = features()
    with pytest.raises(TypeError, match=r"were not given: pass Embeddings\(image"):
        build(name)(Embeddings(text=raw["y"]), Embeddings(image=raw["v"], text=raw["t"]))


@pytest.mark.parametrize("name", LOSSES)
def test_what_a_loss_needs_suffices(name: str) -> None:
    """Nothing but what `needs` says: no second teacher, no scales, no masked view unless asked for."""
    raw, needs = features(), needs_of(name)
    student = Embeddings(
        image=raw["z"],
        text=raw["y"] if "student_text" in needs else None,
        masked_image=raw["m"] if "masked_view" in needs else None,
    )
    teacher = Embeddings(image=raw["v"], text=raw["t"] if "text" in needs else None) if "teacher" in needs else None
    value = build(name)(student, teacher)
    value.backward()
    assert math.isfinite(value.item()) and any(raw[letter].grad is not None for letter in STUDENT)

"""Every registered loss against a re-derivation in plain loops, and the contract that all of them keep."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.config.losses import OPTIONS
from toolkit.config.validate import NEEDS
from toolkit.embeddings import Embeddings
from toolkit.errors import ConfigError
from toolkit.losses import LOSSES, build_loss

Rows = list[list[float]]
B, E = 4, 3


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit_rows(rows: Rows) -> Rows:
    return [[x / math.sqrt(dot(row, row)) for x in row] for row in rows]


def log_probabilities(query: list[float], keys: Rows, factor: float) -> list[float]:
    scores = [factor * dot(query, key) for key in keys]
    top = max(scores)
    norm = top + math.log(sum(math.exp(score - top) for score in scores))
    return [score - norm for score in scores]


def mean_kl(teacher: tuple[Rows, Rows], student: tuple[Rows, Rows], factor: float) -> float:
    """Mean over rows of sum p_T (log p_T - log p_S)."""
    total = 0.0
    for row in range(len(teacher[0])):
        target = log_probabilities(teacher[0][row], teacher[1], factor)
        found = log_probabilities(student[0][row], student[1], factor)
        total += sum(math.exp(p) * (p - q) for p, q in zip(target, found, strict=True))
    return total / len(teacher[0])


def mean_cross_entropy(queries: Rows, keys: Rows, factor: float) -> float:
    return -sum(log_probabilities(query, keys, factor)[i] for i, query in enumerate(queries)) / len(queries)


def by_hand(name: str, z: Rows, y: Rows | None, v: Rows, t: Rows) -> float:
    """The value of a loss at its default options, from the formulas in the docstrings."""
    match name:
        case "vl":
            own = t if y is None else y
            return mean_kl((v, t), (z, own), 100.0) + mean_kl((t, v), (own, z), 100.0)
        case "pvl":
            return 2 * mean_kl((v, v), (z, v), 100.0 / 3)
        case "udist":
            return 2 * mean_kl((v, v), (z, z), 100.0 / 7)
        case "feature":
            return sum(1 - dot(a, b) for a, b in zip(z, v, strict=True)) / len(z)
        case "contrastive":
            assert y is not None
            return (mean_cross_entropy(z, y, 5.0) + mean_cross_entropy(y, z, 5.0)) / 2
    raise AssertionError(f"write the formula of {name} here")


def near(base: Tensor, amount: float, seed: int) -> Tensor:
    """Rows a little off, so that probabilities at scale 100 are not all 0 or 1."""
    noise = torch.randn(base.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return base + amount * noise


def case(rows: int = B, texts: int = B, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Raw features z, y (student) and v, t (teacher), leaves with gradient, close to one direction."""
    centre = torch.tensor([[1.0, 0.3, -0.2]], dtype=torch.float64)
    raw = {
        "z": near(centre.expand(rows, E), 0.15, 1),
        "y": near(centre.expand(texts, E), 0.15, 2),
        "v": near(centre.expand(rows, E), 0.15, 3),
        "t": near(centre.expand(texts, E), 0.15, 4),
    }
    return {name: value.to(dtype).requires_grad_() for name, value in raw.items()}


def call(name: str, raw: dict[str, Tensor], **options: Any) -> Tensor:
    """The loss on raw features; the student's sentences are given only to losses that train them."""
    has_text = "student_text" in needs_of(name)
    scale = torch.tensor([5.0], dtype=raw["z"].dtype) if name == "contrastive" else None
    student = Embeddings(image=raw["z"], text=raw["y"] if has_text else None, logit_scale=scale)
    return build_loss(name, **options)(student, Embeddings(image=raw["v"], text=raw["t"]))


def needs_of(name: str) -> frozenset[str]:
    return frozenset(LOSSES[name].needs)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_plain_loops(name: str) -> None:
    """0-d, finite, and the formula."""
    raw = case()
    value = call(name, raw)
    z, y, v, t = (unit_rows(raw[letter].tolist()) for letter in "zyvt")
    expected = by_hand(name, z, y if "student_text" in needs_of(name) else None, v, t)
    assert value.dim() == 0 and math.isfinite(value.item()) and value.dtype == torch.float64
    assert value.item() == pytest.approx(expected, rel=1e-10) and expected > 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_value_at_identity(name: str) -> None:
    """Zero where the student is the teacher; contrastive gives the batch's own cross-entropy."""
    raw = case()
    raw["z"], raw["y"] = raw["v"], raw["t"]
    z, y = unit_rows(raw["v"].tolist()), unit_rows(raw["t"].tolist())
    stated = by_hand("contrastive", z, y, z, y) if name == "contrastive" else 0.0
    assert call(name, raw).item() == pytest.approx(stated, abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_reaches_the_student_and_never_the_teacher(name: str) -> None:
    """Even where the teacher's features carry a gradient of their own."""
    raw = case()
    call(name, raw).backward()
    assert raw["z"].grad is not None and bool((raw["z"].grad.abs().sum(dim=1) > 0).all())
    assert raw["v"].grad is None and raw["t"].grad is None
    assert (raw["y"].grad is not None) == ("student_text" in needs_of(name))


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name: str) -> None:
    """The gradient is that of the value, by finite differences."""
    raw = case()
    fixed = {key: value.detach() for key, value in raw.items()}
    has_text = "student_text" in needs_of(name)

    def value(z: Tensor, y: Tensor) -> Tensor:
        return call(name, {**fixed, "z": z, "y": y if has_text else fixed["y"]})

    assert torch.autograd.gradcheck(value, (raw["z"], raw["y"] if has_text else fixed["y"]))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_inputs_give_fp32(name: str, dtype: torch.dtype) -> None:
    """bf16 features are widened before they are normalised: their rounding is all that is lost."""
    narrow = case(dtype=dtype)
    value = call(name, narrow)
    exact = call(name, {key: feature.detach().double() for key, feature in narrow.items()})
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=1e-4)


@pytest.mark.parametrize(("images", "texts"), [(4, 7), (7, 2)])
def test_vl_takes_unequal_numbers(images: int, texts: int) -> None:
    """Each half is averaged over its own rows."""
    raw = case(images, texts)
    z, v, t = (unit_rows(raw[letter].tolist()) for letter in "zvt")
    assert call("vl", raw).item() == pytest.approx(by_hand("vl", z, None, v, t), rel=1e-10)


def test_vl_with_a_student_text_tower() -> None:
    """Then the student's sentences stand on its side, and learn."""
    raw = case()
    student = Embeddings(image=raw["z"], text=raw["y"])
    value = build_loss("vl")(student, Embeddings(image=raw["v"], text=raw["t"]))
    value.backward()
    z, y, v, t = (unit_rows(raw[letter].tolist()) for letter in "zyvt")
    assert value.item() == pytest.approx(by_hand("vl", z, y, v, t), rel=1e-10)
    assert raw["y"].grad is not None and raw["t"].grad is None


def test_udist_ignores_a_rotation() -> None:
    """Geometry only: a rotated teacher is a perfect student. pvl is not so forgiving."""
    raw = case()
    turn, _ = torch.linalg.qr(near(torch.eye(E, dtype=torch.float64), 0.5, 9))
    raw["z"] = raw["v"] @ turn
    assert call("udist", raw).item() == pytest.approx(0.0, abs=1e-12)
    assert call("pvl", raw).item() > 1e-3


@pytest.mark.parametrize("name", ["vl", "pvl", "udist"])
def test_scale_multiplies_and_temperature_divides(name: str) -> None:
    """Only their quotient counts: no factor of the temperature squared."""
    raw = case()
    same = call(name, raw, scale=60.0, temperature=3.0).item()
    assert call(name, raw, scale=20.0, temperature=1.0).item() == pytest.approx(same, rel=1e-12)
    assert call(name, raw, scale=20.0, temperature=3.0).item() < same


def test_contrastive_without_a_scale_uses_100() -> None:
    """And a learnable scale gets a gradient."""
    raw = case()
    z, y = unit_rows(raw["z"].tolist()), unit_rows(raw["y"].tolist())
    value = build_loss("contrastive")(Embeddings(image=raw["z"], text=raw["y"]))
    expected = (mean_cross_entropy(z, y, 100.0) + mean_cross_entropy(y, z, 100.0)) / 2
    assert value.item() == pytest.approx(expected, rel=1e-10)
    scale = torch.tensor([5.0], dtype=torch.float64, requires_grad=True)
    build_loss("contrastive")(Embeddings(image=raw["z"], text=raw["y"], logit_scale=scale)).backward()
    assert scale.grad is not None and float(scale.grad.abs()) > 0


def test_feature_of_both_sides() -> None:
    """The mean of the two, at most 2."""
    raw = case()
    student, teacher = Embeddings(image=raw["z"], text=raw["y"]), Embeddings(image=raw["v"], text=raw["t"])
    z, y, v, t = (unit_rows(raw[letter].tolist()) for letter in "zyvt")
    both = (by_hand("feature", z, None, v, t) + by_hand("feature", y, None, t, v)) / 2
    assert build_loss("feature", mode="both")(student, teacher).item() == pytest.approx(both, rel=1e-10)
    opposite = Embeddings(image=-raw["v"].detach())
    assert build_loss("feature")(opposite, teacher).item() == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["vl", "pvl", "udist", "feature", "contrastive"])
def test_missing_embeddings_are_named(name: str) -> None:
    """A caller that leaves the images out is told so, not `NoneType has no attribute`."""
    raw = case()
    with pytest.raises(TypeError, match=r"were not given: pass Embeddings\(image"):
        build_loss(name)(Embeddings(text=raw["y"]), Embeddings(image=raw["v"], text=raw["t"]))


def test_config_and_classes_agree() -> None:
    """Every loss has options of its own kind, and says it needs what the config checks."""
    assert set(OPTIONS) == set(LOSSES)
    assert {name: set(needs) for name, needs in NEEDS.items()} == {name: set(needs_of(name)) for name in LOSSES}
    for name, schema in OPTIONS.items():
        assert schema().kind == name


def test_defaults_of_config_and_class_agree() -> None:
    """The temperature of build_loss("pvl") is the one of a run that says nothing."""
    for name in ("vl", "pvl", "udist"):
        chosen = OPTIONS[name]()
        assert build_loss(name).logit_scale == chosen.scale / chosen.temperature  # type: ignore[attr-defined]


def test_unknown_names_and_options() -> None:
    """With the nearest known one."""
    with pytest.raises(ConfigError, match=r"no loss named 'udits'; did you mean udist\?"):
        build_loss("udits")
    with pytest.raises(ConfigError, match="loss 'vl' does not take"):
        build_loss("vl", temprature=2.0)

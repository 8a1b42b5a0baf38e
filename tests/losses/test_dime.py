"""What is particular to DIME-FM's losses and to the two baselines."""

import pytest
import torch
from losses.by_hand import Given, by_hand, mean_cross_entropy, mean_square, unit_rows
from losses.cases import E, build, call, features, near

from toolkit.embeddings import Embeddings
from toolkit.losses import build_loss


@pytest.mark.parametrize(("images", "texts"), [(4, 7), (7, 2)])
@pytest.mark.parametrize("name", ["vl", "crd", "affinity", "ensemble_kl", "siglip_soft"])
@pytest.mark.parametrize("text", [False, True])
def test_unequal_numbers(name: str, images: int, texts: int, text: bool) -> None:
    """Each half is averaged over its own rows."""
    raw = features(images, texts)
    assert call(name, raw, text).item() == pytest.approx(by_hand(name, Given.of(raw, text, build(name))), rel=1e-10)


def test_udist_ignores_a_rotation() -> None:
    """Geometry only: a rotated teacher is a perfect student. pvl is not so forgiving."""
    raw = features()
    turn, _ = torch.linalg.qr(near(torch.eye(E, dtype=torch.float64), 0.5, 9))
    raw["z"] = raw["v"] @ turn
    assert call("udist", raw).item() == pytest.approx(0.0, abs=1e-12)
    assert call("pvl", raw).item() > 1e-3


@pytest.mark.parametrize("name", ["vl", "pvl", "udist"])
def test_scale_multiplies_and_temperature_divides(name: str) -> None:
    """Only their quotient counts: no factor of the temperature squared."""
    raw = features()
    same = call(name, raw, scale=60.0, temperature=3.0).item()
    assert call(name, raw, scale=20.0, temperature=1.0).item() == pytest.approx(same, rel=1e-12)
    assert call(name, raw, scale=20.0, temperature=3.0).item() < same


def test_contrastive_without_a_scale_uses_100() -> None:
    """And a learnable scale gets a gradient."""
    raw = features()
    z, y = unit_rows(raw["z"].tolist()), unit_rows(raw["y"].tolist())
    value = build_loss("contrastive")(Embeddings(image=raw["z"], text=raw["y"]))
    expected = (mean_cross_entropy(z, y, 100.0) + mean_cross_entropy(y, z, 100.0)) / 2
    assert value.item() == pytest.approx(expected, rel=1e-10)
    scale = torch.tensor([5.0], dtype=torch.float64, requires_grad=True)
    build_loss("contrastive")(Embeddings(image=raw["z"], text=raw["y"], logit_scale=scale)).backward()
    assert scale.grad is not None and float(scale.grad.abs()) > 0


def test_features_of_both_sides() -> None:
    """`feature` gives the mean of the two, at most 2; `fd` their sum, which is 2/e of 1 - cos for each."""
    raw = features()
    student, teacher = Embeddings(image=raw["z"], text=raw["y"]), Embeddings(image=raw["v"], text=raw["t"])
    z, y, v, t = (unit_rows(raw[letter].tolist()) for letter in "zyvt")
    image, text = (
        build_loss("feature")(student, teacher),
        build_loss("feature")(Embeddings(raw["y"]), Embeddings(raw["t"])),
    )
    assert build_loss("feature", mode="both")(student, teacher).item() == pytest.approx((image + text).item() / 2)
    both = build_loss("fd", mode="both")(student, teacher).item()
    assert both == pytest.approx(mean_square(z, v) + mean_square(y, t), rel=1e-10)
    assert both == pytest.approx(2 / E * (image + text).item(), rel=1e-10)
    opposite = Embeddings(image=-raw["v"].detach())
    assert build_loss("feature")(opposite, teacher).item() == pytest.approx(2.0)
    for name in ("feature", "fd"):
        with pytest.raises(TypeError, match="were not given"):
            build_loss(name, mode="both")(Embeddings(image=raw["z"]), teacher)

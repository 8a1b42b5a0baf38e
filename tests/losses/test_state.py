"""Losses with a memory or a head of their own: queue, running statistics, class head."""

from collections.abc import Callable

import pytest
import torch
from losses.by_hand import cos_smooth_l1, mean_kl, moments, standardised, unit_rows
from losses.cases import CLASSES, E, build, features, near
from torch import Tensor, nn

from toolkit.embeddings import Embeddings
from toolkit.losses import build_loss
from toolkit.losses.moments import Moments

SIZE = 10


def batch(seed: int, rows: int = 4) -> tuple[Embeddings, Embeddings]:
    """Student and teacher."""
    base = torch.tensor([[1.0, 0.3, -0.2]], dtype=torch.float64).expand(rows, E)
    return Embeddings(image=near(base, 0.2, seed).requires_grad_()), Embeddings(image=near(base, 0.2, seed + 100))


def rows_of(one: Embeddings) -> Tensor:
    assert one.image is not None
    return one.image.detach()


def state(loss: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in loss.state_dict().items()}


def test_the_queue_wraps_around() -> None:
    """It holds the last rows of all batches, and compares with the filled part alone."""
    loss = build("queue_pvl", size=SIZE)
    everything = torch.empty(0, E, dtype=torch.float64)
    for step in range(6):
        student, teacher = batch(step)
        everything = torch.cat([everything, rows_of(teacher)])
        value = loss(student, teacher)
        held = everything[-SIZE:].tolist()
        z, v = rows_of(student).tolist(), rows_of(teacher).tolist()
        assert value.item() == pytest.approx(mean_kl((v, held), (z, held), 1 / 0.07), rel=1e-10)
        filled = loss.queue[: len(held)]
        assert sorted(filled.tolist()) == sorted(held) and loss.seen.tolist() == [len(everything)]


def test_a_batch_larger_than_the_queue() -> None:
    """Its last rows stay, at the places they would have had."""
    loss = build("queue_pvl", size=3)
    student, teacher = batch(0, rows=8)
    loss(student, teacher)
    last = rows_of(teacher)[5:]
    torch.testing.assert_close(loss.queue, last[[1, 2, 0]])  # rows 5, 6, 7 go to places 2, 0, 1
    assert loss.seen.tolist() == [8]


@pytest.mark.parametrize("name", ["queue_pvl", "cos_smooth_l1", "phi_s"])
def test_eval_mode_leaves_buffers_alone(name: str) -> None:
    """And uses what is there; where nothing is, the batch stands in, which gives the first training value."""
    loss = build(name)
    first = loss.eval()(*batch(1)).item()
    assert all(not value.any() for value in state(loss).values())
    assert loss.train()(*batch(1)).item() == pytest.approx(first, rel=1e-12)
    before = state(loss)
    other = loss.eval()(*batch(2)).item()
    assert all(torch.equal(value, before[key]) for key, value in state(loss).items())
    assert loss(*batch(2)).item() == other != pytest.approx(loss.train()(*batch(2)).item(), rel=1e-4)


@pytest.mark.parametrize("name", ["queue_pvl", "cos_smooth_l1", "phi_s"])
def test_the_memory_is_saved_with_the_run(name: str) -> None:
    """A resumed loss goes on where the other stood."""
    loss, again = build(name), build(name)
    for step in range(3):
        loss(*batch(step))
    again.load_state_dict(loss.state_dict())
    assert again(*batch(7)).item() == loss(*batch(7)).item()
    assert all(value.dtype == torch.int64 for key, value in state(loss).items() if "seen" in key or "count" in key)


def test_moments_are_those_of_all_rows() -> None:
    """Batches of different sizes, merged exactly."""
    found = Moments(E).double()
    everything = torch.cat([rows_of(batch(step, rows)[1]) for step, rows in enumerate((4, 1, 9))])
    for part in everything.split((4, 1, 9)):
        mean, variance = found(part)
    torch.testing.assert_close(mean, everything.mean(0))
    torch.testing.assert_close(variance, everything.var(0, unbiased=False))
    assert torch.equal(mean, found.mean) and torch.equal(variance, found.variance) and found.count.tolist() == [14]


def test_moments_with_momentum() -> None:
    """The exponential average of both moments from where the share of a batch would fall below it."""
    found = Moments(E, momentum=0.4).double()
    parts = [rows_of(batch(step)[1]) for step in range(4)]
    for part in parts:
        mean, variance = found(part)
    first, second = parts[0].mean(0), parts[0].square().mean(0)
    for part, share in zip(parts[1:], (0.5, 0.4, 0.4), strict=True):
        first = first + share * (part.mean(0) - first)
        second = second + share * (part.square().mean(0) - second)
    torch.testing.assert_close(mean, first)
    torch.testing.assert_close(variance, second - first.square())


def test_moments_in_fp32_buffers() -> None:
    """As in a run: many batches do not wash the statistics out."""
    found = Moments(2)
    rows = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)) + torch.tensor([30.0, 0.0])
    for part in rows.split(4):
        mean, variance = found(part)
    torch.testing.assert_close(mean, rows.double().mean(0).float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(variance, rows.double().var(0, unbiased=False).float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"standardise": "none"}, lambda z, v, _: cos_smooth_l1(z, v)),
        ({"standardise": "none", "beta": 0.0}, lambda z, v, _: cos_smooth_l1(z, v, beta=0.0)),
        ({"standardise": "none", "beta": 0.05}, lambda z, v, _: cos_smooth_l1(z, v, beta=0.05)),
        ({"standardise": "none", "cosine_weight": 1.0, "l1_weight": 0.0}, lambda z, v, _: cos_smooth_l1(z, v, (1, 0))),
        ({"standardise": "running"}, lambda z, v, all_rows: on_standardised(z, v, all_rows)),
        ({"standardise": "ema", "momentum": 0.1}, lambda z, v, all_rows: on_standardised(z, v, all_rows)),
        ({"standardise": "ema", "momentum": 1.0}, lambda z, v, _: on_standardised(z, v, v)),
    ],
)
def test_cos_smooth_l1(options: dict[str, object], expected: Callable[..., float]) -> None:
    """Second step of each form; after two batches an average of momentum 0.1 still counts them alike."""
    loss = build("cos_smooth_l1", **options)
    loss(*batch(0))
    student, teacher = batch(1)
    both = [*rows_of(batch(0)[1]).tolist(), *rows_of(teacher).tolist()]
    value = expected(rows_of(student).tolist(), rows_of(teacher).tolist(), both)
    assert loss(student, teacher).item() == pytest.approx(value, rel=1e-9)


def on_standardised(z: list[list[float]], v: list[list[float]], seen: list[list[float]]) -> float:
    statistics = moments(seen)
    return cos_smooth_l1(standardised(z, *statistics), standardised(v, *statistics))


def test_phi_s_is_the_explicit_transform() -> None:
    """Whitening in the eigenbasis, then the Hadamard rotation, then the MSE: the rotations cancel."""
    width = 8
    base = torch.randn(1, width, generator=torch.Generator().manual_seed(5)).double()
    v, z = near(base.expand(40, width), 0.4, 1), near(base.expand(40, width), 0.4, 2)
    student, teacher = Embeddings(image=z), Embeddings(image=v)
    targets, found = rows_of(teacher), rows_of(student)
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(3):
        hadamard = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), hadamard)
    centred = targets - targets.mean(0)
    eigenvalues, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    transform = hadamard / width**0.5 @ vectors.T / eigenvalues.mean().sqrt()
    spread = (centred @ transform.T).var(0, unbiased=False)
    torch.testing.assert_close(spread, torch.ones_like(spread))  # what PHI-S is for: every dimension counts alike
    explicit = ((found - targets.mean(0)) @ transform.T - centred @ transform.T).square().mean()
    loss = build_loss("phi_s", embed_dim=width).double()
    assert loss(student, teacher).item() == pytest.approx(explicit.item(), rel=1e-10)
    constant = Embeddings(image=targets.mean(0, keepdim=True).expand(40, -1))
    assert loss.eval()(constant, teacher).item() == pytest.approx(1.0, rel=0.05)


def test_the_head_starts_at_the_classes() -> None:
    """Unit rows of them; the temperature's square multiplies, and the head is what learns."""
    raw = features()
    loss = build("dual_head", temperature=3.0, scale=30.0)
    classes = unit_rows(CLASSES.tolist())
    torch.testing.assert_close(loss.head.detach(), torch.tensor(classes, dtype=torch.float64))
    z, v = unit_rows(raw["z"].tolist()), unit_rows(raw["v"].tolist())
    value = loss(Embeddings(image=raw["z"]), Embeddings(image=raw["v"]))
    assert value.item() == pytest.approx(9 * mean_kl((v, classes), (z, classes), 10.0), rel=1e-10)
    assert [name for name, _ in loss.named_parameters()] == ["head"] and list(loss.state_dict()) == ["head"]
    with torch.no_grad():
        loss.head.mul_(1.5)
    other = loss(Embeddings(image=raw["z"]), Embeddings(image=raw["v"]))
    assert other.item() == pytest.approx(9 * mean_kl((v, classes), (z, classes), 10.0, 15.0), rel=1e-10)

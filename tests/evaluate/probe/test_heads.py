"""Heads trained side by side give what each gives alone in a plain torch loop on the same batches."""

import pytest
import torch
from plain_probe import plain_epochs
from probe_cases import made_up
from torch import Tensor

from toolkit.errors import DataError
from toolkit.evaluate.metrics import METRICS
from toolkit.evaluate.probe import trials
from toolkit.evaluate.probe.features import Start
from toolkit.evaluate.probe.grid import Point
from toolkit.evaluate.probe.heads import build_heads
from toolkit.evaluate.probe.trials import Settings, epoch_batches, run_trials, train_heads

POINTS = [Point(0.1, 1e-6), Point(0.01, 0.1), Point(1e-3, 30.0), Point(0.1, 1.0), Point(1e-6, 1e6)]
SETTINGS = Settings(METRICS["top1"], batch_size=16)


def start_of(classes: int, width: int, projected: bool, dtype: torch.dtype) -> Start:
    """A start that is not zero anywhere."""
    generator = torch.Generator().manual_seed(5)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return Start(drawn(classes, width), drawn(classes), drawn(9, width) if projected else None)


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 2e-4)])
def test_is_the_plain_loop(projected: bool, multi_label: bool, dtype: torch.dtype, close: float) -> None:
    """Five settings at once, three epochs of unequal batches (the last one of 17 rows)."""
    train, judged = made_up(65, 30, classes=4, width=9, multi_label=multi_label, dtype=dtype)
    start = start_of(4, 6 if projected else 9, projected, dtype)
    alone = [list(plain_epochs(start, point, train, judged.features, 3, 16)) for point in POINTS]
    for epoch, heads in enumerate(train_heads(start, POINTS, train, SETTINGS, 3)):
        for logits, expected in zip(heads.logits(judged.features), alone, strict=True):
            assert float((logits - expected[epoch]).abs().max()) < close * (1 + float(expected[epoch].abs().max()))
    assert epoch == 2
    spread = torch.stack([runs[-1] for runs in alone])
    assert float((spread[0] - spread[1]).abs().max()) > 0.1  # the settings do matter


@pytest.mark.parametrize("projected", [False, True])
def test_dropping_heads_leaves_the_others_alone(projected: bool) -> None:
    """After the first epoch the second and fourth are gone."""
    train, judged = made_up(64, 20, classes=3, width=9)
    start = start_of(3, 5 if projected else 9, projected, torch.float64)
    kept = [0, 2, 4]
    alone = [list(plain_epochs(start, POINTS[which], train, judged.features, 3, 16))[-1] for which in kept]
    running = train_heads(start, POINTS, train, SETTINGS, 3)
    next(running).keep(torch.tensor([True, False, True, False, True]))
    *_, heads = running
    for logits, expected in zip(heads.logits(judged.features), alone, strict=True):
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("projected", [False, True])
def test_what_diverges_scores_nothing(projected: bool) -> None:
    """Rate times decay of 1e5 blows up; the settings beside it are not touched."""
    train, judged = made_up(400, 60, classes=3, width=9, dtype=torch.float32)
    start = start_of(3, 5 if projected else 9, projected, torch.float32)
    points = [Point(0.1, 1e6), Point(0.01, 1e-3), Point(0.1, 1e5)]
    settings = Settings(METRICS["top1"], batch_size=8, trial_epochs=3)
    curves = run_trials(start, points, train, judged, settings, False)
    assert curves[0] == curves[2] == [0.0] * 3
    assert curves[1] == run_trials(start, points[1:2], train, judged, settings, False)[0] and curves[1][-1] > 50
    assert not bool(build_finite(start, points).any())


def build_finite(start: Start, points: list[Point]) -> Tensor:
    """Heads whose start is not finite."""
    spoilt = Start(start.weight.clone().fill_(float("nan")), start.bias, start.projection)
    return build_heads(spoilt, points).finite()


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """One head at a time or all at once: the same curves, and every trial is reported."""
    train, judged = made_up(70, 40, classes=3, width=9)
    start = start_of(3, 9, False, torch.float64)
    told: list[int] = []
    together = run_trials(start, POINTS, train, judged, SETTINGS, False, told.append)
    monkeypatch.setattr(trials, "BLOCK_BYTES", 1)
    apart = run_trials(start, POINTS, train, judged, SETTINGS, False, told.append)
    assert together == apart and told == [5, 1, 1, 1, 1, 1]
    assert all(len(curve) == 10 for curve in together)


def test_batches() -> None:
    """Every row once, shuffled anew each epoch, no batch of one row."""
    first, second = (epoch_batches(65, 16, 0, epoch) for epoch in (0, 1))
    assert [len(batch) for batch in first] == [16, 16, 16, 17]
    assert sorted(torch.cat(first).tolist()) == list(range(65)) == sorted(torch.cat(second).tolist())
    assert torch.cat(first).tolist() != torch.cat(second).tolist()
    assert [len(batch) for batch in epoch_batches(5, 64, 0, 0)] == [5]
    assert torch.equal(torch.cat(epoch_batches(65, 16, 3, 1)), torch.cat(epoch_batches(65, 16, 3, 1)))
    with pytest.raises(DataError, match="1 training pictures"):
        epoch_batches(1, 16, 0, 0)

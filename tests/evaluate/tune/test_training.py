"""One training of tower and head: what it computes, where it begins, and that nothing outside it matters."""

import copy

import pytest
import torch
from plain_tune import plain_epochs
from torch import nn
from tune_cases import PREPROCESS, Tower, Watched, pictures, seen, text_head

from toolkit.evaluate.metrics import METRICS
from toolkit.evaluate.probe import Labelled, linear_probe
from toolkit.evaluate.probe.grid import Point
from toolkit.evaluate.probe.trials import Settings, epoch_batches
from toolkit.evaluate.tune import LabelledViews, TuneSettings, fine_tune, training
from toolkit.evaluate.tune.network import Beginning, begin
from toolkit.evaluate.tune.progress import Meter
from toolkit.evaluate.tune.training import judged_course, logits_of, tuned_epochs

SETTINGS = TuneSettings(METRICS["top1"], batch_size=16)
METER = Meter(lambda progress: None)


def beginning_of(tower: nn.Module, dtype: torch.dtype = torch.float64) -> Beginning:
    """With the text head of the cases."""
    two = pictures(2, 2).train.views.views
    return begin(lambda: tower, two, 3, text_head(dtype=dtype), 0, PREPROCESS)


@pytest.mark.parametrize("two_lr", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 2e-4)])
def test_is_the_plain_loop(two_lr: bool, multi_label: bool, dtype: torch.dtype, close: float) -> None:
    """Three epochs of unequal batches (the last one of 17 pictures): logits and losses."""
    images = pictures(65, 20, multi_label=multi_label)
    tower, point = Tower(dtype=dtype), Point(0.05, 0.01)
    settings = TuneSettings(METRICS["top1"], batch_size=16, two_lr=two_lr)
    views, judged = images.train.views.views, images.test.views.views
    factor = 0.1 if two_lr else 1.0
    plain = list(
        plain_epochs(
            tower, text_head(dtype=dtype), point, views, images.train.labels, judged, 3, 16, tower_factor=factor
        )
    )
    epochs = tuned_epochs(beginning_of(tower, dtype), point, images.train, settings, 3, METER)
    for (network, loss), (expected, expected_loss) in zip(epochs, plain, strict=True):
        assert logits_of(network, images.test, METER).sub(expected).abs().max() < close * expected.abs().max()
        assert loss == pytest.approx(expected_loss, rel=close)
    other = list(plain_epochs(tower, text_head(dtype=dtype), point, views, images.train.labels, judged, 3, 16,
                              tower_factor=1.1 - factor))  # fmt: skip
    assert (other[-1][0] - plain[-1][0]).abs().max() > 0.05  # the tower's rate does matter


def test_without_a_rate_the_losses_are_those_of_the_start() -> None:
    """The zero-shot head on normalised features, batch by batch, and the tower as it was."""
    images, tower = pictures(40, 10), Tower()
    ((network, loss),) = tuned_epochs(beginning_of(tower), Point(0.0, 1.0), images.train, SETTINGS, 1, METER)
    with torch.no_grad():
        features = nn.functional.normalize(tower.encode_image(seen(images.train.views.views)), dim=1)
    total = 0.0
    for rows in epoch_batches(40, 16, 0, 0):
        normed = (features[rows] - features[rows].mean(0)) / (features[rows].var(0, unbiased=False) + 1e-5).sqrt()
        total += float(nn.functional.cross_entropy(normed @ text_head().T, images.train.labels[rows])) * len(rows)
    assert loss == pytest.approx(total / 40, rel=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(network.tower.parameters(), tower.parameters(), strict=True))


@pytest.mark.parametrize("protocol", ["elevater", "clean"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_tower_without_a_rate_is_a_linear_probe(
    protocol: str, multi_label: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same choices, curve and probabilities from cached features."""
    monkeypatch.setattr(training, "TWO_LR", 0.0)
    images, tower = pictures(60, 40, multi_label=multi_label, noise=120), Tower()
    rates = (1e-2,) if multi_label else (1e-3, 1e-2)
    short = {"learning_rates": rates, "trial_epochs": 2, "final_epochs": 4, "batch_size": 16}
    metric = METRICS["map_11point" if multi_label else "top1"]
    found = fine_tune(images, 3, TuneSettings(metric, two_lr=True, **short), module_factory=lambda: tower,
                      text_head=text_head(), protocol=protocol)  # fmt: skip
    with torch.no_grad():
        train, test = (
            Labelled(nn.functional.normalize(tower.encode_image(seen(part.views.views)), dim=1), part.labels)
            for part in (images.train, images.test)
        )
    probe = linear_probe(train, test, 3, Settings(metric, **short), text_head=text_head(), protocol=protocol)
    assert (found.learning_rate, found.weight_decay, found.epoch) == (
        probe.learning_rate,
        probe.weight_decay,
        probe.epoch,
    )
    assert found.curve == pytest.approx(probe.curve) and found.test == pytest.approx(probe.test)
    assert found.tried.keys() == probe.tried.keys()
    torch.testing.assert_close(found.probabilities, probe.probabilities, rtol=1e-9, atol=1e-9)


def test_train_mode_reaches_the_tower() -> None:
    """BatchNorm moves, dropout drops; the same seed gives the same whatever the caller's generator has been through."""
    images = pictures(40, 10)
    tower = Tower(nn.BatchNorm2d(4), nn.Dropout(0.5)).eval()
    before = copy.deepcopy(tower.state_dict())
    losses = []
    for seed in (0, 0, 1):
        torch.rand(5)
        state = torch.get_rng_state()
        settings = TuneSettings(METRICS["top1"], batch_size=40, seed=seed)
        ((network, loss),) = tuned_epochs(beginning_of(tower), Point(0.0, 0.0), images.train, settings, 1, METER)
        assert torch.equal(torch.get_rng_state(), state)
        losses.append(loss)
    assert losses[0] == losses[1] and abs(losses[0] - losses[2]) > 1e-3  # of one batch: its order does not matter
    assert not torch.equal(network.tower.visual[1].running_mean, before["visual.1.running_mean"])
    assert all(torch.equal(value, before[name]) for name, value in tower.state_dict().items()) and not tower.training


def test_what_diverges_is_ended_at_once() -> None:
    """A rate times decay of 1e5 leaves fp32 within 8 steps: of 4 epochs of 30 steps no picture of the second is read."""
    images, tower = pictures(240, 10), Tower(dtype=torch.float32)
    watched = Watched(images.train.views)
    train = LabelledViews(watched, images.train.labels)
    settings = TuneSettings(METRICS["top1"], batch_size=8)
    start = beginning_of(tower, torch.float32)
    course = judged_course(start, Point(0.1, 1e6), train, images.test, settings, 4, False, METER)
    assert course.diverged and course.score == 0.0 and course.curve == [] and len(watched.asked) <= 16
    good = judged_course(start, Point(0.01, 1e-3), train, images.test, settings, 4, False, METER)
    assert not good.diverged and good.score == max(good.curve) > 50 and len(good.losses) == 4


def test_a_training_that_diverges_late_scores_nothing() -> None:
    """After a first good epoch; what was reached before is no reason to choose it."""
    images, tower = pictures(24, 10), Tower(dtype=torch.float32)
    settings = TuneSettings(METRICS["top1"], batch_size=12)
    course = judged_course(
        beginning_of(tower, torch.float32), Point(0.1, 1e6), images.train, images.test, settings, 9, False, METER
    )
    assert 1 <= len(course.curve) < 9 and course.metric > 0 and course.diverged and course.score == 0.0

"""The two protocols: what each may look at, and that the final numbers are those of a plain loop."""

import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from plain_tune import plain_epochs
from torch import Tensor, nn
from tune_cases import PREPROCESS, Tower, Watched, pictures, text_head

from toolkit.errors import ConfigError, DataError
from toolkit.evaluate.metrics import METRICS
from toolkit.evaluate.probe import few_shot_rows, sample_few_shot_subset
from toolkit.evaluate.probe.grid import Point
from toolkit.evaluate.probe.split import elevater_split, random_split
from toolkit.evaluate.tune import LabelledViews, Progress, TunedImages, TuneResult, TuneSettings, fine_tune

SHORT = TuneSettings(METRICS["top1"], learning_rates=(1e-3, 3e-2), trial_epochs=2, final_epochs=5, batch_size=16)
SMALL = replace(SHORT, learning_rates=(3e-2,), trial_epochs=1, final_epochs=3)
HARD = 150
"""Noise at which no setting is right about everything."""


def tuned(images: TunedImages, tower: nn.Module | None = None, settings: TuneSettings = SHORT, **more) -> TuneResult:
    """From the tower and the text head of the cases."""
    chosen = tower or Tower()
    return fine_tune(images, 3, settings, module_factory=lambda: chosen, **{"text_head": text_head(), **more})


def plain(result: TuneResult, train: LabelledViews, judged: LabelledViews, epochs: int) -> tuple[list[float], Tensor]:
    """(top-1 after each epoch of the chosen setting in percent, logits after the last)."""
    rows = torch.arange(len(train)) if train.rows is None else train.rows
    views = train.views.views[rows]
    asked = judged.views.views if judged.rows is None else judged.views.views[judged.rows]
    point = Point(result.learning_rate, result.weight_decay)
    runs = [logits for logits, _ in plain_epochs(Tower(), text_head(), point, views, train.labels, asked, epochs, 16)]
    return [100 * float((logits.argmax(1) == judged.labels).double().mean()) for logits in runs], runs[-1]


def test_elevater_reports_the_best_test_epoch() -> None:
    """All training pictures, five epochs, the first best one; the search's score is the best validation epoch."""
    images = pictures(90, 60, noise=HARD)
    told: list[Progress] = []
    found = tuned(images, report=told.append)
    assert found.curve == pytest.approx(plain(found, images.train, images.test, 5)[0]) and len(set(found.curve)) > 1
    assert found.test == max(found.curve) and found.epoch == found.curve.index(max(found.curve)) + 1
    fitted, held = (images.train.at(rows) for rows in elevater_split(images.train.labels))
    assert found.validation == pytest.approx(max(plain(found, fitted, held, 2)[0])) == max(found.tried.values())
    assert METRICS["top1"](found.probabilities, images.test.labels) == found.test
    assert found.parameters == sum(part.numel() for part in Tower().visual.parameters()) + 3 * 6
    assert "TEST" in found.label and "tenth" not in found.label and len(found.losses) == 5
    assert told[-1].trials == len(found.tried) and 20 < len(found.tried) <= 30
    assert [one.stage for one in told] == sorted((one.stage for one in told), reverse=True) and told[-1].work_left == 0
    assert all(a.work <= b.work and a.work_left >= b.work_left for a, b in pairwise(told))
    trial, final = 2 * (3 * len(fitted) + len(held)), 5 * (3 * 90 + 60)
    assert found.diverged == 0 and told[-1].work == len(found.tried) * trial + final
    assert told[-1].epochs == 2 * len(found.tried) + 5
    assert told[0].work + told[0].work_left == 30 * trial + final  # at most 15 settings for each of two rates


def test_clean_is_the_plain_loop() -> None:
    """The best validation epoch, then so many epochs on all training pictures, judged once."""
    images = pictures(90, 60, noise=HARD)
    found = tuned(images, protocol="clean")
    fitted, held = (images.train.at(rows) for rows in random_split(images.train.labels, 0))
    curve = plain(found, fitted, held, 5)[0]
    assert found.curve == pytest.approx(curve) and found.epoch == curve.index(max(curve)) + 1
    tests, logits = plain(found, images.train, images.test, found.epoch)
    assert found.test == pytest.approx(tests[-1]) and "read once" in found.label
    torch.testing.assert_close(found.probabilities, logits.softmax(dim=1), rtol=1e-8, atol=1e-8)


def test_clean_reads_the_test_pictures_once_at_the_end() -> None:
    """The last walk over pictures is the only one over the test set; ELEVATER's is one per epoch."""
    images = pictures(60, 30, noise=HARD)
    for protocol, walks in {"clean": 1, "elevater": 3}.items():
        order: list[str] = []
        parts = [
            LabelledViews(Watched(part.views, when=order, name=name), part.labels)
            for name, part in (("train", images.train), ("test", images.test))
        ]
        tuned(TunedImages(*parts, PREPROCESS), settings=SMALL, protocol=protocol)
        assert order.count("test") == walks and order[-1] == "test"


def test_clean_chooses_nothing_by_the_test_labels() -> None:
    """With other ones the setting, the epoch and the curve stay; with ELEVATER's protocol the curve moves."""
    images = pictures(60, 30, noise=HARD)
    turned = replace(images, test=replace(images.test, labels=(images.test.labels + 1) % 3))
    one, two = (tuned(each, settings=SMALL, protocol="clean") for each in (images, turned))
    assert (one.tried, one.learning_rate, one.weight_decay, one.epoch, one.curve) == (
        two.tried,
        two.learning_rate,
        two.weight_decay,
        two.epoch,
        two.curve,
    )
    assert torch.equal(one.probabilities, two.probabilities) and one.test != two.test
    assert tuned(images, settings=SMALL).curve != tuned(turned, settings=SMALL).curve


@pytest.mark.parametrize("k", [1, 5])
def test_few_shots(k: int) -> None:
    """Nothing but the drawn pictures is trained on; of one shot those that chose are not."""
    images = pictures(90, 60, noise=HARD)
    rows, merge = few_shot_rows(images.train.labels, k, seed=2)
    watched = Watched(images.train.views)
    given = replace(images, train=LabelledViews(watched, images.train.labels))
    found = tuned(given, train_rows=rows, merge_validation=merge)
    drawn = images.train.at(rows)
    fitted = drawn.at(elevater_split(drawn.labels)[0])
    assert {row for asked in watched.asked for row in asked} == set(rows) and len(rows) == (6 if k == 1 else 15)
    expected = plain(found, drawn if merge else fitted, images.test, 5)[0]
    assert found.curve == pytest.approx(expected) and len(fitted) == (3 if k == 1 else 12)


def test_search_rows() -> None:
    """The search on some pictures, the final training on all."""
    images = pictures(90, 60, noise=HARD)
    rows = sample_few_shot_subset(images.train.labels, 10, 0)
    found = tuned(images, search_rows=rows)
    assert found.curve == pytest.approx(plain(found, images.train, images.test, 5)[0])
    pool = images.train.at(rows)
    fitted, held = (pool.at(part) for part in elevater_split(pool.labels))
    assert found.validation == pytest.approx(max(plain(found, fitted, held, 2)[0]))


def test_several_classes_per_picture() -> None:
    """Binary cross-entropy; ELEVATER scores softmax, the clean protocol each class by itself."""
    images = pictures(60, 40, multi_label=True)
    settings = replace(SMALL, metric=METRICS["map_11point"], final_epochs=2)
    elevater, clean = (tuned(images, settings=settings, protocol=protocol) for protocol in ("elevater", "clean"))
    assert elevater.probabilities.sum(dim=1).sub(1).abs().max() < 1e-9
    assert clean.probabilities.sum(dim=1).max() > 1.2 and min(elevater.test, clean.test) > 60


def test_the_module_is_left_as_it_was_and_the_seed_decides() -> None:
    """Weights, statistics, mode, gradients; twice the same, and something else with another seed."""
    images = pictures(60, 30, noise=HARD)
    tower = Tower(nn.BatchNorm2d(4), nn.Dropout(0.2)).train()
    tower.visual[1].eval()
    tower.visual[0].weight.requires_grad_(False)
    before = copy.deepcopy(tower.state_dict())
    modes = [(part.training, len(part._forward_hooks)) for part in tower.modules()]
    one, two, other = (tuned(images, tower, replace(SMALL, seed=seed)) for seed in (0, 0, 1))
    assert one.tried == two.tried and one.curve == two.curve and one.losses == two.losses
    assert torch.equal(one.probabilities, two.probabilities) and one.losses != other.losses
    assert all(torch.equal(value, before[name]) for name, value in tower.state_dict().items())
    assert modes == [(part.training, len(part._forward_hooks)) for part in tower.modules()]
    assert all(part.grad is None for part in tower.parameters())
    assert [name for name, part in tower.named_parameters() if not part.requires_grad] == ["visual.0.weight"]
    assert one.parameters == sum(p.numel() for p in tower.visual.parameters() if p.requires_grad) + 18


def test_two_lr_is_said() -> None:
    """Beside the number."""
    found = tuned(pictures(40, 20), settings=replace(SHORT, learning_rates=(1e-3,), two_lr=True))
    assert found.two_lr and found.label.endswith("a tenth of the learning rate")


def test_diverged_settings_score_nothing_and_are_counted() -> None:
    """In fp32 the largest decays diverge; where all do, that is an error and no number."""
    images, tower = pictures(160, 30), Tower(dtype=torch.float32)
    settings = replace(SMALL, learning_rates=(1e-1,), batch_size=8)
    found = tuned(images, tower, settings, text_head=text_head(dtype=torch.float32))
    gone = [point.weight_decay for point, score in found.tried.items() if score == 0.0]
    assert found.diverged == len(gone) >= 2 and min(gone) > found.weight_decay
    with pytest.raises(DataError, match=r"all 11 settings diverged, learning rates 1e\+20 to 1e\+20; lower"):
        tuned(images, tower, replace(settings, learning_rates=(1e20,)), text_head=text_head(dtype=torch.float32))


def test_the_defaults_are_the_protocols() -> None:
    """Numbers of the protocol."""
    settings = TuneSettings(METRICS["top1"])
    assert (settings.trial_epochs, settings.final_epochs, settings.batch_size, settings.two_lr) == (10, 50, 64, False)
    assert len(settings.learning_rates) == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": "dirty"}, "no fine-tuning protocol 'dirty'"),
        ({"text_head": torch.ones(3, 6)}, r"text head must be \[3, 5\]"),
        ({"settings": replace(SHORT, metric=METRICS["map_11point"])}, "map_11point is not for pictures of one class"),
        ({"settings": replace(SHORT, batch_size=1)}, "fine-tune: batch_size=1 must be at least 2"),
        ({"settings": replace(SHORT, learning_rates=())}, "fine-tune: learning_rates is empty"),
        ({"search_rows": [0, 1], "merge_validation": False}, "search_rows goes with neither"),
        ({"search_rows": [0, 1], "train_rows": [0, 1]}, "search_rows goes with neither"),
        ({"train_rows": [0, 40]}, r"train_rows must be 2 or more numbers in 0\.\.39; found 2 numbers from 0 to 40"),
        ({"train_rows": []}, "found 0 numbers"),
        (
            {"images": replace(pictures(40, 20), test=pictures(40, 20, classes=4).test)},
            r"fine-tune: test labels .*0\.\.2",
        ),
    ],
)
def test_mistakes(change: dict, said: str) -> None:
    """Each says what was asked, found, and to do."""
    asked = {"images": pictures(40, 20)} | change
    with pytest.raises((ConfigError, DataError), match=said):
        tuned(**asked)

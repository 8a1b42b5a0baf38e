"""The two protocols: what each may look at, and that the final numbers are those of a plain loop."""

from dataclasses import replace

import pytest
import torch
from plain_probe import plain_epochs
from probe_cases import made_up

from toolkit.errors import ConfigError, DataError
from toolkit.evaluate.metrics import METRICS
from toolkit.evaluate.probe import Labelled, ProbeResult, Settings, linear_probe, sample_few_shot_subset
from toolkit.evaluate.probe.features import start_from
from toolkit.evaluate.probe.grid import Point
from toolkit.evaluate.probe.split import elevater_split, random_split

SHORT = Settings(METRICS["top1"], learning_rates=(1e-3, 1e-1), trial_epochs=2, final_epochs=5, batch_size=16)


def plain_curve(
    result: ProbeResult, train: Labelled, judged: Labelled, text_head: torch.Tensor, epochs: int
) -> list[float]:
    """Top-1 after each epoch of the chosen setting, in percent."""
    start = start_from(*text_head.shape, text_head, None, 0, train.features)
    point = Point(result.learning_rate, result.weight_decay)
    runs = plain_epochs(start, point, train, judged.features, epochs, SHORT.batch_size)
    return [100 * float((logits.argmax(1) == judged.labels).double().mean()) for logits in runs]


def test_elevater_reports_the_best_test_epoch() -> None:
    """All training pictures, five epochs, the first best one; the search's score is the best validation epoch."""
    train, test = made_up(100, 80, classes=4, width=6, noise=1.2)
    text_head = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    told: list[int] = []
    found = linear_probe(train, test, 4, SHORT, text_head=text_head, report=told.append)
    assert found.curve == pytest.approx(plain_curve(found, train, test, text_head, 5))
    assert found.test == max(found.curve) and found.epoch == found.curve.index(max(found.curve)) + 1
    training, validation = elevater_split(train.labels)
    fitted, held = train.at(training), train.at(validation)
    assert found.validation == pytest.approx(max(plain_curve(found, fitted, held, text_head, 2)))
    assert found.validation == max(found.tried.values())
    assert sum(told) == len(found.tried) <= 30
    assert METRICS["top1"](found.probabilities, test.labels) == found.test
    assert found.parameters == 28 and "TEST" in found.label and not found.trained_projection


def test_clean_never_chooses_by_the_test_set() -> None:
    """With other test labels the setting, the epoch and the curve stay; with ELEVATER's the chosen epoch may move."""
    train, test = made_up(100, 80, classes=4, width=6, noise=1.2)
    other = Labelled(test.features, test.labels.flip(0) * 0 + 2)
    one, two = (linear_probe(train, part, 4, SHORT, protocol="clean") for part in (test, other))
    assert (one.learning_rate, one.weight_decay, one.epoch, one.curve) == (
        two.learning_rate,
        two.weight_decay,
        two.epoch,
        two.curve,
    )
    assert torch.equal(one.probabilities, two.probabilities) and one.test != two.test
    assert "read once" in one.label and one.protocol == "clean"
    elevater = [linear_probe(train, part, 4, SHORT) for part in (test, other)]
    assert elevater[0].curve != elevater[1].curve


def test_clean_is_the_plain_loop() -> None:
    """The best validation epoch, then so many epochs on all training pictures, judged once."""
    train, test = made_up(100, 80, classes=4, width=6, noise=1.2)
    text_head = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = linear_probe(train, test, 4, SHORT, protocol="clean", text_head=text_head)
    training, validation = random_split(train.labels, 0)
    curve = plain_curve(found, train.at(training), train.at(validation), text_head, 5)
    assert found.curve == pytest.approx(curve) and found.epoch == curve.index(max(curve)) + 1
    assert found.test == pytest.approx(plain_curve(found, train, test, text_head, found.epoch)[-1])


def test_trained_projection() -> None:
    """The quirk: more parameters, said in the label; the text head has the projection's width."""
    train, test = made_up(80, 40, classes=3, width=8)
    projection = torch.randn(8, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = linear_probe(train, test, 3, SHORT, projection=projection, text_head=torch.ones(3, 5))
    assert found.parameters == 8 * 5 + 3 * 5 + 3 and found.trained_projection and "projection" in found.label
    assert found.test > 60


def test_several_classes_per_picture() -> None:
    """Softmax scores for ELEVATER, as its toolkit has them; a sigmoid per class in the clean protocol."""
    train, test = made_up(120, 60, classes=4, width=8, multi_label=True, noise=0.3)
    settings = replace(SHORT, metric=METRICS["map_11point"])
    elevater = linear_probe(train, test, 4, settings)
    clean = linear_probe(train, test, 4, settings, protocol="clean")
    torch.testing.assert_close(elevater.probabilities.sum(1), torch.ones(60, dtype=torch.float64))
    assert float((clean.probabilities.sum(1) - 1).abs().max()) > 0.1
    for found in (elevater, clean):
        assert METRICS["map_11point"](found.probabilities, test.labels) == found.test


def test_search_on_some_training_on_all() -> None:
    """The curve is that of all pictures; the search saw 5 per class."""
    train, test = made_up(100, 80, classes=4, width=6, noise=1.2)
    text_head = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = sample_few_shot_subset(train.labels, 10, 0)
    found = linear_probe(train, test, 4, SHORT, text_head=text_head, search_rows=rows)
    assert found.curve == pytest.approx(plain_curve(found, train, test, text_head, 5))
    pool = train.at(rows)
    training, validation = elevater_split(pool.labels)
    held = max(plain_curve(found, pool.at(training), pool.at(validation), text_head, 2))
    assert found.validation == pytest.approx(held)


def test_without_merging() -> None:
    """One shot: the pictures that chose are not trained on."""
    train, test = made_up(8, 40, classes=4, width=6)
    text_head = torch.eye(4, 6, dtype=torch.float64)
    found = linear_probe(train, test, 4, SHORT, text_head=text_head, merge_validation=False)
    fitted = train.at(elevater_split(train.labels)[0])
    assert len(fitted) == 4 and found.curve == pytest.approx(plain_curve(found, fitted, test, text_head, 5))


def test_the_defaults_are_the_protocols() -> None:
    """Numbers of the protocol."""
    settings = Settings(METRICS["top1"])
    assert (settings.trial_epochs, settings.final_epochs, settings.batch_size) == (10, 50, 64)
    assert len(settings.learning_rates) == 6


def test_start_without_texts() -> None:
    """Uniform within 1 / sqrt(width), decided by the seed."""
    one, again, other = (start_from(50, 16, None, None, seed, torch.zeros(1)) for seed in (0, 0, 1))
    assert torch.equal(one.weight, again.weight) and not torch.equal(one.weight, other.weight)
    assert 0.24 < float(one.weight.abs().max()) <= 0.25 and abs(float(one.weight.mean())) < 0.02


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": "dirty"}, "no probe protocol 'dirty'"),
        ({"text_head": torch.ones(3, 6)}, r"text head must be \[4, 6\]"),
        ({"projection": torch.ones(5, 6)}, r"projection must be \[6, embed_dim\]"),
        ({"settings": replace(SHORT, metric=METRICS["map_11point"])}, "map_11point is not for pictures of one class"),
        ({"settings": replace(SHORT, batch_size=1)}, "batch_size=1 must be at least 2"),
        ({"settings": replace(SHORT, learning_rates=())}, "learning_rates is empty"),
        ({"classes": 3}, r"0\.\.2; found torch.int64 from 0 to 3"),
        ({"search_rows": [0, 1], "merge_validation": False}, "exclude each other"),
    ],
)
def test_mistakes(change: dict, said: str) -> None:
    """Each says what was asked, found, and to do."""
    train, test = made_up(40, 20, classes=4, width=6)
    asked = {"classes": 4, "settings": SHORT} | change
    with pytest.raises((ConfigError, DataError), match=said):
        linear_probe(train, test, **asked)


def test_features_that_do_not_fit() -> None:
    """Width, numbers that are not finite, labels of the wrong length."""
    train, test = made_up(40, 20, classes=4, width=6)
    with pytest.raises(DataError, match="6 wide, test features 5"):
        linear_probe(train, Labelled(test.features[:, :5], test.labels), 4, SHORT)
    broken = test.features.clone()
    broken[3] = float("nan")
    with pytest.raises(DataError, match="1 of 20 test pictures"):
        linear_probe(train, Labelled(broken, test.labels), 4, SHORT)
    with pytest.raises(DataError, match=r"labels must have the shape \[20\]; found \[19\]"):
        linear_probe(train, Labelled(test.features, test.labels[1:]), 4, SHORT)


@pytest.mark.parametrize("protocol", ["elevater", "clean"])
def test_of_equal_epochs_the_first(protocol: str) -> None:
    """Classes that lie apart are all right from the first epoch on."""
    train, test = made_up(60, 30, classes=3, width=8, noise=0.01)
    found = linear_probe(train, test, 3, replace(SHORT, learning_rates=(1e-1,)), protocol=protocol)
    assert found.curve.count(100.0) > 1 and found.epoch == found.curve.index(100.0) + 1 and found.test == 100.0

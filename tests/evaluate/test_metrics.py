"""The protocol's metrics against scikit-learn, torchmetrics and loops written from the definitions, to 1e-9 of a fraction.

Random cases have ties (scores on a grid of eighths) and classes without a picture.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from toolkit.errors import ConfigError, DataError
from toolkit.evaluate.metrics import METRICS, Undefined, metric_named

SEEDS = range(12)
CLOSE = 1e-9
pytestmark = pytest.mark.filterwarnings("ignore:No positive samples found:UserWarning")
"""torchmetrics says so of a class that never occurs; those classes are left out by hand."""


def one_class_case(seed: int, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, labels that leave some classes out."""
    rng = np.random.default_rng(seed)
    kept = rng.permutation(classes)[: max(2, classes - 2)]
    labels = rng.choice(kept, 60)
    return rng.integers(0, 8, (60, classes)) / 8 + 0.25 * np.eye(classes)[labels], labels


def many_class_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, a 0/1 matrix in which one class never occurs."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((50, 6)) < 0.25).astype(np.int64)
    labels[:, seed % 6] = 0
    labels[0, (seed + 1) % 6] = 1
    return (rng.integers(0, 8, labels.shape) + 3 * labels) / 16, labels


@pytest.fixture
def in_float64() -> Iterator[None]:
    """torchmetrics divides whole numbers in torch's default precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def torchmetrics(in_float64: None):
    """Of the dev extra."""
    return pytest.importorskip(
        "torchmetrics.functional.classification", reason="pip install -e '.[dev]' brings torchmetrics"
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_top1_is_scikit_learns(seed: int) -> None:
    """Accuracy of the argmax."""
    from sklearn.metrics import accuracy_score

    scores, labels = one_class_case(seed)
    expected = accuracy_score(labels, scores.argmax(1))
    assert METRICS["top1"](scores, labels) / 100 == pytest.approx(expected, abs=CLOSE)
    assert METRICS["top1"](torch.tensor(scores), torch.tensor(labels)) / 100 == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize("seed", SEEDS)
def test_mean_per_class_is_scikit_learns(seed: int) -> None:
    """Balanced accuracy; classes without pictures are struck from the scores before the argmax."""
    from sklearn.metrics import balanced_accuracy_score

    scores, labels = one_class_case(seed)
    struck = scores.copy()
    struck[:, [k for k in range(scores.shape[1]) if k not in labels]] = -np.inf
    expected = balanced_accuracy_score(labels, struck.argmax(1))
    assert METRICS["mean_per_class"](scores, labels) / 100 == pytest.approx(expected, abs=CLOSE)


def test_mean_per_class_strikes_classes_without_pictures() -> None:
    """By hand: class 1 wins the second picture but cannot be answered; the recalls are 1 and 1/2."""
    scores = np.array([[9, 0, 1], [4, 9, 0], [0, 0, 5], [7, 0, 6.0]])
    assert METRICS["mean_per_class"](scores, np.array([0, 0, 2, 2])) == 75.0
    assert METRICS["top1"](scores, np.array([0, 0, 2, 2])) == 50.0


@pytest.mark.parametrize("seed", SEEDS)
def test_accuracies_are_torchmetrics(seed: int, torchmetrics) -> None:
    """From its confusion matrix (its own ratio is rounded to fp32); the mean is over the classes that occur."""
    scores, labels = one_class_case(seed)
    found, truth = torch.tensor(scores), torch.tensor(labels)
    table = torchmetrics.multiclass_confusion_matrix(found, truth, num_classes=7).double()
    assert METRICS["top1"](scores, labels) / 100 == pytest.approx(float(table.diag().sum() / table.sum()), abs=CLOSE)
    present, numbers = truth.unique(return_inverse=True)
    table = torchmetrics.multiclass_confusion_matrix(found[:, present], numbers, num_classes=len(present)).double()
    macro = float((table.diag() / table.sum(1)).mean())
    assert METRICS["mean_per_class"](scores, labels) / 100 == pytest.approx(macro, abs=CLOSE)


def roc_by_pairs(scored: np.ndarray, labels: np.ndarray) -> float:
    """Share of (positive, negative) pairs in the right order, ties half."""
    pairs = [(p > n) + 0.5 * (p == n) for p in scored[labels == 1] for n in scored[labels == 0]]
    return float(np.mean(pairs))


@pytest.mark.parametrize("seed", SEEDS)
def test_roc_auc(seed: int, torchmetrics) -> None:
    """Pair counting, scikit-learn and torchmetrics."""
    scores, labels = one_class_case(seed, classes=2)
    found = METRICS["roc_auc"](scores, labels) / 100
    assert found == pytest.approx(roc_by_pairs(scores[:, 1], labels), abs=CLOSE)
    assert found == pytest.approx(roc_auc_score(labels, scores[:, 1]), abs=CLOSE)
    theirs = torchmetrics.binary_auroc(torch.tensor(scores[:, 1]) / 2, torch.tensor(labels))
    assert found == pytest.approx(float(theirs), abs=CLOSE)


def eleven_points_by_counting(scores: np.ndarray, labels: np.ndarray) -> float:
    """In whole numbers: at level i / 10 the best precision of any threshold that finds 10 tp >= i positives."""
    averages = []
    for scored, true in zip(scores.T, labels.T, strict=True):
        if not true.any():
            continue
        points = [(int(true[scored >= t].sum()), int((scored >= t).sum())) for t in np.unique(scored)]
        reached = [max(tp / asked for tp, asked in points if 10 * tp >= n * int(true.sum())) for n in range(1, 11)]
        averages.append((1.0 + sum(reached)) / 11)  # recall 0 is reached by answering nothing: precision 1
    return sum(averages) / len(averages)


@pytest.mark.parametrize("seed", SEEDS)
def test_map_11point(seed: int) -> None:
    """Ties, a class without pictures; recalls that are exactly on a level count."""
    scores, labels = many_class_case(seed)
    assert METRICS["map_11point"](scores, labels) / 100 == pytest.approx(
        eleven_points_by_counting(scores, labels), abs=CLOSE
    )


@pytest.mark.parametrize("positives", [1, 3, 7, 10, 20])
def test_map_11point_on_the_levels(positives: int) -> None:
    """Recalls like 3/10 must reach the level 0.3 whatever binary fractions make of it."""
    labels = np.zeros((60, 1), dtype=np.int64)
    labels[np.arange(positives) * 2] = 1
    scores = -np.arange(60.0)[:, None]
    assert METRICS["map_11point"](scores, labels) / 100 == pytest.approx(
        eleven_points_by_counting(scores, labels), abs=CLOSE
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_map_11point_on_torchmetrics_curve(seed: int, torchmetrics) -> None:
    """The precision-recall curve of the other library, interpolated here."""
    scores, labels = many_class_case(seed)
    curves = torchmetrics.multilabel_precision_recall_curve(torch.tensor(scores), torch.tensor(labels), num_labels=6)
    averages = []
    for precision, recall, true in zip(curves[0], curves[1], labels.T, strict=True):
        if true.any():
            averages.append(np.mean([float(precision[recall >= i / 10 - 1e-12].max()) for i in range(11)]))
    assert METRICS["map_11point"](scores, labels) / 100 == pytest.approx(np.mean(averages), abs=CLOSE)


@pytest.mark.parametrize("name", list(METRICS))
def test_counts_are_repeated_pictures(name: str) -> None:
    """A picture that counts twice is the picture twice; one that counts 0 times is not there."""
    scores, labels = many_class_case(3) if name == "map_11point" else one_class_case(3, 2 if name == "roc_auc" else 7)
    counts = np.random.default_rng(0).integers(0, 4, len(scores))
    if name == "mean_per_class":
        counts[[int(np.argmax(labels == k)) for k in np.unique(labels)]] = 1  # no class vanishes
    literally = METRICS[name](scores.repeat(counts, axis=0), labels.repeat(counts, axis=0))
    assert METRICS[name].statistic(scores, labels)(counts) == pytest.approx(literally, abs=1e-9)


def test_undefined() -> None:
    """One class has no ROC, no class no mAP."""
    with pytest.raises(Undefined, match="both classes"):
        METRICS["roc_auc"](np.eye(2), np.array([1, 1]))
    with pytest.raises(Undefined, match="any class"):
        METRICS["map_11point"](np.eye(2), np.zeros((2, 2), dtype=np.int64))


@pytest.mark.parametrize(
    ("name", "scores", "labels", "said"),
    [
        ("top1", np.zeros((2, 3, 1)), np.zeros(2), r"shape \[2, 3, 1\]"),
        ("top1", np.zeros((2, 3)), np.zeros(3, dtype=np.int64), r"shape \[2\]; found \[3\]"),
        ("top1", np.zeros((2, 3)), np.array([0, 3]), r"0\.\.2; found 0 to 3"),
        ("top1", np.zeros((2, 3)), np.array([0, 0.5]), "whole numbers"),
        ("mean_per_class", np.array([[0, np.nan], [1, 0]]), np.array([0, 1]), "1 of 2 pictures"),
        ("map_11point", np.zeros((2, 3)), np.array([0, 1]), "0/1 matrix"),
        ("roc_auc", np.zeros((2, 3)), np.array([0, 1]), "scores of 3"),
    ],
)
def test_what_cannot_be_judged(name: str, scores: np.ndarray, labels: np.ndarray, said: str) -> None:
    """Each mistake is named."""
    with pytest.raises(DataError, match=said):
        METRICS[name](scores, labels)


def test_names() -> None:
    """Ours and the protocol's; a near miss is helped."""
    assert metric_named("11point_mAP") is METRICS["map_11point"] and metric_named("accuracy") is METRICS["top1"]
    with pytest.raises(ConfigError, match="did you mean roc_auc"):
        metric_named("roc-auc")


def test_map_11point_sorts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interval asks for a thousand draws; each is scikit-learn's to the last digit, ties and absent pictures too."""
    from sklearn.metrics import precision_recall_curve

    rng = np.random.default_rng(5)
    scores, labels = np.round(rng.random((60, 3)), 1), (rng.random((60, 3)) < 0.3).astype(np.uint8)
    labels[0] = 1
    statistic = METRICS["map_11point"].statistic(scores, labels)
    draws = [None, *(np.append(1, rng.integers(0, 3, 59)) for _ in range(20))]
    wanted = []
    for counts in draws:
        curves = [
            precision_recall_curve(true, scored, sample_weight=counts)
            for scored, true in zip(scores.T, labels.T, strict=True)
        ]
        levels = [[p[r >= level - 1e-9].max() for level in np.linspace(0, 1, 11)] for p, r, _ in curves]
        wanted.append(100 * float(np.mean(levels)))
    monkeypatch.setattr("sklearn.metrics.precision_recall_curve", None)
    monkeypatch.setattr(np, "argsort", None)
    assert [statistic(counts) for counts in draws] == pytest.approx(wanted, abs=1e-11)

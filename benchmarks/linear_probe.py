"""The whole ELEVATER search of a linear probe on made-up features, against scikit-learn's LogisticRegressionCV.

    python benchmarks/linear_probe.py            (half an hour on two cores; --smoke is done in seconds and writes nothing)

50,000 training and 10,000 test features of width 768, 100 classes that overlap. Ours: six learning rates x the search over 97
weight decays, 10 epochs each, then 50 epochs on everything with a test after each. Theirs: L-BFGS needs no learning
rate, so the comparable search is 15 strengths of the penalty (as many as ours tries per learning rate) on the same validation
pictures, then a fit on everything. Runs in turn, in one process. Writes benchmarks/results/linear_probe_cpu2_<yyyymm>.{md,json}.
"""

import argparse
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from receipt import receipt, write

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from toolkit.evaluate.metrics import METRICS  # noqa: E402
from toolkit.evaluate.probe import Labelled, Settings, linear_probe  # noqa: E402
from toolkit.evaluate.probe.split import elevater_split  # noqa: E402

STRENGTHS = 15


def features(train: int, test: int, width: int, classes: int) -> tuple[Labelled, Labelled, torch.Tensor]:
    """(training, test, a head that knows the classes roughly): unit vectors around a direction per class."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(classes, width, generator=generator), dim=1)
    labels = torch.randint(0, classes, (train + test,), generator=generator)
    spread = 0.3 * torch.randn(train + test, width, generator=generator)
    rows = torch.nn.functional.normalize(centres[labels] + spread, dim=1)
    texts = torch.nn.functional.normalize(centres + 0.1 * torch.randn(classes, width, generator=generator), dim=1)
    return Labelled(rows[:train], labels[:train]), Labelled(rows[train:], labels[train:]), texts


def ours(train: Labelled, test: Labelled, texts: torch.Tensor) -> dict[str, Any]:
    """Seconds of search and final training, and what came out."""
    ended: list[float] = []
    begin = time.perf_counter()
    found = linear_probe(
        train,
        test,
        len(texts),
        Settings(METRICS["top1"]),
        text_head=texts,
        report=lambda trials: ended.append(time.perf_counter()),
    )
    seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "search_seconds": ended[-1] - begin,
        "trials": len(found.tried),
        "validation": found.validation,
        "test": found.test,
        "test_last_epoch": found.curve[-1],
        "chosen": {"learning_rate": found.learning_rate, "weight_decay": found.weight_decay, "epoch": found.epoch},
    }


def theirs(train: Labelled, test: Labelled) -> dict[str, Any]:
    """The same split; standardised features, as our BatchNorm gives ours."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import PredefinedSplit
    from sklearn.preprocessing import StandardScaler

    begin = time.perf_counter()
    fold = np.full(len(train), -1)
    fold[elevater_split(train.labels)[1]] = 0
    scaler = StandardScaler().fit(train.features.numpy())
    fitted = int((fold < 0).sum())
    strengths = (
        1 / (fitted * np.logspace(-6, 6, STRENGTHS))
    ).tolist()  # a decay w on the mean loss is C = 1 / (w n) on the sum
    model = LogisticRegressionCV(
        Cs=strengths, cv=PredefinedSplit(fold), scoring="accuracy", l1_ratios=(0.0,), use_legacy_attributes=False
    )
    model.fit(scaler.transform(train.features.numpy()), train.labels.numpy())
    seconds = time.perf_counter() - begin
    right = model.predict(scaler.transform(test.features.numpy())) == test.labels.numpy()
    return {
        "seconds": seconds,
        "trials": STRENGTHS,
        "validation": 100 * float(np.max(model.scores_)),
        "test": 100 * float(right.mean()),
        "chosen": {"C": float(np.ravel(model.C_)[0])},
    }


def table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """A row per side; the median of the seconds and their range."""
    lines = ["| | seconds (median; range) | settings tried | validation | test |", "|---|---|---|---|---|"]
    for name, found in runs.items():
        seconds = [run["seconds"] for run in found]
        span = f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        last = found[-1]
        lines.append(f"| {name} | {span} | {last['trials']} | {last['validation']:.2f} | {last['test']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """In turn, so that a slower hour hits both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch; 1 on a busy machine")
    parser.add_argument("--smoke", action="store_true", help="2,000 x 64 with 10 classes, once, nothing written")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.smoke:
        chosen.rows, chosen.test, chosen.width, chosen.classes, chosen.repeats = 2_000, 500, 64, 10, 1
    train, test, texts = features(chosen.rows, chosen.test, chosen.width, chosen.classes)
    runs: dict[str, list[dict[str, Any]]] = {"ours, search and final training": [], "LogisticRegressionCV": []}
    for _ in range(chosen.repeats):
        runs["ours, search and final training"].append(ours(train, test, texts))
        runs["LogisticRegressionCV"].append(theirs(train, test))
        print(table(runs), flush=True)
    if chosen.smoke:
        return
    command = " ".join(["python benchmarks/linear_probe.py", *sys.argv[1:]])
    title = f"Linear probe, {chosen.rows:,} x {chosen.width} features, {chosen.classes} classes"
    name = f"linear_probe_cpu2_{datetime.now(UTC):%Y%m}"
    notes = f"Of our seconds the search took {statistics.median(r['search_seconds'] for r in next(iter(runs.values()))):.1f}."
    write(name, title, table(runs), receipt(command), runs, notes)


if __name__ == "__main__":
    main()

"""Pictures for the report: samples of a set, and the classes on which the model is worst."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from toolkit.data.benchmarks.split import Split
from toolkit.evaluate.pictures import THUMBNAIL, best_three

SAMPLES = 8
WORST = 3
PICTURES_OF_A_CLASS = 3
CONFUSED_WITH = 4


def shown(split: Split, names: list[str], probabilities: Mapping[str, Tensor], main: str) -> dict[str, Any]:
    """`pictures` and `worst` of a set with one class per picture, the same each time; probabilities [n, k] by model."""
    scored = {who: values for who, values in probabilities.items() if who in (main, "teacher")}
    return {
        "pictures": [picture(split, row, names, scored) for row in sample_rows(len(split))],
        "worst": worst(split, names, scored, main),
    }


def sample_rows(count: int) -> list[int]:
    """Of a set with so many pictures: the same ones each time."""
    return sorted(np.random.default_rng(0).permutation(count)[:SAMPLES].tolist())


def worst(split: Split, names: list[str], scored: Mapping[str, Tensor], main: str) -> list[dict[str, Any]]:
    """The classes of the lowest recall that have pictures, what they were taken for, and some of the pictures missed."""
    answers = {who: values.argmax(dim=-1).numpy() for who, values in scored.items()}
    there = np.unique(split.labels)
    recall = {
        who: {int(one): 100.0 * float((given[split.labels == one] == one).mean()) for one in there}
        for who, given in answers.items()
    }
    found = []
    for number in sorted(recall[main], key=lambda one: (recall[main][one], one))[:WORST]:
        rows = np.flatnonzero(split.labels == number)
        given = answers[main][rows]
        missed = rows[given != number]
        if not len(missed):
            continue
        others, counts = np.unique(given[given != number], return_counts=True)
        order = np.argsort(-counts, kind="stable")[:CONFUSED_WITH]
        entry = {
            "class": number,
            "name": names[number],
            "recall": recall[main][number],
            "confused": [[names[others[one]], 100.0 * float(counts[one] / len(rows))] for one in order],
            "pictures": [picture(split, int(row), names, scored) for row in missed[:PICTURES_OF_A_CLASS]],
        }
        if "teacher" in recall and main != "teacher":
            entry["teacher_recall"] = recall["teacher"][number]
        found.append(entry)
    return found


def picture(split: Split, row: int, names: list[str], scored: Mapping[str, Tensor]) -> dict[str, Any]:
    """One of them with what the models make of it."""
    found: dict[str, Any] = {"png": thumbnail(split, row), "truth": names[int(split.labels[row])]}
    return found | {who: best_three(values[row], names) for who, values in scored.items()}


def thumbnail(split: Split, row: int) -> str:
    """base64 PNG, large pictures shrunk."""
    image = split.picture(row)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()

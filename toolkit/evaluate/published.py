"""Scores that others have published, each with where it stands: what a student is shown beside."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FILE = Path(__file__).with_suffix(".json")
MEANS = ("elevater", "robustness")
"""What a score may stand for besides a set: the mean over ELEVATER's 20 sets, that over the five of robustness."""


@dataclass(frozen=True)
class Published:
    """One number."""

    model: str
    task: str
    """`zero_shot` or `linear_probe`."""
    of: str
    """Name of a set's entry, or one of MEANS."""
    percent: float
    source: str
    """In words, with the protocol where it is not ELEVATER's: numbers of two protocols differ by some tenths."""


@lru_cache(maxsize=1)
def published() -> tuple[Published, ...]:
    """All of them, in the file's order: the paper's students first, then its teacher's family, then natural baselines."""
    content = json.loads(FILE.read_text())
    return tuple(
        Published(row["model"], row["task"], of, percent, content["sources"][row["source"]])
        for row in content["rows"]
        for of, percent in row["scores"].items()
    )


def rows_for(task: str, columns: list[str]) -> dict[str, dict[str, Published]]:
    """By model and column, of models with a score in at least one of `columns` (sets or MEANS); what nobody published is absent."""
    found: dict[str, dict[str, Published]] = {}
    for one in published():
        if one.task == task and one.of in columns:
            found.setdefault(one.model, {})[one.of] = one
    return found

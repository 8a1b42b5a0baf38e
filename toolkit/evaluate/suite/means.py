"""ELEVATER's score and the robustness score: unweighted means, where every set of the group was judged."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import numpy as np

from toolkit.data.benchmarks import entries
from toolkit.evaluate.confidence import LEVEL, Comparison, mean_comparison
from toolkit.evaluate.suite.rows import as_json

GROUPS = ("elevater", "robustness")


def group_means(
    sets: Mapping[str, Mapping[str, Any]],
    comparisons: Mapping[str, Mapping[str, Mapping[str, Comparison]]],
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """By task and group, with `sets` as results.json has them and comparisons by set, task and baseline.

    Differences whose draws are gone are those of `earlier`, where the rows are still the same.
    The interval of a mean joins those of the sets, which are independent: half-widths add as squares.
    """
    found: dict[str, Any] = {}
    for group in GROUPS:
        members = [name for name, entry in entries().items() if entry.group == group]
        tasks = {task for name in members if name in sets for task in sets[name]["tasks"]}
        for task in sorted(tasks):
            if not all(name in sets and task in sets[name]["tasks"] for name in members):
                continue
            if any(
                sets[name]["tasks"][task].get("settings") != sets[members[0]]["tasks"][task].get("settings")
                for name in members
            ):
                continue  # searched or drawn in different ways: the number would be of neither
            rows = {name: sets[name]["tasks"][task]["rows"] for name in members}
            whose = [who for who in rows[members[0]] if all(who in row for row in rows.values())]
            drawn = [comparisons.get(name, {}).get(task, {}) for name in members]
            differences = {
                who: as_json(mean_comparison([of[who] for of in drawn]))
                for who in whose
                if all(who in of for of in drawn)  # not those of an earlier command: their draws are gone
            }
            computed = {who: mean_row([rows[name][who] for name in members]) for who in whose}
            was = (earlier or {}).get(task, {}).get(group, {})
            if was.get("rows") == computed:
                differences = was["differences"] | differences
            found.setdefault(task, {})[group] = {
                "sets": len(members),
                "not_as_protocol": [name for name in members if sets[name].get("problems")],
                "level": LEVEL,
                "rows": computed,
                "differences": differences,
            }
    return found


def mean_row(rows: list[Mapping[str, float]]) -> dict[str, float]:
    """Value and interval."""
    value = fmean(row["value"] for row in rows)
    down, up = (
        float(np.sqrt(sum((row["value"] - row[end]) ** 2 for row in rows))) / len(rows) for end in ("low", "high")
    )
    return {"value": value, "low": value - down, "high": value + up}

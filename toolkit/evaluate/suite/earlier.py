"""What an earlier command found for the same models stays in results.json: tasks and sets add up."""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

KEPT = ("retrieval", "compositionality")
SAME = ("samples", "classnames", "templates", "metric", "copy")
PICTURES = ("pictures", "worst")


def earlier_results(
    path: Path, now: Mapping[str, Any], may_show: Callable[[str], bool] = lambda name: True
) -> dict[str, Any]:
    """`sets`, `retrieval` and `compositionality` of the file at `path` with the rows of models that are the same now.

    A model is the same by the hashes of what encodes its pictures and its sentences; rows of models that are not asked for now
    are left out, and everything where the model in question is another one; so are pictures of sets that may not show any.
    Nothing where there is no such file, or a torn one.
    """
    try:
        before = json.loads(path.read_text())
        same = {who for who, one in now["models"].items() if is_same(before["models"].get(who, {}), one)}
        fits = before["format"] == now["format"] and before["model"] == now["model"] and now["model"] in same
        if not fits:
            return {}
        sets = nonempty({name: with_tasks(one, same) for name, one in before["sets"].items()})
        kept = {"sets": without_pictures(sets, may_show)}
        for kind in KEPT:
            kept[kind] = nonempty({name: with_rows(one, same) for name, one in before.get(kind, {}).items()})
        kept["means"] = nonempty(
            {
                task: nonempty({group: with_rows(one, same) for group, one in groups.items()})
                for task, groups in before["means"].items()
            }
        )
        shown = [dict(one) for one in before.get("nearest_sentences", [])]
        costs = {who: before["models"][who]["cost"] for who in same if "cost" in before["models"][who]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    nearest = [{key: value for key, value in one.items() if key == "png" or key in same} for one in shown]
    return {**kept, "costs": costs} | ({"nearest_sentences": nearest} if nearest else {})


def set_aside(path: Path, now: Mapping[str, Any]) -> Path | None:
    """A file of other weights, or a torn one, gets another name instead of being written over; which, None where nothing was done."""
    if not path.is_file():
        return None
    try:
        before = json.loads(path.read_text())
        sha256 = str(before["models"][before["model"]]["sha256"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        sha256 = "unreadable"
    if sha256 == now["models"][now["model"]]["sha256"]:
        return None
    aside = path.with_name(f"{path.stem}.{sha256[:12]}{path.suffix}")
    return path.replace(aside)


def is_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """A student without a text tower is another one with another teacher's sentences."""
    return all(before.get(key, "") == now.get(key, "") for key in ("sha256", "text_sha256"))


def without_pictures(sets: Mapping[str, Any], may_show: Callable[[str], bool]) -> dict[str, Any]:
    """Sets whose pictures may not stand in the results lose those of an earlier command."""
    return {
        name: one
        if may_show(name)
        else {**one, "tasks": {task: without(found, PICTURES) for task, found in one["tasks"].items()}}
        for name, one in sets.items()
    }


def without(found: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """The others."""
    return {key: value for key, value in found.items() if key not in keys}


def with_tasks(one: Mapping[str, Any], same: set[str]) -> dict[str, Any]:
    """A set with those of its tasks that have rows."""
    tasks = {task: rows for task, found in one["tasks"].items() if (rows := with_rows(found, same))}
    return {**one, "tasks": tasks} if tasks else {}


def with_rows(found: Mapping[str, Any], same: set[str]) -> dict[str, Any]:
    """Rows and differences of these models alone; pictures stay, they are of the model in question and its teacher."""
    rows = {who: row for who, row in found["rows"].items() if who in same}
    if not rows:
        return {}
    differences = {who: gap for who, gap in found.get("differences", {}).items() if who in same}
    return {**found, "rows": rows} | ({"differences": differences} if "differences" in found else {})


def joined(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """One set judged twice: tasks of now win; where copy, prompts or metric have changed, nothing of before is kept.

    Where other training pictures lie there now, nothing is kept that was trained.
    """
    if not before or any(before.get(key) != now[key] for key in SAME):
        return dict(now)
    trained_on = {task["train"] for task in now["tasks"].values() if "train" in task}
    kept = {
        name: one for name, one in before["tasks"].items() if not trained_on or one.get("train") in {None, *trained_on}
    }
    return {**now, "tasks": {**kept, **now["tasks"]}}


def nonempty(sets: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without those of which nothing is left."""
    return {name: one for name, one in sets.items() if one}

"""Sets by models over several files; what was not judged alike is marked and not ranked."""

from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.report.compare_files import Compared
from toolkit.report.grids import Column, Grid, Line, best_of, is_best, listed, score_entry
from toolkit.report.judged import GROUP_SIZES, GROUP_TITLES, Interval, JudgedSet, Task, task_order, task_title
from toolkit.report.sets import METRICS, row_entry

Columns = Mapping[str, tuple[Compared, str]]
CAPTION = (
    "In percent; in brackets 95\u00a0% bootstrap intervals over the pictures, not over training seeds. Bold is the best of a row. "
    "A row in which the files were judged differently is marked and has no best."
)
MARK = "judged differently"


@dataclass(frozen=True)
class SetRow:
    """One set over all columns; `unlike` says how the files differ on it, empty where the values can be compared."""

    name: str
    title: str
    group: str
    words: str
    unlike: str
    found: dict[str, tuple[JudgedSet, Task]]


def tasks_of(columns: Columns) -> list[str]:
    """Of any file."""
    found = {task for one, _ in columns.values() if one.judgement for task in one.judgement.tasks()}
    return sorted(found, key=task_order)


def set_rows(columns: Columns, task: str) -> list[SetRow]:
    """In the order of the groups; a column is in `found` where its model has a value."""
    order: dict[str, JudgedSet] = {}
    for one, _ in columns.values():
        if one.judgement:
            order |= {name: pair[0] for name, pair in one.judgement.sets_of(task).items() if name not in order}
    rows = []
    for name, first in sorted(order.items(), key=lambda item: [*GROUP_TITLES].index(item[1].group)):
        found = {}
        for column, (one, row) in columns.items():
            pair = one.judgement.sets_of(task).get(name) if one.judgement else None
            if pair and row in pair[1].rows:
                found[column] = pair
        words = f"{METRICS.get(first.metric, first.metric)}, {first.samples:,} pictures"
        rows.append(SetRow(name, first.title, first.group, words, differing(found), found))
    return rows


def differing(found: Mapping[str, tuple[JudgedSet, Task]]) -> str:
    """How the files judged a set unlike each other, in words; empty where they did not."""
    kinds = {
        "pictures": {column: f"{one.samples:,} pictures" for column, (one, _) in found.items()},
        "prompts": {column: task.label or "no label" for column, (_, task) in found.items()},
        "classes": {column: f"{one.classes} classes" for column, (one, _) in found.items() if one.classes is not None},
        "copies": {column: f"copy {one.copy}" for column, (one, _) in found.items() if one.copy},
        "metric": {column: METRICS.get(one.metric, one.metric) for column, (one, _) in found.items()},
    }
    told: list[str] = []
    for kind, values in kinds.items():
        if kind == "copies" and told:  # pictures cannot be the same ones where their number is not
            continue
        who: dict[str, list[str]] = {}
        for column, value in values.items():
            who.setdefault(value, []).append(column)
        if len(who) > 1:
            told.append("; ".join(f"{listed(columns)} {value}" for value, columns in who.items()))
    if not told and len({tuple(one.classnames) for one, _ in found.values() if one.classnames}) > 1:
        told.append("the class names are not the same")
    return ". ".join(told)


def compared_grid(columns: Columns, task: str) -> Grid:
    """Sets downwards, models across, then the means of the groups that every model has in full and judged alike."""
    rows = set_rows(columns, task)
    names = [name for name in columns if any(name in row.found for row in rows)]
    lines, notes = [], []
    for row in rows:
        scored = [row.found[name][1].rows[columns[name][1]] if name in row.found else None for name in names]
        best = None if row.unlike else best_of(one.score if one else None for one in scored)
        lines.append(Line(row.title, [row_entry(one, best) for one in scored], row.words, _marks(row)))
        notes += [f"{row.title}: judged differently: {row.unlike}."] if row.unlike else []
        notes += [f"{row.title}: {problem}." for problem in _problems(row)]
    for group, size in GROUP_SIZES.items():
        means = mean_scores(columns, task, group)
        unlike = [row.title for row in rows if row.group == group and row.unlike]
        if means:
            best = None if unlike else best_of(means.get(name) for name in names)
            entries = [score_entry(means.get(name), best=is_best(means.get(name), best)) for name in names]
            warning = "holds sets judged differently" if unlike else ""
            lines.append(Line(f"Mean of {GROUP_TITLES[group]}", entries, f"{size} sets", warning, strong=True))
    return Grid(task_title(task), CAPTION, "Set", [Column(name) for name in names], lines, notes=notes)


def _marks(row: SetRow) -> str:
    """Short, since the head of a row is narrow; the notes below the table say more."""
    broken = any(one.problems for one, _ in row.found.values())
    return ", ".join(word for word, said in ((MARK, row.unlike), ("see below", broken)) if said)


def _problems(row: SetRow) -> list[str]:
    """What is wrong with a set, and in which files where it is not in all."""
    told: dict[str, list[str]] = {}
    for column, (one, _) in row.found.items():
        for problem in one.problems:
            told.setdefault(problem, []).append(column)
    everywhere = len(row.found)
    return [problem if len(who) == everywhere else f"{listed(who)}: {problem}" for problem, who in told.items()]


def mean_scores(columns: Columns, task: str, group: str) -> dict[str, Interval]:
    """By column; a file that has not judged the whole group has none."""
    found = {}
    for column, (one, row) in columns.items():
        mean = one.judgement.means.get(task, {}).get(group) if one.judgement else None
        if mean and row in mean.rows:
            found[column] = mean.rows[row]
    return found

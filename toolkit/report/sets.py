"""The table of sets by models of one task, and its bars."""

from dataclasses import dataclass

from toolkit.report.grids import (
    Column,
    Entry,
    Grid,
    Line,
    best_of,
    difference_entry,
    interval_text,
    is_best,
    percent_text,
    score_entry,
)
from toolkit.report.judged import GROUP_SIZES, GROUP_TITLES, JudgedSet, Judgement, Mean, Row, Task, task_title
from toolkit.report.published_rows import Sources, published_for

METRICS = {
    "top1": "top-1",
    "mean_per_class": "mean per class",
    "map_11point": "mAP, 11 points",
    "roc_auc": "ROC AUC",
}
INTERVALS = (
    "In brackets: 95\u00a0% bootstrap intervals over the pictures of the test set; they do not hold the spread over training "
    "seeds."
)
DIFFERENCES = "Differences are in points on the same pictures, with a two-sided p-value."
SEEDS = "± is the standard deviation over {} seeds, which drew the labelled pictures."
BEST = "Bold is the best of what was measured here."
PUBLISHED_WORDS = "Published scores were not measured here: other code, other machines, in places other templates."


@dataclass(frozen=True)
class ModelBar:
    """A bar with its interval; all in percent of the track."""

    label: str
    number: int
    text: str
    width: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class SetBars:
    """The bars of one set."""

    title: str
    bars: list[ModelBar]


def set_grid(results: Judgement, task: str) -> Grid:
    """Sets downwards, then the means; models across, then differences, then what others published."""
    judged = results.sets_of(task)
    names = [name for name in results.names() if any(name in one.rows for _, one in judged.values())]
    others = [name for name in names if any(name in one.differences for _, one in judged.values())]
    means = results.means.get(task, {})
    published = published_for(task, [*judged, *means])
    sources = Sources()

    def beside(of: str) -> list[Entry]:
        found = [scores.get(of) for scores in published.values()]
        return [Entry(percent_text(one[0]), footnote=sources.number(one[1])) if one else Entry("") for one in found]

    labels = {one.label for _, one in judged.values()}
    lines = [
        Line(
            one.title,
            _entries(one_task, names, others) + beside(name),
            _set_words(one, one_task.label if len(labels) > 1 else ""),
            "; ".join(one.problems),
        )
        for name, (one, one_task) in judged.items()
    ]
    for group, size in GROUP_SIZES.items():
        count = sum(one.group == group for one, _ in judged.values())
        if count or group in means:
            lines.append(_mean_line(means.get(group), group, size, count, names, others, beside))
    spans = [("measured here", len(names), False)]
    if others:
        spans.append((f"{results.model} minus", len(others), False))
    if published:
        spans.append(("published by others", len(published), True))
    columns = [Column(name) for name in names] + [Column(name) for name in others]
    columns += [Column(name, published=True) for name in published]
    rows = [row for _, one in judged.values() for row in one.rows.values()]
    label = labels.pop() if len(labels) == 1 else ""
    words = (
        (f"{label[:1].upper()}{label[1:]}." if label else "", True),
        ("In percent.", True),
        (INTERVALS, any(row.score.low is not None for row in rows)),
        (SEEDS.format(max((row.seeds for row in rows), default=0)), any(row.std is not None for row in rows)),
        (DIFFERENCES, bool(others)),
        (BEST, len(names) > 1),
        (PUBLISHED_WORDS, bool(published)),
    )
    caption = " ".join(part for part, said in words if part and said)
    return Grid(task_title(task), caption, "Set", columns, lines, spans if len(spans) > 1 else [], sources.known)


def _set_words(one: JudgedSet, label: str) -> str:
    words = [METRICS.get(one.metric, one.metric), f"{one.samples:,} pictures"]
    words += [f"{one.classes:,} classes"] if one.classes else []
    return ", ".join([*words, *([label] if label else [])])


def _entries(task: Task, names: list[str], others: list[str]) -> list[Entry]:
    rows = [task.rows.get(name) for name in names]
    best = best_of(row.score if row else None for row in rows)
    return [row_entry(row, best) for row in rows] + [difference_entry(task.differences.get(name)) for name in others]


def row_entry(row: Row | None, best: float | None) -> Entry:
    """A mean over seeds says so instead of an interval."""
    if row is None:
        return Entry()
    entry = score_entry(row.score, best=is_best(row.score, best))
    if row.seeds < 2 or row.std is None:
        return entry
    spread = f"± {row.std:.1f}"
    return Entry(entry.text, f"{spread} {interval_text(row.score)}".strip(), entry.best)


def _mean_line(mean: Mean | None, group: str, size: int, count: int, names: list[str], others: list[str],
               beside: object) -> Line:  # fmt: skip
    title = f"Mean of {GROUP_TITLES[group]}"
    if mean is None:
        return Line(title, [], f"{count} of {size} sets: a mean is given of all of them only", strong=True)
    best = best_of(mean.rows.get(name) for name in names)
    entries = [score_entry(mean.rows.get(name), best=is_best(mean.rows.get(name), best)) for name in names]
    entries += [difference_entry(mean.differences.get(name)) for name in others]
    assert callable(beside)
    return Line(title, entries + beside(group), f"{mean.sets} sets", strong=True)


def set_bars(results: Judgement, task: str) -> list[SetBars]:
    """Horizontal bars of every set, in the table's order, the models in the order of the page."""
    numbers = results.numbers()
    found = []
    for one, one_task in results.sets_of(task).values():
        rows = [(name, one_task.rows[name]) for name in results.names() if name in one_task.rows]
        found.append(SetBars(one.title, [model_bar(name, numbers[name], row) for name, row in rows]))
    return found


def model_bar(label: str, number: int, row: Row) -> ModelBar:
    """Clamped to the track."""
    ends = [None if end is None else clamped(end) for end in (row.score.low, row.score.high)]
    return ModelBar(label, number, percent_text(row.score.value), clamped(row.score.value), *ends)


def clamped(percent: float) -> float:
    """Into 0..100."""
    return min(100.0, max(0.0, percent))

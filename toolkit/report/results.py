"""From the evaluation to words: the headline, the cards, the tables, and report.json."""

from dataclasses import dataclass
from statistics import median
from typing import Any

from toolkit.report.run_files import Points, RunFiles
from toolkit.report.wording import (
    DASH,
    FRACTIONS,
    count_text,
    duration_text,
    is_number,
    metric_label,
    metric_text,
    plain_text,
    share_text,
)

ROW_ORDER = ("student", "teacher", "untrained")
HEADLINE_METRIC = {"classification": "top1", "retrieval": "image_to_text_r1"}
METRIC_ORDER = ("top1", "top5", "seen_top1", "unseen_top1", "seen_top5", "unseen_top5")
RELATIVE = ("agreement_top1", "mean_cosine")
"""Metrics that already compare with the teacher: no share of the teacher, and no best among rows."""


@dataclass(frozen=True)
class Card:
    """A number that stands alone, with what it is above and a remark below."""

    label: str
    value: str
    remark: str = ""


@dataclass(frozen=True)
class Bar:
    """One row of the bars under the headline; `percent` is its length."""

    name: str
    text: str
    percent: float


@dataclass(frozen=True)
class Cell:
    """One value of a table."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """One evaluation set: metrics downwards, student, teacher and untrained across."""

    name: str
    caption: str
    columns: list[str]
    rows: list[tuple[str, list[Cell], str]]
    """label, one cell per column, the student as percent of the teacher"""

    @property
    def share_after(self) -> int:
        """How many columns stand before the share; 0, so no such column, unless student and teacher were evaluated."""
        return 2 if self.columns[:2] == ["student", "teacher"] else 0


def main_set(run: RunFiles) -> tuple[str, str, dict[str, dict[str, float]]] | None:
    """Name, headline metric and rows of the first classification set, else of the first set that has the metric."""
    sets = run.evaluation["sets"] if run.evaluation else {}
    ordered = sorted(sets.items(), key=lambda item: item[1].get("kind") != "classification")
    for name, entry in ordered:
        metric = HEADLINE_METRIC.get(entry.get("kind", ""))
        if metric and any(metric in row for row in entry["rows"].values()):
            return name, metric, entry["rows"]
    return None


def image_params(run: RunFiles, side: str) -> int | None:
    """Parameters of the image tower of 'student' or 'teacher', from run.json."""
    count = (run.facts.get(side) or {}).get("image_params") if isinstance(run.facts.get(side), dict) else None
    return count if is_number(count) else None


def headline(run: RunFiles) -> str:
    """The key result as one sentence; says so where the run has not been evaluated."""
    size = share_text(image_params(run, "student"), image_params(run, "teacher"))
    main = main_set(run)
    if main is None:
        return f"This run has not been evaluated. {training_state(run)}"
    name, metric, rows = main
    student, teacher = (rows.get(side, {}).get(metric) for side in ("student", "teacher"))
    what = "top-1" if metric == "top1" else metric_label(metric)
    kept = share_text(student, teacher)
    if kept != DASH:
        whose = "the teacher’s" if size == DASH else "its"
        start = "The student" if size == DASH else f"The student has {size} of the teacher’s image parameters and"
        values = f"{metric_text(metric, student)} of {metric_text(metric, teacher)}"
        return f"{start} keeps {kept} of {whose} {what} on {name} ({values})."
    return f"The student reaches {metric_text(metric, student)} {what} on {name}; the teacher’s value is not known."


def training_state(run: RunFiles) -> str:
    """How far training came, in one sentence."""
    step, asked = last_step(run), run.config.get("steps")
    if step is None:
        return "No training step has been logged."
    return f"It has logged step {step:,}{f' of {asked:,}' if isinstance(asked, int) else ''}."


def last_step(run: RunFiles) -> int | None:
    """The last step of any metric."""
    return max((points[-1][0] for points in run.series.values()), default=None)


def bars(run: RunFiles) -> tuple[str, list[Bar]]:
    """Caption and bars of the headline metric; no bars without an evaluation."""
    main = main_set(run)
    if main is None:
        return "", []
    name, metric, rows = main
    known = [(row, rows[row][metric]) for row in row_names(rows) if metric in rows[row]]
    caption = f"{metric_label(metric)} on {name}, percent"
    return caption, [Bar(row, metric_text(metric, value), min(100.0, max(0.0, value))) for row, value in known]


def cards(run: RunFiles) -> list[Card]:
    """The numbers a reader looks for first; only those that are known."""
    found: list[Card] = []
    student, teacher = image_params(run, "student"), image_params(run, "teacher")
    if student is not None:
        remark = f"{share_text(student, teacher)} of the teacher’s {count_text(teacher)}" if teacher else ""
        found.append(Card("Student image parameters", count_text(student), remark))
    main = main_set(run)
    rows = main[2] if main else {}
    ours, theirs = rows.get("student", {}), rows.get("teacher", {})
    for metric in (main[1] if main else "top1", "unseen_top1"):
        if metric in ours:
            share = share_text(ours[metric], theirs.get(metric))
            remark = f"{share} of the teacher’s {metric_text(metric, theirs[metric])}" if share != DASH else ""
            found.append(Card(metric_label(metric), f"{metric_text(metric, ours[metric])}\u00a0%", remark))
    if "agreement_top1" in ours:
        remark = f"mean cosine {metric_text('mean_cosine', ours['mean_cosine'])}" if "mean_cosine" in ours else ""
        found.append(Card(metric_label("agreement_top1"), f"{ours['agreement_top1']:.1f}\u00a0%", remark))
    return found + _training_cards(run)


def _training_cards(run: RunFiles) -> list[Card]:
    found = []
    step, asked = last_step(run), run.config.get("steps")
    if step is not None:
        seconds = _last(run.series.get("time/elapsed_seconds"))
        remark = f"in {duration_text(seconds)}" if seconds is not None else ""
        found.append(Card("Steps trained", f"{step:,}", f"of {asked:,} {remark}" if isinstance(asked, int) else remark))
    speed = run.series.get("speed/images_per_second")
    if speed:
        wait = run.series.get("data/wait_fraction")
        remark = f"{100 * median(value for _, value in wait):.1f}\u00a0% of the time waiting for data" if wait else ""
        images = f"{median(value for _, value in speed):,.0f}"
        found.append(Card("Images per second", images, f"median; {remark}" if remark else "median"))
    skipped = _last(run.series.get("data/skipped_decode"))
    if skipped:
        found.append(Card("Samples skipped", count_text(skipped), "could not be decoded"))
    return found


def _last(points: Points | None) -> float | None:
    return points[-1][1] if points else None


def row_names(rows: dict[str, Any]) -> list[str]:
    """Student, teacher, untrained, then whatever else was evaluated."""
    return [name for name in ROW_ORDER if name in rows] + [name for name in rows if name not in ROW_ORDER]


def tables(run: RunFiles) -> list[Table]:
    """One table per evaluation set, in the order of evaluation.json."""
    return [_table(name, entry) for name, entry in (run.evaluation["sets"] if run.evaluation else {}).items()]


def _table(name: str, entry: dict[str, Any]) -> Table:
    rows: dict[str, dict[str, float]] = entry["rows"]
    columns = row_names(rows)
    metrics = list(dict.fromkeys(metric for row in rows.values() for metric in row))
    metrics.sort(key=lambda metric: METRIC_ORDER.index(metric) if metric in METRIC_ORDER else len(METRIC_ORDER))
    lines = []
    for metric in metrics:
        values = [rows[column].get(metric) for column in columns]
        known = [value for value in values if value is not None]
        ranked = len(known) > 1 and metric not in RELATIVE
        cells = [Cell(metric_text(metric, value), ranked and value == max(known)) for value in values]
        student, teacher = (rows.get(side, {}).get(metric) for side in ("student", "teacher"))
        share = DASH if metric in RELATIVE else share_text(student, teacher)
        label = metric_label(metric) + (" (0 to 1)" if metric.endswith(FRACTIONS) else "")
        lines.append((label, cells, share))
    sizes = [f"{plain_text(entry[key])} {key}" for key in ("classes", "samples") if key in entry]
    caption = ", ".join([plain_text(entry.get("kind")).capitalize(), *sizes]) + ". In percent; ★ is the best."
    return Table(name, caption, columns, lines)


def report_json(run: RunFiles) -> dict[str, Any]:
    """What other programs read: the first classification set's metrics per row, and all sets as they were evaluated."""
    evaluation = run.evaluation or {}
    sets = evaluation.get("sets", {})
    classified = [entry["rows"] for entry in sets.values() if entry.get("kind") == "classification"]
    first: dict[str, dict[str, Any]] = classified[0] if classified else {}
    sides = {side: {**first.get(side, {})} for side in ("teacher", "student", "untrained")}
    for side in ("teacher", "student"):
        sides[side]["image_params"] = image_params(run, side)
    return {**sides, "seconds": evaluation.get("seconds"), "units": "percent", "sets": sets}

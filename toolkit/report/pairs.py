"""Tables of retrieval and of compositionality."""

from toolkit.report.grids import Column, Grid, Line, best_of, is_best, score_entry
from toolkit.report.judged import Interval, Judgement, Pairs
from toolkit.report.wording import metric_label

PART = "part: "


def retrieval_grids(results: Judgement) -> list[Grid]:
    """One per set: recalls downwards, models across."""
    return [
        _grid(results, one, f"{one.samples:,} pictures" + (f", {one.captions:,} captions" if one.captions else ""))
        for one in results.retrieval.values()
    ]


def compositionality_grids(results: Judgement) -> list[Grid]:
    """One per set: the whole, then its parts."""
    return [_grid(results, one, f"{one.samples:,} questions") for one in results.compositionality.values()]


def _grid(results: Judgement, one: Pairs, size: str) -> Grid:
    names = [name for name in results.names() if name in one.rows]
    metrics = list(dict.fromkeys(metric for row in one.rows.values() for metric in row))
    lines = []
    for metric in metrics:
        values = [one.rows[name].get(metric) for name in names]
        scores = [None if value is None else Interval(value) for value in values]
        best = best_of(scores) if one.ranked else None
        label = metric.removeprefix(PART).replace("_", " ") if metric.startswith(PART) else metric_label(metric)
        entries = [score_entry(score, best=is_best(score, best)) for score in scores]
        lines.append(Line(label, entries, strong=metric == "accuracy"))
    words = [f"{size}. In percent, without intervals."]
    if not one.pictures:
        words.append("Judged on the sentences alone, without their pictures.")
    words += [f"{problem}." for problem in one.problems]
    return Grid(one.title, " ".join(words), "Metric", [Column(name) for name in names], lines)

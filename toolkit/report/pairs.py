"""Tables of retrieval and of compositionality."""

from toolkit.report.grids import Column, Entry, Grid, Line, best_of, is_best, score_entry
from toolkit.report.judged import PART, TEXT_ONLY, Interval, Judgement, Pairs
from toolkit.report.wording import FRACTIONS, metric_label, metric_text

ABOUT_TEXTS = (
    "Texts alone are no score: the mean cosine of a caption and its hard negative (1: nobody can tell them apart), the percent of "
    "pairs with one embedding, and the percent of captions nearer to another sentence than to their negative."
)


def retrieval_grids(results: Judgement) -> list[Grid]:
    """One per set: recalls downwards, models across."""
    return [
        _grid(results, one, f"{one.samples:,} pictures" + (f", {one.captions:,} captions" if one.captions else ""))
        for one in results.retrieval.values()
    ]


def compositionality_grids(results: Judgement) -> list[Grid]:
    """One per set: the whole, its parts, and what texts alone say."""
    return [_grid(results, one, f"{one.samples:,} questions") for one in results.compositionality.values()]


def _grid(results: Judgement, one: Pairs, size: str) -> Grid:
    names = [name for name in one.rows if name not in results.models]  # a baseline that is no model comes last
    names = [name for name in results.names() if name in one.rows and name not in names] + names
    metrics = list(dict.fromkeys(metric for row in one.rows.values() for metric in row))
    lines = []
    for metric in metrics:
        scores = [one.rows[name].get(metric) for name in names]
        best = best_of(scores) if one.ranked and not metric.startswith(TEXT_ONLY) else None
        entries = [_entry(metric, score, best) for score in scores]
        lines.append(Line(_label(metric), entries, strong=metric == "accuracy"))
    words = [f"{size}. In percent{_intervals(one)}."]
    if not one.pictures:
        words.append("Judged on the sentences alone, without their pictures: there is no accuracy.")
    if any(metric.startswith(TEXT_ONLY) for metric in metrics):
        words.append(ABOUT_TEXTS)
    return Grid(one.title, " ".join(words), "Metric", [Column(name) for name in names], lines, notes=one.problems)


def _label(metric: str) -> str:
    if metric.startswith(PART):
        return metric.removeprefix(PART).replace("_", " ")
    if metric.startswith(TEXT_ONLY):
        return f"Texts alone: {metric.removeprefix(TEXT_ONLY).replace('_', ' ')}"
    return metric_label(metric)


def _entry(metric: str, score: Interval | None, best: float | None) -> Entry:
    if score is not None and metric.endswith(FRACTIONS):
        return Entry(metric_text(metric, score.value))
    return score_entry(score, best=is_best(score, best))


def _intervals(one: Pairs) -> str:
    known = any(score.low is not None for row in one.rows.values() for score in row.values())
    return "; intervals are 95\u00a0% bootstrap over pictures" if known else ", without intervals"

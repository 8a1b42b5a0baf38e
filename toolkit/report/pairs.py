"""Tables of retrieval and of compositionality."""

from toolkit.report.grids import Column, Entry, Grid, Line, best_of, is_best, percent_text, score_entry
from toolkit.report.judged import Judgement, Pairs
from toolkit.report.read_judged import PART
from toolkit.report.wording import FRACTIONS, metric_label, metric_text

INTERVALS = "In brackets: 95\u00a0% bootstrap intervals over pictures, where there are some."
TEXT_ONLY = (
    "Of the text tower alone, without pictures: no score. Mean cosine of a caption and its hard negative; share of pairs that have "
    "one embedding (indistinguishable: wrong with any picture); share of captions that are nearer to another sentence than to their "
    "hard negative (told apart). In percent but for the cosine."
)


def retrieval_grids(results: Judgement) -> list[Grid]:
    """One per set: recalls downwards, models across."""
    return [
        _grid(results, one, f"{one.samples:,} pictures" + (f", {one.captions:,} captions" if one.captions else ""))
        for one in results.retrieval.values()
    ]


def compositionality_grids(results: Judgement) -> list[Grid]:
    """Up to two per set: accuracy and its parts where there are pictures; what the text tower shows by itself."""
    grids = []
    for one in results.compositionality.values():
        size = f"{one.samples:,} questions"
        grids += [_grid(results, one, size)] if one.rows else []
        grids += [_text_grid(results, one, size)] if one.text_only else []
    return grids


def _grid(results: Judgement, one: Pairs, size: str) -> Grid:
    names = [name for name in results.names() if name in one.rows]
    metrics = list(dict.fromkeys(metric for row in one.rows.values() for metric in row))
    lines = []
    for metric in metrics:
        scores = [one.rows[name].get(metric) for name in names]
        best = best_of(scores) if one.ranked else None
        entries = [score_entry(score, best=is_best(score, best)) for score in scores]
        lines.append(Line(_label(metric), entries, strong=metric == "accuracy"))
    with_ends = any(score.low is not None for row in one.rows.values() for score in row.values())
    words = [f"{size}. In percent.", INTERVALS if with_ends else "Without intervals."]
    words += [] if one.pictures else ["Judged on the sentences alone, without their pictures."]
    return Grid(one.title, " ".join(words), "Metric", [Column(name) for name in names], lines, notes=one.problems)


def _text_grid(results: Judgement, one: Pairs, size: str) -> Grid:
    known = results.names()
    names = [name for name in known if name in one.text_only] + [name for name in one.text_only if name not in known]
    metrics = list(dict.fromkeys(metric for row in one.text_only.values() for metric in row))
    lines = [
        Line(_plain(metric), [_text_entry(metric, one.text_only[name].get(metric)) for name in names])
        for metric in metrics
    ]
    notes = [] if one.rows else one.problems
    title = f"{one.title}: sentences alone"
    return Grid(title, f"{size}. {TEXT_ONLY}", "Metric", [Column(name) for name in names], lines, notes=notes)


def _label(metric: str) -> str:
    """'add att, mean cosine' of a part."""
    return _plain(metric) if metric.startswith(PART) else metric_label(metric)


def _plain(metric: str) -> str:
    words = metric.removeprefix(PART).replace("_", " ")
    return words if metric.startswith(PART) else words.capitalize()


def _text_entry(metric: str, value: float | None) -> Entry:
    if value is None:
        return Entry()
    return Entry(metric_text(metric, value) if metric.endswith(FRACTIONS) else percent_text(value))

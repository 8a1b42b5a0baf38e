"""What else is known of each row: top-5, agreement with the teacher, and how a probe was trained."""

from collections.abc import Callable

from toolkit.report.grids import Column, Entry, Grid, Line, percent_text
from toolkit.report.judged import Judgement
from toolkit.report.wording import count_text, duration_text


def fraction_text(value: float) -> str:
    """Three decimals."""
    return f"{value:.3f}"


def small_text(value: float) -> str:
    """As one writes a learning rate."""
    return f"{value:.3g}"


DETAILS: dict[str, tuple[str, Callable[[float], str]]] = {
    "top5": ("top-5", percent_text),
    "agreement_top1": ("same top-1 as the teacher", percent_text),
    "mean_cosine": ("mean cosine to the teacher", fraction_text),
    "validation": ("on its validation part", percent_text),
    "learning_rate": ("learning rate", small_text),
    "weight_decay": ("weight decay", small_text),
    "epoch": ("epoch", small_text),
    "trained_params": ("trained parameters", count_text),
    "seconds": ("time", duration_text),
}
"""Key of a row -> its words, and how a value is written."""


def detail_grid(results: Judgement, task: str) -> Grid | None:
    """Sets downwards; per detail a column for each model that has it; None where there are none."""
    judged = results.sets_of(task)
    chosen = [
        (key, name)
        for key in DETAILS
        for name in results.names()
        if any(name in one.rows and key in one.rows[name].more for _, one in judged.values())
    ]
    if not chosen:
        return None
    lines = []
    for one, judged_task in judged.values():
        values = [judged_task.rows[name].more.get(key) if name in judged_task.rows else None for key, name in chosen]
        texts = [
            None if value is None else DETAILS[key][1](value) for value, (key, _) in zip(values, chosen, strict=True)
        ]
        lines.append(Line(one.title, [Entry() if text is None else Entry(text) for text in texts]))
    keys = list(dict.fromkeys(key for key, _ in chosen))
    spans = [(DETAILS[key][0], sum(other == key for other, _ in chosen), False) for key in keys]
    caption = "Percents as above; a cosine is between -1 and 1."
    return Grid("More numbers", caption, "Set", [Column(name) for _, name in chosen], lines, spans)

"""Reliability diagrams: how often a model is right when it is so sure."""

from typing import TYPE_CHECKING

from toolkit.report.grids import Column, Entry, Grid, Line, percent_text
from toolkit.report.judged import Judgement, Row, task_order, task_title
from toolkit.report.lines import COLOURS, style
from toolkit.report.plots import RULE, Key, Plot, figure_as_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORDS = (
    "Above: the share of pictures a model is right on, by the probability it gives its answer; on the dashed line it is as sure "
    "as it is right, below it too sure. Under it: the share of the pictures in each bin. ECE is the mean distance from the "
    "line, weighted by that share. Empty bins are left out. Zero-shot"
    " probabilities are those at the model's own logit scale."
)


def calibration_plots(results: Judgement) -> list[Plot]:
    """One per set, of its first task that has bins."""
    plots: list[Plot] = []
    for one in results.sets.values():
        for task in sorted(one.tasks, key=task_order):
            judged = one.tasks[task]
            rows = {
                name: judged.rows[name] for name in results.names() if name in judged.rows and judged.rows[name].bins
            }
            if rows:
                title = f"{one.title}, {task_title(task).lower()}"
                plots.append(draw_reliability(f"reliability{len(plots)}", title, rows, results.numbers()))
                break
    return plots


def calibration_grid(results: Judgement) -> Grid | None:
    """The expected calibration error of every set and task; None where none is known."""
    found = [
        (f"{one.title}, {task_title(task).lower()}", judged.rows)
        for task in results.tasks()
        for one, judged in results.sets_of(task).values()
        if any(row.ece is not None for row in judged.rows.values())
    ]
    names = [name for name in results.names() if any(name in rows and rows[name].ece is not None for _, rows in found)]
    if not found:
        return None
    lines = [
        Line(title, [Entry(percent_text(rows[name].ece)) if name in rows else Entry() for name in names])
        for title, rows in found
    ]
    caption = "Expected calibration error in percent, without intervals; lower is better."
    return Grid("Expected calibration error", caption, "Set", [Column(name) for name in names], lines)


def draw_reliability(name: str, title: str, rows: dict[str, Row], numbers: dict[str, int]) -> Plot:
    """Rows have bins; confidences and accuracies are fractions, drawn as percent."""

    def paint(figure: "Figure") -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 100], [0, 100], color=RULE, linewidth=1.4, linestyle=(0, (5, 3)))
        for place, (label, row) in enumerate(rows.items()):
            bins = sorted(row.bins, key=lambda one: one.confidence)
            confidences = [100 * one.confidence for one in bins]
            above.plot(
                confidences,
                [100 * one.accuracy for one in bins],
                linewidth=1.8,
                marker="o",
                markersize=4,
                **style(numbers[label]),
            )
            width = 6.0 / len(rows)
            shift = (place - (len(rows) - 1) / 2) * width
            shares = [100 * one.share for one in bins]
            below.bar(
                [x + shift for x in confidences],
                shares,
                width=0.9 * width,
                color=COLOURS[numbers[label] % 6],
                linewidth=0,
            )
        above.set(xlim=(0, 103), ylim=(0, 103), ylabel="right (%)")
        below.set(xlabel="probability of the answer (%)", ylabel="share (%)", ylim=(0, None))
        for axes in (above, below):
            axes.grid(axis="y", linewidth=0.7)
            axes.set_axisbelow(True)
            axes.tick_params(length=0)

    keys = tuple(
        Key(numbers[label], label, "" if row.ece is None else f"ECE {row.ece:.1f}\u00a0%")
        for label, row in rows.items()
    )
    told = "; ".join(f"{key.label} {key.value or 'ECE not known'}" for key in keys)
    return Plot(title, "", f"Reliability on {title}: {told}", figure_as_svg(name, paint, (4.7, 4.0)), keys)

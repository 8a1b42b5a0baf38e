"""Models as points of a plane: accuracy against cost, robustness against ImageNet."""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.report.lines import COLOURS, logarithmic_across
from toolkit.report.plots import PAPER, RULE, TEXT, Key, Plot, figure_as_svg, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE = 5
"""A largest x of more than this times the smallest gets a logarithmic axis."""
OTHERS = 5
"""Ink of what was published by others."""


@dataclass(frozen=True)
class Dot:
    """A model; `number` decides its colour, None for one that others published (hollow)."""

    label: str
    x: float
    y: float
    number: int | None = None


def draw_dots(name: str, title: str, remark: str, dots: Sequence[Dot], *, across: str, up: str,
              diagonal: bool = False, logarithmic: bool = False) -> Plot:  # fmt: skip
    """Each point carries a letter, which the keys explain. `diagonal` draws y = x over equal axes."""
    marks = dict(zip(range(len(dots)), string.ascii_uppercase + string.ascii_lowercase, strict=False))
    xs, ys = [dot.x for dot in dots], [dot.y for dot in dots]
    logarithmic = logarithmic and min(xs) > 0 and max(xs) > WIDE * min(xs)

    def paint(figure: "Figure") -> None:
        from matplotlib.ticker import MaxNLocator

        axes = figure.add_subplot()
        axes.grid(linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        if logarithmic:
            logarithmic_across(axes, across)
            axes.set_xlim(min(xs) / 1.6, max(xs) * 1.9)
        else:
            margin = 0.12 * (max(xs) - min(xs)) or 0.1 * abs(max(xs)) or 1
            axes.set_xlim(min(xs) - margin, max(xs) + 1.5 * margin)
        axes.set(xlabel=across, ylabel=up)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        low, high = _limits([*xs, *ys] if diagonal else ys)
        axes.set_ylim(low, high)
        if diagonal:
            axes.set_xlim(low, high)
            axes.plot([low, high], [low, high], color=RULE, linewidth=1.4, linestyle=(0, (5, 3)))
        for place, dot in enumerate(dots):
            colour = TEXT if dot.number is None else COLOURS[dot.number % 6]
            shape, inside = ("D", PAPER) if dot.number is None else ("o", colour)
            axes.plot([dot.x], [dot.y], shape, color=colour, markerfacecolor=inside, markersize=8, zorder=3)
            axes.annotate(
                marks.get(place, ""), (dot.x, dot.y), (7, 4), textcoords="offset points", color=colour, zorder=4
            )

    keys = tuple(
        Key(
            OTHERS if dot.number is None else dot.number,
            dot.label,
            f"{short(dot.x)} → {dot.y:.1f}",
            marks.get(place, "·"),
        )
        for place, dot in enumerate(dots)
    )
    places = "; ".join(f"{dot.label} at {short(dot.x)} and {dot.y:.1f}" for dot in dots)
    return Plot(title, remark, f"{title}: {places}", figure_as_svg(name, paint, (4.7, 3.6)), keys)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Percents with some room, within 0..100 and at least ten points apart."""
    low, high = min(values), max(values)
    room = max(3.0, 0.12 * (high - low), (10 - (high - low)) / 2)
    return max(0.0, low - room), min(104.0, high + room)

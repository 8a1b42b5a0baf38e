"""Several curves in one plot, told apart by colour and dashes; also over a logarithmic axis that is not the step."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.report.plots import LINES, PAPER, TEXT, Key, Plot, as_svg, axis, bins_of, means_of, short
from toolkit.report.run_files import Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES: tuple[Any, ...] = ("solid", (0, (5, 2.5)), (0, (1.2, 1.8)))
"""As figure.html names them: solid, dashed, dotted."""
COLOURS = tuple(LINES)
Dots = Sequence[tuple[float, float]]


def style(number: int) -> dict[str, Any]:
    """Colour and dashes of line `number`, alike only after 18 of them."""
    return {"color": COLOURS[number % 6], "linestyle": DASHES[(number + number // 6) % 3]}


def draw_lines(
    name: str, title: str, remark: str, lines: Mapping[str, Points], *, numbers: Mapping[str, int], unit: str = "",
    top: float | None = None, zero: bool = True,
) -> Plot:  # fmt: skip
    """Series over steps by label, from 0 (unless `zero` is false) up to `top`. `name` makes the ids unique in the page.

    `numbers` decide the colours, so that a label has the same one in several plots.
    """
    finite = {
        label: [(step, value) for step, value in points if math.isfinite(value)] for label, points in lines.items()
    }
    lost = sum(map(len, lines.values())) - sum(map(len, finite.values()))
    if lost:
        remark += f" {lost} non-finite value{'s' if lost > 1 else ''} not drawn."
    keys = [
        Key(numbers[label], label, f"{short(points[-1][1])}{unit}" if points else "no finite value")
        for label, points in finite.items()
    ]

    def paint(axes: "Axes") -> None:
        for label, points in finite.items():
            bins = bins_of(points)
            marker: dict[str, Any] = {"marker": "o", "markersize": 4} if len(bins) <= 25 else {}
            axes.plot(*means_of(bins), linewidth=1.8, **style(numbers[label]), **marker)
        axis(axes, zero=zero, logarithmic=False)
        if top is not None:
            axes.set_ylim(0, top)

    journeys = [
        f"{key.label} from {short(points[0][1])}{unit} at step {points[0][0]} to {key.value} at step {points[-1][0]}"
        if points
        else f"{key.label} without a finite value"
        for key, points in zip(keys, finite.values(), strict=True)
    ]
    return Plot(title, remark, f"{title}: {'; '.join(journeys)}", as_svg(name, paint), tuple(keys))


def draw_sweep(
    name: str, title: str, remark: str, lines: Mapping[str, Dots], *, across: str, level: float | None = None,
    filled: Mapping[str, Dots] = {}, hollow: Mapping[str, Dots] = {},
) -> Plot:  # fmt: skip
    """Curves by label over a positive quantity on a logarithmic axis. `level` is a dashed line across.

    `filled` and `hollow` are points to mark, by the label of their curve. Labels are told by `keys`, `across` is drawn.
    """
    numbers = {label: number for number, label in enumerate(lines)}

    over: dict[str, Any] = {"markersize": 8, "zorder": 3, "clip_on": False}

    def paint(axes: "Axes") -> None:
        if level is not None:
            axes.axhline(level, color=TEXT, linestyle=(0, (5, 3)), linewidth=1.2)
        for label, dots in lines.items():
            axes.plot(*zip(*dots, strict=True), linewidth=1.8, **style(numbers[label]))
        for chosen, shape, inside in ((filled, "o", None), (hollow, "D", PAPER)):
            for label, dots in chosen.items():
                colour = COLOURS[numbers[label] % 6]
                for x, y in dots:
                    axes.plot([x], [y], shape, color=colour, markerfacecolor=inside or colour, **over)
        axis(axes, zero=True, logarithmic=False)
        logarithmic_across(axes, across)

    low, high = ([f"{label} {short(dots[end][1])}" for label, dots in lines.items()] for end in (0, -1))
    first = next(iter(lines.values()))
    alt = f"{title}: at {first[0][0]:g} {', '.join(low)}; at {first[-1][0]:g} {', '.join(high)}"
    return Plot(title, remark, alt, as_svg(name, paint), tuple(Key(number, label) for label, number in numbers.items()))


def logarithmic_across(axes: "Axes", label: str) -> None:
    """Ticks at 1 and 3 of each decade, written plainly."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())

"""Curves as inline SVG that takes its colours from the page, so that one drawing serves light and dark."""

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from toolkit.report.run_files import Points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = {
    "#010203": "var(--muted)",
    "#010204": "var(--rule)",
    "#010205": "var(--student)",
    "#010206": "var(--teacher)",
    "#010207": "var(--paper)",
}
"""Colours that matplotlib writes -> what stands in the page."""
TEXT, RULE, STUDENT, TEACHER, PAPER = INK
LINES = {f"#0103{number:02x}": f"var(--line{number})" for number in range(6)}
"""The same for the lines of a plot that has several, in the order of the style sheet."""
LOG_FROM_RANGE = 20
"""A positive series whose largest value is more than this times its smallest gets a logarithmic axis."""
MOST_POINTS = 240
"""Longer series are drawn as the mean of consecutive points with a band from the smallest to the largest."""
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 11,
    "text.parse_math": False,
    "axes.edgecolor": RULE,
    "axes.labelcolor": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 5),
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "grid.color": RULE,
}


@dataclass(frozen=True)
class Key:
    """One line of a plot that has several: its number, which decides colour and dashes, and its words."""

    number: int
    label: str
    value: str = ""
    mark: str = ""
    """Letter that stands beside its point, in a plot of points."""


@dataclass(frozen=True)
class Plot:
    """A curve with its words; `alt` says what a reader who cannot see it would miss."""

    title: str
    remark: str
    alt: str
    svg: Markup
    keys: tuple[Key, ...] = ()
    """Of the lines, where there are several; they stand beside the drawing, which holds numbers only."""


def draw(name: str, title: str, points: Points, *, teacher: float | None = None, zero: bool = False,
         unit: str = "", log: bool = True) -> Plot:  # fmt: skip
    """One series over steps. `name` makes the ids unique in the page; `teacher` is a dashed line across.

    `zero` starts the axis at 0; `log` allows a logarithmic axis (taken when the range asks for it).
    """
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    logarithmic = log and not zero and _wide([value for _, value in finite])
    remarks = [] if not finite else [f"{short(finite[-1][1])}{unit} at step {finite[-1][0]:,}"]
    if teacher is not None:
        remarks.append(f"teacher {short(teacher)}{unit} (dashed)")
    if logarithmic:
        remarks.append("logarithmic")
    lost = len(points) - len(finite)
    if lost:
        remarks.append(f"{lost} non-finite value{'s' if lost > 1 else ''} not drawn")
    alt = f"{title}: {_journey(finite, unit)}" + (f"; teacher {short(teacher)}{unit}" if teacher is not None else "")
    return Plot(title, ", ".join(remarks), alt, _svg(name, finite, teacher, zero, logarithmic))


def _journey(finite: Points, unit: str) -> str:
    if not finite:
        return "no finite value"
    (first_step, first), (last_step, last) = finite[0], finite[-1]
    low, high = min(value for _, value in finite), max(value for _, value in finite)
    return (
        f"{short(first)}{unit} at step {first_step}, {short(last)}{unit} at step {last_step}, "
        f"between {short(low)} and {short(high)}"
    )


def short(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _wide(values: list[float]) -> bool:
    return len(values) > 1 and min(values) > 0 and max(values) > LOG_FROM_RANGE * min(values)


def bins_of(finite: Points) -> list[Points]:
    """Consecutive points, at most MOST_POINTS groups of them."""
    size = max(1, math.ceil(len(finite) / MOST_POINTS))
    return [finite[start : start + size] for start in range(0, len(finite), size)]


def means_of(bins: list[Points]) -> tuple[list[float], list[float]]:
    """Mean step and mean value of each."""
    steps, values = ([sum(point[k] for point in part) / len(part) for part in bins] for k in (0, 1))
    return steps, values


def _svg(name: str, finite: Points, teacher: float | None, zero: bool, logarithmic: bool) -> Markup:
    def paint(axes: "Axes") -> None:
        _curve(axes, finite)
        if teacher is not None:
            axes.axhline(teacher, color=TEACHER, linestyle=(0, (5, 3)), linewidth=1.8)
        axis(axes, zero, logarithmic)

    return as_svg(name, paint)


def as_svg(name: str, paint: Callable[["Axes"], None]) -> Markup:
    """What `paint` draws; it may draw no text but numbers and words of its own, since nothing is escaped."""
    return figure_as_svg(name, lambda figure: paint(figure.add_subplot()))


def figure_as_svg(name: str, paint: Callable[["Figure"], None], size: tuple[float, float] = (4.7, 2.7)) -> Markup:
    """The same for a figure of several axes or of another size in inches; the page draws 72 pixels per inch or fewer."""
    import matplotlib  # half a second: only when something is drawn
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=size, dpi=72, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        target = io.StringIO()
        figure.savefig(target, format="svg", transparent=True)
    return Markup(for_page(target.getvalue(), name))


def _curve(axes: "Axes", finite: Points) -> None:
    bins = bins_of(finite)
    steps, means = means_of(bins)
    if len(bins) < len(finite):
        lows, highs = ([pick(value for _, value in part) for part in bins] for pick in (min, max))
        axes.fill_between(steps, lows, highs, color=STUDENT, alpha=0.2, linewidth=0)
    marker: dict[str, Any] = {"marker": "o", "markersize": 4.5} if len(bins) <= 25 else {}
    axes.plot(steps, means, color=STUDENT, linewidth=1.8, **marker)


def axis(axes: "Axes", zero: bool, logarithmic: bool) -> None:
    """Steps across; a quiet grid."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    axes.set_xlabel("step")
    axes.grid(axis="y", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 2.5, 5, 10]))
    if logarithmic:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        subs = (1.0, 2.0, 5.0) if high < 300 * low else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=7))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
        return
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if zero:
        axes.set_ylim(bottom=0)


def for_page(svg: str, name: str) -> str:
    """The bare <svg> without what names hosts (prolog, metadata, namespaces), with its own ids and the page's font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'<svg([^>]*?) width="[^"]*"', r"<svg\1", svg, count=1)
    svg = re.sub(r'<svg([^>]*?) height="[^"]*"', r"<svg\1", svg, count=1)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for drawn, wanted in (INK | LINES).items():
        svg = svg.replace(drawn, wanted)
    return re.sub(r">\s+<", "><", svg).replace("<svg", '<svg aria-hidden="true"', 1)

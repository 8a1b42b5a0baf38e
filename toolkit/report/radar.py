"""A radar of sets: one spoke per set, one outline per model."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.report.lines import style
from toolkit.report.plots import RULE, TEXT, Key, Plot, figure_as_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST_SPOKES = 4
"""With fewer, bars say more."""
LONGEST_NAME = 16
RINGS = (20, 40, 60, 80, 100)
LETTER = 0.0277
"""Width of a letter of a name, as a part of half a side of the drawing."""


def draw_radar(name: str, title: str, remark: str, spokes: Sequence[str],
               outlines: Mapping[str, Sequence[float | None]], numbers: Mapping[str, int]) -> Plot:  # fmt: skip
    """Percents per spoke by model, from 0 in the middle to 100; an outline is open where a value is not there."""
    reach = 1.08 / (
        1 - LETTER * max(len(shortened(spoke)) for spoke in spokes)
    )  # the outermost ring is 1: room for the names
    angles = [math.pi / 2 - 2 * math.pi * number / len(spokes) for number in range(len(spokes))]

    def at(angle: float, radius: float) -> tuple[float, float]:
        return radius * math.cos(angle), radius * math.sin(angle)

    def paint(figure: "Figure") -> None:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_aspect("equal")
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
        for ring in RINGS:
            axes.plot(
                *zip(*[at(angle, ring / 100) for angle in [*angles, angles[0]]], strict=True), color=RULE, linewidth=0.7
            )
        for angle, spoke in zip(angles, spokes, strict=True):
            axes.plot(*zip((0, 0), at(angle, 1.0), strict=True), color=RULE, linewidth=0.7)
            _write(axes, shortened(spoke), *at(angle, 1.06), angle)
        for label, values in outlines.items():
            closed = [*zip(angles, values, strict=True)]
            dots = [
                at(angle, value / 100) if value is not None else (math.nan, math.nan)
                for angle, value in [*closed, closed[0]]
            ]
            look = style(numbers[label])
            axes.plot(*zip(*dots, strict=True), linewidth=1.8, marker="o", markersize=2.5, **look)
            if numbers[label] == 0 and all(value is not None for value in values):
                axes.fill(*zip(*dots, strict=True), color=look["color"], alpha=0.12, linewidth=0)
        for ring in RINGS[:-1]:
            axes.text(0.02, ring / 100, str(ring), fontsize=8, color=TEXT, va="bottom")

    keys = tuple(Key(numbers[label], label) for label in outlines)
    ranges = []
    for label, values in outlines.items():
        known = [(value, spoke) for value, spoke in zip(values, spokes, strict=True) if value is not None]
        if known:
            (low, worst), (high, best) = min(known), max(known)
            ranges.append(f"{label} from {low:.1f} on {worst} to {high:.1f} on {best}")
    alt = f"{title}, {len(spokes)} sets: {'; '.join(ranges)}"
    return Plot(title, remark, alt, figure_as_svg(name, paint, (4.7, 4.7)), keys)


def shortened(name: str) -> str:
    """The full name stands in the table."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1].rstrip(' ,-(')}…"


def _write(axes: Any, text: str, x: float, y: float, angle: float) -> None:
    """Along its spoke, never upside down."""
    degrees = math.degrees(angle)
    flipped = math.cos(angle) < -1e-9
    axes.text(
        x, y, text, fontsize=8.5, color=TEXT, rotation=degrees + 180 if flipped else degrees, rotation_mode="anchor",
        ha="right" if flipped else "left", va="center",
    )  # fmt: skip

"""Tables of models across, with intervals, marks and footnotes: what several sections of a page share."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from toolkit.report.judged import Difference, Interval
from toolkit.report.wording import DASH

MINUS = "\u2212"


@dataclass(frozen=True)
class Entry:
    """One value of a table."""

    text: str = DASH
    small: str = ""
    """Below it: an interval, a spread."""
    best: bool = False
    footnote: int = 0
    """Number of the source below the table, 0 for none."""


@dataclass(frozen=True)
class Column:
    """A head; `published` sets a column apart from what was measured here."""

    label: str
    small: str = ""
    published: bool = False


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    label: str
    entries: list[Entry]
    small: str = ""
    warning: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Grid:
    """A table; `spans` are heads over several columns: words, number of columns, published."""

    title: str
    caption: str
    corner: str
    columns: list[Column]
    lines: list[Line]
    spans: list[tuple[str, int, bool]] = field(default_factory=list)
    footnotes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What to mind, in sentences below the table."""


def percent_text(value: float | None) -> str:
    """One decimal; a true minus sign."""
    return DASH if value is None else f"{value:.1f}".replace("-", MINUS)


def points_text(value: float) -> str:
    """With its sign, also a plus."""
    return f"{value:+.1f}".replace("-", MINUS)


def interval_text(score: Interval, *, signed: bool = False) -> str:
    """'[54.1, 56.3]', nothing where there is no interval."""
    if score.low is None or score.high is None:
        return ""
    low, high = (points_text(end) if signed else percent_text(end) for end in (score.low, score.high))
    return f"[{low}, {high}]"


def p_text(p_value: float | None) -> str:
    """'p = 0.004'; never a p of 0."""
    if p_value is None:
        return ""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def score_entry(score: Interval | None, *, best: bool = False) -> Entry:
    """A measured percent."""
    return Entry() if score is None else Entry(percent_text(score.value), interval_text(score), best)


def difference_entry(difference: Difference | None) -> Entry:
    """Points with interval and p-value."""
    if difference is None:
        return Entry()
    small = "; ".join(
        part for part in (interval_text(difference.score, signed=True), p_text(difference.p_value)) if part
    )
    return Entry(points_text(difference.score.value), small)


def best_of(scores: Iterable[Interval | None]) -> float | None:
    """The highest as it is printed, None where fewer than two are known."""
    known = [round(score.value, 1) for score in scores if score is not None]
    return max(known) if len(known) > 1 else None


def is_best(score: Interval | None, best: float | None) -> bool:
    """Equal to the highest as printed: what reads alike is marked alike."""
    return score is not None and best is not None and round(score.value, 1) == best


def listed(names: Iterable[str]) -> str:
    """'a, b and c'."""
    parts = list(names)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""

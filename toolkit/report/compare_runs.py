"""What several runs did: their own evaluation sets, their curves, and the settings that differ."""

from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.report.compare_files import Compared
from toolkit.report.compare_sets import MARK
from toolkit.report.grids import Column, Entry, Grid, Line, best_of, is_best, listed, score_entry
from toolkit.report.judged import Interval
from toolkit.report.lines import draw_lines
from toolkit.report.plots import Plot
from toolkit.report.results import HEADLINE_METRIC
from toolkit.report.wording import metric_label, plain_text

CURVES = ("train/loss", "eval/", "optim/lr")
"""Beginnings of the series that are drawn over each other."""
NOT_SET = "not set"


def own_sets(compared: Sequence[Compared]) -> Grid | None:
    """The students on the sets that the runs judged themselves; None where no run has."""
    evaluations = {one.name: one.run.evaluation["sets"] for one in compared if one.run and one.run.evaluation}
    names = [*evaluations]
    lines, notes = [], []
    for title in dict.fromkeys(title for sets in evaluations.values() for title in sets):
        entries = {name: sets[title] for name, sets in evaluations.items() if title in sets}
        metric = HEADLINE_METRIC.get(str(next(iter(entries.values())).get("kind")), "top1")
        values = {name: entry["rows"].get("student", {}).get(metric) for name, entry in entries.items()}
        scores = [Interval(float(values[name])) if values.get(name) is not None else None for name in names]
        if any(scores):
            unlike = _unlike(entries)
            best = None if unlike else best_of(scores)
            cells = [score_entry(score, best=is_best(score, best)) for score in scores]
            lines.append(Line(title, cells, metric_label(metric), MARK if unlike else ""))
            notes += [f"{title}: {MARK}: {unlike}."] if unlike else []
    if not lines:
        return None
    caption = "The students after training, in percent, without intervals. A row judged differently has no best."
    return Grid("Own evaluation sets", caption, "Set", [Column(name) for name in names], lines, notes=notes)


def _unlike(entries: Mapping[str, Mapping[str, Any]]) -> str:
    told = []
    for key in ("kind", "samples", "classes"):
        who: dict[str, list[str]] = {}
        for name, entry in entries.items():
            who.setdefault(plain_text(entry.get(key)), []).append(name)
        if len(who) > 1:
            told.append("; ".join(f"{listed(names)} {value} {key}" for value, names in who.items()))
    return ". ".join(told)


def overlaid(compared: Sequence[Compared], numbers: Mapping[str, int]) -> list[Plot]:
    """One plot per metric that two runs or more have logged, a line per run, over steps."""
    found = {
        series
        for one in compared
        for series in one.series
        if series.startswith(CURVES) and sum(series in other.series for other in compared) > 1
    }
    ordered = sorted(
        found, key=lambda name: (next(n for n, start in enumerate(CURVES) if name.startswith(start)), name)
    )
    return [
        draw_lines(
            f"overlaid{place}", series, "", {one.name: one.series[series] for one in compared if series in one.series},
            numbers=numbers, zero=False,
        )
        for place, series in enumerate(ordered)
    ]  # fmt: skip


def flat(config: Any, prefix: str = "") -> dict[str, str]:
    """'optim.lr' -> '0.001': every value of a config as text, an empty section as {}."""
    if not isinstance(config, dict) or not config:
        return {prefix: plain_setting(config)} if prefix else {}
    found: dict[str, str] = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def plain_setting(value: Any) -> str:
    """As one writes it behind `=`, without thousands separators."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def differing_settings(compared: Sequence[Compared]) -> dict[str, dict[str, str]]:
    """Key -> run -> value, of the keys whose values are not the same in all runs; a key that a run lacks is NOT_SET."""
    configs = {one.name: flat(one.config) for one in compared if one.run}
    keys = dict.fromkeys(key for config in configs.values() for key in config)
    table = {key: {name: config.get(key, NOT_SET) for name, config in configs.items()} for key in keys}
    return {key: values for key, values in table.items() if len(set(values.values())) > 1}


def settings_grid(compared: Sequence[Compared]) -> Grid | None:
    """None where fewer than two of them are runs, or nothing differs."""
    settings = differing_settings(compared)
    names = [one.name for one in compared if one.run]
    if not settings or len(names) < 2:
        return None
    lines = [Line(key, [Entry(values[name]) for name in names]) for key, values in settings.items()]
    caption = "Only what differs; all other settings are the same."
    return Grid("Settings that differ", caption, "Setting", [Column(name) for name in names], lines)

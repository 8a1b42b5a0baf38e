"""The doctor's findings for people and for programs."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from toolkit.doctor.check import Context, Row

WORDS = {"good": "good", "warn": "warn", "bad": "BAD"}
COLOURS = {"good": "\033[32m", "warn": "\033[33m", "bad": "\033[31;1m"}
PLAIN = "\033[0m"
WIDEST = {"what": 44, "where": 30, "found": 76, "wanted": 50}
"""Longer entries go on in further lines."""


def as_text(rows: Sequence[Row], *, colour: bool) -> str:
    """A table, what is bad last, so that it stands above the prompt; with what to do below each row that wants something."""
    ordered = sorted(rows, key=lambda row: list(WORDS).index(row.verdict))
    columns = ("check", *WIDEST)
    wrapped = [{name: wrap(getattr(row, name), WIDEST.get(name, 12)) for name in columns} for row in ordered]
    width = {name: max([len(name), *(len(line) for one in wrapped for line in one[name])]) for name in columns}
    head = "      " + "  ".join(f"{name:<{width[name]}}" for name in columns)
    lines = [head.rstrip(), "-" * min(len(head), 200)]
    for row, one in zip(ordered, wrapped, strict=True):
        for number in range(max(len(cells) for cells in one.values())):
            cells = [one[name][number] if number < len(one[name]) else "" for name in columns]
            text = "  ".join(f"{cell:<{width[name]}}" for name, cell in zip(columns, cells, strict=True)).rstrip()
            word = WORDS[row.verdict] if number == 0 else ""
            lines.append(painted(f"{word:<4}  {text}", row.verdict, colour and row.verdict != "good"))
        if row.todo and row.verdict != "good":
            lines += textwrap.wrap(row.todo, 150, initial_indent="      -> ", subsequent_indent="         ")
    return "\n".join(lines)


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width`; a path that is longer is broken."""
    return [line for part in text.splitlines() for line in textwrap.wrap(part, width)] or [""]


def painted(line: str, verdict: str, colour: bool) -> str:
    """In the verdict's colour."""
    return f"{COLOURS[verdict]}{line}{PLAIN}" if colour else line


def summary(rows: Sequence[Row], context: Context, seconds: float, left_out: Sequence[str]) -> str:
    """One sentence."""
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in WORDS}
    hosts = len(set(context.hosts.values()))
    said = (
        f"{counts['bad']} bad, {counts['warn']} to look at, {counts['good']} good; {len(context.hosts)} of {context.world} "
        f"rank{'s' * (context.world > 1)} on {hosts} host{'s' * (hosts > 1)} in {seconds:.0f} s"
    )
    said += f"; left out: {', '.join(left_out)}" if left_out else ""
    return said + (": do not start the run" if counts["bad"] else ": ready")


def as_dict(rows: Sequence[Row], context: Context, seconds: float, left_out: Sequence[str]) -> dict[str, Any]:
    """As JSON has it."""
    verdicts = [row.verdict for row in rows]
    return {
        "verdict": "bad" if "bad" in verdicts else "warn" if "warn" in verdicts else "good",
        "ranks": context.world,
        "hosts": {str(rank): host for rank, host in sorted(context.hosts.items())},
        "seconds": round(seconds, 1),
        "left_out": list(left_out),
        "rows": [asdict(row) for row in rows],
    }

"""results.json as text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def of_set(name: str, found: Mapping[str, Any], main: str) -> str:
    """A line per task and model."""
    head = f"{name}: {found['metric']} on {found['samples']:,} pictures, {found['classes']} classes"
    lines = [head, *(f"  NOT AS THE PROTOCOL: {problem}" for problem in found["problems"])]
    for task, one in found["tasks"].items():
        lines.append(f"  {task} ({one['label']})")
        for who, row in one["rows"].items():
            lines.append(f"    {who:<24} {of_row(row)}")
        for who, gap in one["differences"].items():
            lines.append(f"    {f'{main} - {who}':<24} {of_difference(gap)}")
    return "\n".join(lines)


def of_captions(name: str, found: Mapping[str, Any]) -> str:
    """Of a set for retrieval or compositionality: a line per model."""
    lines = [f"{name}: {found['title']}, {found['samples']:,} {'pictures' if 'captions' in found else 'cases'}"]
    lines += [f"  NOT AS THE PROTOCOL: {problem}" for problem in found["problems"]]
    for who, row in found["rows"].items():
        numbers = {**row, **row.get("text_only", {})}
        shown = (f"{key} {value:.2f}" for key, value in numbers.items() if isinstance(value, float))
        lines.append(f"    {who:<24} {'  '.join(shown)}")
    return "\n".join(lines)


def of_row(row: Mapping[str, Any]) -> str:
    """`55.20 [54.10, 56.30]  top5 80.10`."""
    text = f"{row['value']:6.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    more = [f"{key} {row[key]:.2f}" for key in ("top5", "agreement_top1", "std", "validation") if key in row]
    if "calibration" in row:
        more.append(f"ece {row['calibration']['ece']:.2f}")
    if "learning_rate" in row:
        more.append(f"lr {row['learning_rate']:g}, decay {row['weight_decay']:.3g}, epoch {row['epoch']}")
    return "  ".join([text, *more])


def of_difference(gap: Mapping[str, float]) -> str:
    """`-1.20 [-2.00, -0.40], p = 0.004`."""
    return f"{gap['value']:+6.2f} [{gap['low']:+.2f}, {gap['high']:+.2f}]  p = {gap['p_value']:.3f}"


def of_end(results: Mapping[str, Any], path: Path, sets: int) -> str:
    """Means, what could not be judged, and where the results are."""
    lines = []
    for task, groups in results["means"].items():
        for group, found in groups.items():
            wrong = f", NOT AS THE PROTOCOL: {', '.join(found['not_as_protocol'])}" if found["not_as_protocol"] else ""
            lines.append(f"{group}, mean over its {found['sets']} sets, {task}{wrong}")
            lines += [f"    {who:<24} {of_row(row)}" for who, row in found["rows"].items()]
            lines += [
                f"    {results['model']} - {who:<12} {of_difference(gap)}" for who, gap in found["differences"].items()
            ]
    if results["missing"]:
        names = ", ".join(results["missing"])
        lines.append(
            f"not judged, {len(results['missing'])} sets or tasks: {names} "
            f"(`dime evaluate --list --data {results['data']}` says how to get sets; the reasons stand in the file)"
        )
    lines.append(f"{sets} sets in {results['seconds']:.0f} s; intervals are 95 % bootstrap; {path}")
    return "\n".join(lines)

"""The result of a harness as text."""

from typing import Any


def as_text(sets: dict[str, Any]) -> str:
    """One block per set, one line per model."""
    lines = []
    for name, found in sets.items():
        keys = list(dict.fromkeys(key for row in found["rows"].values() for key in row))
        lines.append(
            f"{name} ({found['samples']:,} samples{', ' + str(found['classes']) + ' classes' if 'classes' in found else ''})"
        )
        lines.append(" " * 12 + "".join(f"{key:>20}" for key in keys))
        for who, row in found["rows"].items():
            lines.append(f"{who:<12}" + "".join(f"{row[key]:>20.2f}" if key in row else f"{'-':>20}" for key in keys))
    return "\n".join(lines)

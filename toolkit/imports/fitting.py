"""Do weights fit a model: every key and every shape, or an error with the nearest names."""

import difflib

from torch import Tensor

from toolkit.errors import CheckpointError
from toolkit.imports.found import Found

SHOWN = 3
"""Complaints of each kind in a message."""


def check_fit(found: Found, own: dict[str, Tensor], source: str) -> None:
    """Raise CheckpointError unless `found.weights` have the names and shapes of `own`; says what is nearest and how many."""
    missing = [key for key in own if key not in found.weights]
    unknown = [key for key in found.weights if key not in own]
    shapes = [
        f"{found.sources.get(key, key)} is {list(value.shape)}, wanted {list(own[key].shape)}"
        for key, value in found.weights.items()
        if key in own and own[key].shape != value.shape
    ]
    complaints = [f"{key} is missing{nearest(key, unknown, found)}" for key in missing[:SHOWN]]
    complaints += [f"{found.sources.get(key, key)} is unknown{wanted(key, missing, own)}" for key in unknown[:SHOWN]]
    complaints += shapes[:SHOWN]
    if complaints:
        raise CheckpointError(
            f"{source}, read as {found.layout}, does not fit {found.name}: {'; '.join(complaints)} "
            f"({len(missing)} missing, {len(unknown)} unknown, {len(shapes)} of another shape). Nothing is loaded in part: "
            "mend the file, or name its layout or architecture"
        )


def nearest(key: str, unknown: list[str], found: Found) -> str:
    """The name in the file that a missing one may have, among those nobody knows, else among all."""
    near = difflib.get_close_matches(key, unknown, n=1) or difflib.get_close_matches(key, found.weights, n=1)
    return f" (nearest in the file: {found.sources.get(near[0], near[0])})" if near else ""


def wanted(key: str, missing: list[str], own: dict[str, Tensor]) -> str:
    """The name that an unknown one may be meant for, among the missing, else among all."""
    near = difflib.get_close_matches(key, missing, n=1) or difflib.get_close_matches(key, own, n=1)
    return f" (nearest wanted: {near[0]})" if near else ""

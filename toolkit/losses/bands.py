"""Rows in bands, for losses that compute rows x columns matrices outside of similarity_kl."""

from collections.abc import Iterator

from torch import Tensor

BAND_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
"""Elements of one band (rows x columns) by device."""


def bands(rows: Tensor, columns: Tensor) -> Iterator[slice]:
    """Consecutive slices of `rows`, so that one slice times all columns stays within the limit."""
    height = max(1, BAND_ELEMENTS.get(rows.device.type, 2**22) // len(columns))
    for start in range(0, len(rows), height):
        yield slice(start, min(start + height, len(rows)))

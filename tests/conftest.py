"""Shards in a temp folder, small enough to be written anew for each test."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toolkit.data.shards import write_shards


def png_bytes(number: int, side: int = 16) -> bytes:
    """A picture of noise that differs with its number, so that samples can be told apart by their pixels."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def png() -> Callable[..., bytes]:
    """`png(number, side=16)`: bytes of a picture."""
    return png_bytes


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., Path]:
    """`make_shards(name, count, fields=("png", "txt"), per_shard=4, broken={row: {field: bytes}})`: a folder of shards.

    Sample k has the key `{k:04d}`, the picture number k, the sentence `sentence k` and the class k % 3. A field of `broken`
    that is None is left out.
    """

    def make(
        name: str,
        count: int,
        fields: Sequence[str] = ("png", "txt"),
        per_shard: int = 4,
        broken: dict[int, dict[str, bytes | None]] | None = None,
    ) -> Path:
        def sample(k: int) -> dict[str, Any]:
            own: dict[str, Any] = {"png": png_bytes(k), "txt": f"sentence {k}", "cls": k % 3}
            own = {field: own[field] for field in fields} | (broken or {}).get(k, {})
            return {"__key__": f"{k:04d}", **{field: value for field, value in own.items() if value is not None}}

        return write_shards(tmp_path / name, map(sample, range(count)), per_shard)

    return make

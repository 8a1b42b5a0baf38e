"""Small stores with text shards whose embeddings are known, and a brute force beside the selection."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toolkit.corpus import Filters, Request
from toolkit.corpus.request import Sizes
from toolkit.data.shards import scan_shard, write_shards
from toolkit.data.store import EmbeddingStore

IDENTITY = {"version": 1, "teacher": "some", "weights_sha256": "ab" * 32, "width": 8, "tokenizer": "ViT-B-32"}
SMALL = Sizes(text_rows=16, image_rows=8, part_rows=32)
"""Several blocks and several parts of a hundred sentences."""


@dataclass
class World:
    """Both stores with what lies in them."""

    folder: Path
    images: np.ndarray
    texts: np.ndarray
    sentences: list[Any]

    def request(self, out: str, size: int = 20, **options: Any) -> Request:
        """Into a folder of this name."""
        options = {"sizes": SMALL, "filters": Filters(min_words=0), "workers": 1, "device": "cpu", **options}
        return Request(self.folder / "store", self.folder / "store", size, self.folder / out, **options)


def unit_rows(rng: np.random.Generator, count: int, width: int = 8) -> np.ndarray:
    """Random directions."""
    rows = rng.standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_world(
    folder: Path, images: np.ndarray, texts: np.ndarray, sentences: Sequence[Any] | None = None, per_shard: int = 13,
    identity: dict[str, Any] = IDENTITY,
) -> World:  # fmt: skip
    """Stores `store/image` and `store/text`, shards in `texts`; the shards of the images are not needed."""
    said = list(sentences if sentences is not None else (f"sentence number {k}" for k in range(len(texts))))
    fill(folder / "texts", folder / "store/text", texts, said, per_shard, identity)
    image_store = EmbeddingStore(folder / "store/image", identity)
    image_store.write_identity()
    for number, start in enumerate(range(0, len(images), 9)):
        rows = images[start : start + 9]
        keys = [f"{start + k}" for k in range(len(rows))]
        image_store.write(folder / f"images/{number:05d}.tar", keys, torch.from_numpy(rows))
    return World(folder, images, texts, said)


def fill(
    shards: Path,
    store: Path,
    texts: np.ndarray,
    said: Sequence[Any],
    per_shard: int,
    identity: dict[str, Any] = IDENTITY,
) -> None:
    """Shards of sentences and their embeddings."""
    write_shards(shards, ({"__key__": f"{k:06d}", "txt": text} for k, text in enumerate(said)), per_shard)
    opened = EmbeddingStore(store, identity)
    opened.write_identity()
    for number, start in enumerate(range(0, len(texts), per_shard)):
        shard = scan_shard(shards / f"{number:05d}.tar")
        opened.write(shard.path, shard.keys, torch.from_numpy(texts[start : start + per_shard]))


def corpus_of(out: Path) -> list[str]:
    """The sentences of all shards, in order."""
    shards = [scan_shard(path) for path in sorted(out.glob("*.tar"))]
    return [shard.read(row, "txt").decode() for shard in shards for row in range(shard.count)]


def all_bytes(out: Path) -> dict[str, bytes]:
    """Every file by name."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def brute_force(images: np.ndarray, texts: np.ndarray, size: int, k: int, max_k: int) -> tuple[set[int], int]:
    """The grounded choice from the whole matrix, sorted in plain Python, and the k that was needed."""
    good_images = np.isfinite(images).all(1)
    good = [row for row in range(len(texts)) if np.isfinite(texts[row]).all() and np.abs(texts[row]).sum() > 0]
    matrix = images[good_images].astype(np.float64) @ np.nan_to_num(texts).astype(np.float64).T
    matrix = np.round(matrix, 6)  # equal rows are equal whatever the order of the sum
    best = {row: matrix[:, row].max() for row in good}
    chosen: list[int] = []
    for level in range(k, max_k + 1):
        union = {row for line in matrix for row in sorted(good, key=lambda row: (-line[row], row))[:level]}
        new = sorted(union - set(chosen), key=lambda row: (-best[row], row))
        chosen += new[: size - len(chosen)]
        if len(chosen) == size:
            break
    return set(chosen), level

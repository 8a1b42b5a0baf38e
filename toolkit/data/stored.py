"""A store as it lies on disk: which shards it holds and all their rows as one long matrix, read in slices."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.shards import ShardPath, expand_shards
from toolkit.data.store import MANIFEST, stem_of
from toolkit.errors import DataError

TEACHER_KEYS = ("teacher", "weights_sha256", "width")
"""What two stores must share for their rows to be comparable."""


@dataclass(frozen=True)
class StoredShard:
    """The rows of one shard."""

    name: str
    npy: Path
    samples: int
    keys_sha256: str
    path: ShardPath | None
    """The shard itself; None where the store was filled before stores noted it."""


def store_folder(given: Path, kind: str) -> Path:
    """The folder with the manifest: `given`, or its subfolder `kind` (`image`, `text`), as `teacher.store` has them."""
    for folder in (given, given / kind):
        if (folder / MANIFEST).is_file():
            return folder
    raise DataError(
        f"{given} is no store of embeddings: neither it nor its folder {kind!r} has a {MANIFEST}; embed the {kind} shards first"
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Whose embeddings these are; raises DataError where it is not written there."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text())
        missing = [key for key in TEACHER_KEYS if key not in found]
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is no manifest of a store ({error}); embed the shards again") from error
    if missing:
        raise DataError(f"{path} does not name {', '.join(missing)}; embed the shards again")
    return dict(found)


def stored_shards(folder: Path) -> list[StoredShard]:
    """Every complete shard of a store, in the order of the shards' paths; raises DataError for a torn entry."""
    found = []
    for path in folder.glob("*.json"):
        if path.name == MANIFEST or path.name.startswith("."):
            continue
        try:
            entry = json.loads(path.read_text())
            where = Path(entry["path"]) if entry.get("path") else None
            shard = StoredShard(
                entry["shard"], path.with_suffix(".npy"), int(entry["samples"]), entry["keys_sha256"], where
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} does not describe stored embeddings ({error}); remove it and embed again"
            ) from error
        found.append(shard)
    if not found:
        raise DataError(f"{folder} holds no embeddings; embed the shards first")
    return sorted(found, key=lambda shard: (str(shard.path or shard.name), shard.npy.name))


def stored_for(folder: Path, pattern: str, *, asked_by: str) -> list[StoredShard]:
    """The entries of the shards of a pattern, in its order; raises DataError for a shard that was not embedded."""
    known = {shard.npy.stem: shard for shard in stored_shards(folder)}
    chosen, missing = [], []
    for path in expand_shards(pattern, asked_by=asked_by):
        entry = known.get(stem_of(path))
        if entry is None:
            missing.append(path)
        else:
            chosen.append(StoredShard(entry.name, entry.npy, entry.samples, entry.keys_sha256, path.resolve()))
    if missing:
        raise DataError(
            f"{asked_by}={pattern}: {folder} has no embeddings for {len(missing)} of these shards, the first is {missing[0]}; "
            "embed them (a shard that was moved to another folder counts as another one)"
        )
    return chosen


class StoredRows:
    """Rows of many shards under one number; nothing stays open or mapped between two reads."""

    def __init__(self, shards: Sequence[StoredShard], width: int) -> None:
        """Raises DataError when a file is missing or has another shape than its entry says."""
        self.shards, self.width = tuple(shards), width
        self.starts = np.concatenate([[0], np.cumsum([shard.samples for shard in shards])]).astype(np.int64)
        for shard in shards:
            shape = self._map(shard).shape
            if shape != (shard.samples, width):
                raise DataError(
                    f"{shard.npy} has the shape {list(shape)}, its entry and the manifest say {[shard.samples, width]}; remove it "
                    "and embed the shard again"
                )

    def __len__(self) -> int:
        """Rows in all."""
        return int(self.starts[-1])

    def _map(self, shard: StoredShard) -> np.ndarray:
        try:
            return np.asarray(np.load(shard.npy, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{shard.npy} is not readable ({error}); remove its .json and embed the shard again"
            ) from error

    def pieces(self, start: int, stop: int) -> Iterable[tuple[int, int, int]]:
        """(number of the shard, first row, last row + 1) of the shards that rows `start` to `stop` lie in."""
        number = int(np.searchsorted(self.starts, start, side="right")) - 1
        while start < stop:
            first = int(self.starts[number])
            end = min(stop, int(self.starts[number + 1]))
            if end > start:
                yield number, start - first, end - first
            start, number = max(start, end), number + 1

    def read(self, start: int, stop: int) -> np.ndarray:
        """A copy, float32 [stop - start, width]."""
        rows = np.empty((stop - start, self.width), dtype=np.float32)
        done = 0
        for number, first, last in self.pieces(start, stop):
            rows[done : done + last - first] = self._map(self.shards[number])[first:last]
            done += last - first
        return rows

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """A copy of single rows; `numbers` ascend."""
        rows = np.empty((len(numbers), self.width), dtype=np.float32)
        shards = np.searchsorted(self.starts, numbers, side="right") - 1
        for number in np.unique(shards):
            here = shards == number
            rows[here] = self._map(self.shards[number])[numbers[here] - self.starts[number]]
        return rows

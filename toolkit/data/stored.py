"""A store as it lies on disk: which shards it holds and all their rows as one long matrix, read in slices."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.remote import shard_at
from toolkit.data.shards import ShardPath, expand_shards
from toolkit.data.store import MANIFEST, stem_of
from toolkit.data.store_file import StoredRows, read_entry
from toolkit.errors import DataError

TEACHER_KEYS = ("teacher", "weights_sha256", "width")
"""What two stores must share for their rows to be comparable."""


@dataclass(frozen=True)
class StoredShard:
    """The rows of one shard."""

    name: str
    file: Path
    samples: int
    keys_sha256: str
    path: ShardPath | None
    """The shard itself; None where it is not known."""


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
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is no manifest of a store ({error}); embed the shards again") from error
    if missing:
        raise DataError(f"{path} does not name {', '.join(missing)}; embed the shards again")
    return dict(found)


def stored_shards(folder: Path) -> list[StoredShard]:
    """Every complete shard of a store, in the order of the shards' paths; raises DataError for a torn file."""
    entries = [read_entry(file) for file in folder.glob("[!.]*.safetensors")]
    found = [
        StoredShard(
            entry.shard, entry.file, entry.samples, entry.keys_sha256, shard_at(entry.path) if entry.path else None
        )
        for entry in entries
    ]
    if not found:
        raise DataError(f"{folder} holds no embeddings; embed the shards first")
    return sorted(found, key=lambda shard: (str(shard.path or shard.name), shard.file.name))


def stored_for(folder: Path, pattern: str, *, asked_by: str) -> list[StoredShard]:
    """The entries of the shards of a pattern, in its order; raises DataError for a shard that was not embedded."""
    known = {shard.file.stem: shard for shard in stored_shards(folder)}
    chosen, missing = [], []
    for path in expand_shards(pattern, asked_by=asked_by):
        entry = known.get(stem_of(path))
        if entry is None:
            missing.append(path)
        else:
            chosen.append(StoredShard(entry.name, entry.file, entry.samples, entry.keys_sha256, path.resolve()))
    if missing:
        raise DataError(
            f"{asked_by}={pattern}: {folder} has no embeddings for {len(missing)} of these shards, the first is {missing[0]}; "
            "embed them (a shard that was moved to another folder counts as another one)"
        )
    return chosen


class StoredPool:
    """Rows of many shards under one number, the first view of each; nothing stays open or mapped between two reads."""

    def __init__(self, shards: Sequence[StoredShard], width: int) -> None:
        """Raises DataError when a file is missing or has another shape than its header and the manifest say."""
        self.shards, self.width = tuple(shards), width
        self.starts = np.concatenate([[0], np.cumsum([shard.samples for shard in shards])]).astype(np.int64)
        for shard in shards:
            found = read_entry(shard.file)
            if (found.samples, found.width) != (shard.samples, width):
                raise DataError(
                    f"{shard.file} has the shape {[found.samples, found.width]}, its entry and the manifest say "
                    f"{[shard.samples, width]}; remove it and embed the shard again"
                )

    def __len__(self) -> int:
        """Rows in all."""
        return int(self.starts[-1])

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
            rows[done : done + last - first] = StoredRows(self.shards[number].file).floats(slice(first, last)).numpy()
            done += last - first
        return rows

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """A copy of single rows; `numbers` ascend."""
        rows = np.empty((len(numbers), self.width), dtype=np.float32)
        shards = np.searchsorted(self.starts, numbers, side="right") - 1
        for number in np.unique(shards):
            here = shards == number
            wanted = (numbers[here] - self.starts[number]).tolist()
            rows[here] = StoredRows(self.shards[number].file).floats(wanted).numpy()
        return rows

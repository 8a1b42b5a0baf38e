"""WebDataset shards on disk: writing them, listing them, and reading one sample without reading the others."""

import os
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import FileIO
from pathlib import Path
from typing import Any

import braceexpand
import numpy as np
from webdataset.tariterators import base_plus_ext
from webdataset.writer import TarWriter

from toolkit.data.index import INDEX_NAME, read_index, write_index
from toolkit.errors import DataError

__all__ = [
    "INDEX_NAME",
    "Shard",
    "count_samples",
    "expand_shards",
    "opened",
    "scan_shard",
    "write_index",
    "write_shards",
]


def write_shards(folder: Path, samples: Iterable[dict[str, Any]], samples_per_shard: int = 1000) -> Path:
    """Write `00000.tar`, `00001.tar`, ... and their index into `folder`; the same samples give the same bytes.

    A sample is `{"__key__": "000001", "png": bytes, "txt": str, "cls": int}`, fields as WebDataset encodes them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer: TarWriter | None = None
    names: list[str] = []
    for position, sample in enumerate(samples):
        if position % samples_per_shard == 0:
            if writer is not None:
                writer.close()
            names.append(f"{len(names):05d}.tar")
            writer = TarWriter(str(folder / names[-1]), user="", group="", mtime=0)
        assert writer is not None
        writer.write({name: str(value) if isinstance(value, int) else value for name, value in sample.items()})
    if writer is not None:
        writer.close()
    write_index(folder, {name: scan_shard(folder / name).count for name in names})
    return folder


def expand_shards(pattern: str, *, asked_by: str) -> list[Path]:
    """Paths of a brace pattern (`a/{00000..00042}.tar`), a folder, or several of these separated by `::`.

    `asked_by` is the config path, for the message. Raises DataError when the pattern is empty or a file is missing.
    """
    if not pattern:
        raise DataError(f"{asked_by} is not set; give the shards, for example {asked_by}='shards/{{00000..01023}}.tar'")
    paths: list[Path] = []
    for part in pattern.split("::"):
        if Path(part).is_dir():
            paths.extend(sorted(Path(part).glob("*.tar")))
            if not paths:
                raise DataError(
                    f"{asked_by}={part}: the folder holds no .tar file; write shards into it or correct the path"
                )
        else:
            paths.extend(Path(p) for p in braceexpand.braceexpand(part))
    missing = [str(p) for p in paths if not p.is_file()]
    if missing:
        raise DataError(
            f"{asked_by}={pattern}: {len(missing)} of {len(paths)} shards do not exist, the first is {missing[0]}; "
            "correct the pattern or make the shards"
        )
    return paths


@dataclass(frozen=True)
class Shard:
    """Where each sample of one tar lies: `keys[k]`, and per field the byte offset and size (size -1: field absent)."""

    path: Path
    keys: tuple[str, ...]
    extensions: tuple[str, ...]
    offsets: np.ndarray
    sizes: np.ndarray
    stamp: tuple[int, int]
    """Bytes and time of change of the file when it was scanned."""

    @property
    def count(self) -> int:
        """Samples in the shard, whatever fields they have."""
        return len(self.keys)

    @cached_property
    def name(self) -> str:
        """Of the file."""
        return self.path.name

    @cached_property
    def column_of(self) -> dict[str, int]:
        """Column of each extension in `offsets` and `sizes`."""
        return {extension: column for column, extension in enumerate(self.extensions)}

    def extension_of(self, row: int, wanted: Sequence[str]) -> str | None:
        """The first of the wanted extensions that sample `row` has, or None."""
        for extension in wanted:
            column = self.column_of.get(extension)
            if column is not None and self.sizes[row, column] >= 0:
                return extension
        return None

    def lacking(self, wanted: Sequence[str]) -> int:
        """How many samples have none of the wanted extensions."""
        columns = [self.column_of[e] for e in wanted if e in self.column_of]
        return int((self.sizes[:, columns] < 0).all(axis=1).sum()) if columns else self.count

    def read(self, row: int, extension: str) -> bytes:
        """The bytes of one field of one sample: one positioned read, nothing before it is touched."""
        column = self.column_of[extension]
        file = opened(self.path, self.stamp)
        return os.pread(file.fileno(), int(self.sizes[row, column]), int(self.offsets[row, column]))


@lru_cache(maxsize=128)
def opened(path: Path, stamp: tuple[int, int]) -> FileIO:
    """The shard open for reading; closed when it falls out of the cache. A file written anew has another stamp."""
    return open(path, "rb", buffering=0)


def scan_shard(path: Path) -> Shard:
    """Walk the tar headers of a shard and note where its samples lie; members that are not plain files are ignored.

    Grouping is WebDataset's: consecutive members with one base name are a sample. Raises DataError when the file is no
    plain tar, is cut short, or holds the same field of a sample twice.
    """
    keys: list[str] = []
    rows: list[dict[str, tuple[int, int]]] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                base, extension = base_plus_ext(member.name)
                if not member.isreg() or member.issparse() or not base:
                    continue
                if not keys or keys[-1] != base:
                    keys.append(base)
                    rows.append({})
                extension = extension.lower()
                if extension in rows[-1]:
                    raise DataError(f"{path}: sample {base} has the field {extension!r} twice; rewrite the shard")
                rows[-1][extension] = (member.offset_data, member.size)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path} is not a readable, uncompressed tar ({error}); copy or write it again") from error
    end = max((offset + size for row in rows for offset, size in row.values()), default=0)
    found = path.stat()
    if end > found.st_size:
        raise DataError(f"{path} is cut short: it has {found.st_size} bytes and needs {end}; copy it again")
    extensions = tuple(sorted({extension for row in rows for extension in row}))
    places = np.full((len(rows), len(extensions), 2), -1, dtype=np.int64)
    for k, row in enumerate(rows):
        for extension, place in row.items():
            places[k, extensions.index(extension)] = place
    stamp = (found.st_size, found.st_mtime_ns)
    return Shard(path, tuple(keys), extensions, places[..., 0], places[..., 1], stamp)


def count_samples(paths: Sequence[Path]) -> list[int]:
    """Samples per shard, from the `index.json` beside them where its byte size still holds, else by scanning.

    Raises DataError for an empty shard.
    """
    known: dict[Path, tuple[int, int]] = {}
    for folder in {path.parent for path in paths}:
        for name, entry in (read_index(folder) or {}).items():
            known[folder / name] = (entry.bytes, entry.samples)
    counts = []
    for path in paths:
        size, samples = known.get(path, (-1, 0))
        counts.append(samples if size == path.stat().st_size else scan_shard(path).count)
        if counts[-1] == 0:
            raise DataError(f"{path} holds no samples; remove it from the pattern or write it again")
    return counts

"""WebDataset shards, on disk or behind URLs: writing, listing, and reading one sample without reading the others."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from io import FileIO
from pathlib import Path
from typing import Any

import braceexpand
import numpy as np
from webdataset.writer import TarWriter

from toolkit.data.cache import ShardCache
from toolkit.data.decode import MAX_BYTES, BadSample
from toolkit.data.handles import OPEN
from toolkit.data.index import INDEX_NAME, read_index, write_index
from toolkit.data.remote import (
    RemoteShard,
    ShardPath,
    count_remote,
    expand_remote,
    is_remote,
    local_file,
    open_remote,
    split_pattern,
    with_local,
)
from toolkit.data.tar_headers import TarDamage, key_and_field, read_entries
from toolkit.data.transfer import shown
from toolkit.errors import DataError

__all__ = [
    "INDEX_NAME",
    "RemoteShard",
    "Shard",
    "ShardPath",
    "count_samples",
    "expand_shards",
    "local_file",
    "opened",
    "scan_shard",
    "write_index",
    "write_shards",
]

MAX_FIELDS = 256
"""Kinds of fields in a shard."""


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


def expand_shards(pattern: str, *, asked_by: str, cache: ShardCache | None = None) -> list[ShardPath]:
    """Shards of a brace pattern (`a/{00000..00042}.tar`, `s3://b/{0..9}.tar`), a folder, or several joined by `::`.

    `asked_by` is the config path, for the message; `cache` is where remote shards will be kept, None: the default one. Raises
    DataError when the pattern is empty or a shard is missing; of remote ones, only some are looked for.
    """
    if not pattern:
        raise DataError(f"{asked_by} is not set; give the shards, for example {asked_by}='shards/{{00000..01023}}.tar'")
    paths: list[ShardPath] = []
    for part in split_pattern(pattern):
        if is_remote(part, asked_by=asked_by):
            paths.extend(expand_remote(part, asked_by=asked_by, cache=cache or ShardCache()))
        elif Path(part).is_dir():
            found = sorted(Path(part).glob("*.tar"))
            paths.extend(found)
            if not found:
                raise DataError(
                    f"{asked_by}={part}: the folder holds no .tar file; write shards into it or correct the path"
                )
        else:
            paths.extend(Path(p) for p in braceexpand.braceexpand(part))
    missing = [str(p) for p in paths if isinstance(p, Path) and not p.is_file()]
    if missing:
        asked = "::".join(
            shown(part) if is_remote(part, asked_by=asked_by) else part for part in split_pattern(pattern)
        )
        raise DataError(
            f"{asked_by}={asked}: {len(missing)} of {len(paths)} shards do not exist, the first is {missing[0]}; "
            "correct the pattern or make the shards"
        )
    return paths


@dataclass(frozen=True)
class Shard:
    """Where each sample of one tar lies: `keys[k]`, and per field the byte offset and size (size -1: field absent)."""

    path: ShardPath
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
        """The bytes of one field of one sample: one positioned read, nothing before it is touched.

        Raises BadSample("too_many_bytes") above half a GiB, DataError where the shard has shrunk since it was scanned.
        """
        column = self.column_of[extension]
        size = int(self.sizes[row, column])
        if size > MAX_BYTES:
            raise BadSample("too_many_bytes")
        try:
            file = opened(self.path, self.stamp)  # held by this name while it is read: another thread may let go of it
            data = os.pread(file.fileno(), size, int(self.offsets[row, column]))
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror}); is it still there?") from error
        if len(data) != size:
            raise DataError(f"{self.path} has changed while it was read; start the run again")
        return data


def opened(path: ShardPath, stamp: tuple[int, int]) -> FileIO:
    """The shard open for reading; closed some time after others were read. A file written anew has another stamp."""
    if isinstance(path, RemoteShard):
        return OPEN.get((path, stamp), lambda: open_remote(path, stamp))
    return opened_here(path, stamp)


@lru_cache(maxsize=128)
def opened_here(path: Path, stamp: tuple[int, int]) -> FileIO:
    """A shard that is no copy: what becomes of it is not ours to decide."""
    return FileIO(path, "rb")


def scan_shard(path: ShardPath) -> Shard:
    """Walk the tar headers of a shard and note where its samples lie; members that are not plain files are ignored.

    Grouping is WebDataset's: consecutive members with one base name are a sample. Raises DataError when the file is no
    plain tar or is cut short, when a key or a field of a sample comes twice, and when keys with dots make every name a field.
    """
    if isinstance(path, RemoteShard):
        return scan_remote(path)
    try:
        return _scanned(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); correct the path or its permissions") from error


def _scanned(path: Path) -> Shard:
    """As scan_shard, of a local file; an OSError stays one."""
    rows: dict[str, dict[str, tuple[int, int]]] = {}
    fields: dict[str, int] = {}
    last = ""
    try:
        found = path.stat()
        for entry in read_entries(path):
            key, field = key_and_field(entry.name)
            if entry.kind != "file" or not key:
                continue
            if key != last and key in rows:
                raise DataError(
                    f"{path}: the fields of sample {key} do not lie side by side, or two samples have this key; rewrite the "
                    "shard with each sample's files together (tar --sort=name) and one key per sample"
                )
            row = rows.setdefault(key, {})
            last = key
            if field in row:
                raise DataError(f"{path}: sample {key} has the field {field!r} twice; rewrite the shard")
            row[field] = (entry.offset, entry.size)
            if fields.setdefault(field, len(fields)) >= MAX_FIELDS:
                raise DataError(
                    f"{path} has more than {MAX_FIELDS} kinds of fields, such as {field[:80]!r} of sample {key[:80]!r}; a key "
                    "ends at its first dot: rename the samples without dots"
                )
    except TarDamage as damage:
        if damage.reason == "unreadable_tar":
            raise DataError(
                f"{path} is not a readable, uncompressed tar ({damage}); copy or write it again"
            ) from damage
        raise DataError(f"{path} is cut short: {damage}; copy it again") from damage
    extensions = tuple(sorted(fields))
    places = np.full((len(rows), len(extensions), 2), -1, dtype=np.int64)
    for k, row in enumerate(rows.values()):
        for field, place in row.items():
            places[k, extensions.index(field)] = place
    stamp = (found.st_size, found.st_mtime_ns)
    return Shard(path, tuple(rows), extensions, places[..., 0], places[..., 1], stamp)


def scan_remote(path: RemoteShard) -> Shard:
    """The same of its local copy, fetched if it is absent; errors name the URL too."""
    copy = path.cache.place_of(path.url)
    try:
        return replace(with_local(path, _scanned), path=path)
    except DataError as error:
        if str(copy) not in str(error):
            raise
        raise DataError(f"{path}: {str(error).replace(str(copy), 'the shard')}; its local copy is {copy}") from error


def count_samples(paths: Sequence[ShardPath]) -> list[int]:
    """Samples per shard, from the `index.json` beside them where its byte size still holds, else by scanning.

    Remote shards that no index lists are fetched for it, which is said.

    Raises DataError for an empty shard.
    """
    remote = [path for path in paths if isinstance(path, RemoteShard)]
    remote_counts = iter(count_remote(remote, lambda path: scan_shard(path).count))
    known: dict[Path, tuple[int, int]] = {}
    for folder in {path.parent for path in paths if isinstance(path, Path)}:
        for name, entry in (read_index(folder) or {}).items():
            known[folder / name] = (entry.bytes, entry.samples)
    counts = []
    for path in paths:
        if isinstance(path, RemoteShard):
            counts.append(next(remote_counts))
        else:
            size, samples = known.get(path, (-1, 0))
            counts.append(samples if size == path.stat().st_size else scan_shard(path).count)
        if counts[-1] == 0:
            raise DataError(f"{path} holds no samples; remove it from the pattern or write it again")
    return counts

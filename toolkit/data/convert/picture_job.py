"""Pictures as the converter sees them: listed in pieces, hashed, then read again and written."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.convert import tsv
from toolkit.data.convert.duplicates import hash_bytes, look_of, near_repeats, repeats
from toolkit.data.convert.keep import Kept, checked, first_of, kept_fields, read_beside
from toolkit.data.convert.listing import list_source, piece_path
from toolkit.data.convert.outcome import LeftOut, Sample, Skip
from toolkit.data.convert.parquet_pictures import ParquetReader
from toolkit.data.convert.pictures import PictureOptions, open_picture, prepare
from toolkit.data.convert.sources import Source
from toolkit.data.decode import MAX_BYTES


@dataclass(frozen=True)
class PictureJob:
    """`dime shards images`: what each phase does with a piece of a source."""

    sources: tuple[Source, ...]
    options: PictureOptions
    lists: Path
    what = "images"
    store_kind = "image"
    unit = "pictures"

    def settings(self) -> dict[str, Any]:
        """Everything the shards depend on beside the sources; without `keep` as before there was such a thing."""
        found = asdict(self.options)
        if not self.options.keep:
            del found["keep"]
        return found

    @property
    def samples_per_shard(self) -> int:
        """Inputs per shard; a shard holds fewer when some of them prove undecodable."""
        return self.options.samples_per_shard

    def pieces(self, number: int) -> list[int]:
        """Inputs of each piece of source `number`."""
        return list_source(self.sources[number], self.lists, number, kept_fields(self.options.keep))

    def listing_skips(self, number: int) -> Path:
        """File of what the listing left out."""
        return self.lists / f"{number:05d}.skipped.jsonl"

    def scan(self, number: int, piece: int, count: int) -> tuple[np.ndarray, np.ndarray, list[Skip]]:
        """Inputs that stay, their hashes (zeros where nothing is compared), and what is left out already."""
        entries, hashes, skips = [], [], []
        if self.options.dedupe == "none" and not self.options.looks_early:
            return np.arange(count), np.zeros(count, np.uint64), []
        reader = self._reader(number, piece)
        for entry in range(count):
            try:
                reader.further(entry)  # or a picture without its caption would push out the same one with it
                data = reader.read(entry)
                found = 0
                if self.options.looks_early:
                    image = open_picture(data, self.options)
                    if self.options.dedupe == "near":
                        found = _look(image, data)
                if self.options.dedupe == "exact":
                    if not data:
                        raise LeftOut("empty")
                    found = hash_bytes(data)
            except LeftOut as error:
                skips.append(Skip(self.sources[number].path, reader.name(entry), error.reason))
                continue
            entries.append(entry)
            hashes.append(found)
        return np.array(entries, np.int64), np.array(hashes, np.uint64), skips

    def repeated(self, hashes: np.ndarray) -> tuple[np.ndarray, str]:
        """[n] bool of what an earlier picture makes superfluous, and the reason it is counted under."""
        if self.options.dedupe == "exact":
            return repeats(hashes), "duplicate"
        if self.options.dedupe == "near":
            return near_repeats(hashes, self.options.near_distance), "near_duplicate"
        return np.zeros(len(hashes), bool), "duplicate"

    def names(self, number: int, piece: int, entries: Sequence[int]) -> list[str]:
        """What the source calls these inputs."""
        reader = self._reader(number, piece)
        return [reader.name(entry) for entry in entries]

    def samples(self, number: int, piece: int, entries: Sequence[int]) -> Iterator[Sample | Skip]:
        """The inputs as they are stored."""
        source = self.sources[number].path
        reader = self._reader(number, piece)
        for entry in entries:
            try:
                further = tuple(reader.further(entry))
                extension, data, kept = prepare(reader.read(entry), self.options)
            except LeftOut as error:
                yield Skip(source, reader.name(entry), error.reason)
                continue
            yield Sample(source, reader.name(entry), extension, data, kept, reader.row(entry), further)

    def facts(self, counts: Counter[str]) -> dict[str, int]:
        """What the report says of the samples beside their number."""
        return {"kept_as_they_were": counts["kept"], "written_anew": counts["anew"]}

    def _reader(self, number: int, piece: int) -> "Reader":
        return reader_of(self.sources[number], self.lists, number, piece, kept_fields(self.options.keep))


def _look(image: Any, data: bytes) -> int:
    try:
        return look_of(image, data)
    except LeftOut:
        raise
    except Exception as error:  # PIL raises many kinds on hostile bytes
        raise LeftOut("undecodable") from error


class FolderReader:
    """A piece of the files of a folder."""

    def __init__(self, source: str, entries: list[str], wanted: Sequence[Kept]) -> None:
        """`entries` are paths relative to the folder."""
        self.source, self.entries, self.wanted = source, entries, wanted

    def name(self, entry: int) -> str:
        """Path in the folder."""
        return self.entries[entry]

    def row(self, entry: int) -> int:
        """Files have no row."""
        return -1

    def read(self, entry: int) -> bytes:
        """The whole file."""
        try:
            with open(os.path.join(self.source, self.entries[entry]), "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise LeftOut("unreadable") from error
        if len(data) > MAX_BYTES:
            raise LeftOut("too_many_bytes")
        return data

    def further(self, entry: int) -> list[tuple[str, bytes]]:
        """Fields that are kept beside it; raises LeftOut where one is not there or cannot be used."""
        return read_beside(self.source, self.entries[entry], self.wanted)


class TarReader:
    """A piece of the pictures of a tar."""

    def __init__(self, source: str, entries: list[list[Any]], wanted: Sequence[Kept]) -> None:
        """`entries`: name, offset, bytes, and where fields are wanted their places."""
        self.source, self.entries, self.wanted = source, entries, wanted

    def name(self, entry: int) -> str:
        """Member of the tar, or key of the sample."""
        return str(self.entries[entry][0])

    def row(self, entry: int) -> int:
        """Members have no row."""
        return -1

    def read(self, entry: int) -> bytes:
        """One positioned read."""
        _, offset, size, *_ = self.entries[entry]
        if size > MAX_BYTES:
            raise LeftOut("too_many_bytes")
        return os.pread(tsv.opened(self.source).fileno(), size, offset)

    def further(self, entry: int) -> list[tuple[str, bytes]]:
        """As FolderReader has it, from the sample."""
        found = []
        for kept in self.wanted:
            places = self.entries[entry][3]
            offset, size = places[first_of(kept, places)]
            if size > MAX_BYTES:
                raise LeftOut(f"{kept.field}_too_many_bytes")
            found.append((kept.field, checked(kept.field, os.pread(tsv.opened(self.source).fileno(), size, offset))))
        return found


class TsvReader:
    """A piece of the rows of a TSV."""

    def __init__(self, source: str, places: np.ndarray) -> None:
        """`places` [n, 3]: row, offset, bytes."""
        self.source, self.places = source, places.tolist()
        self._last: tuple[int, tuple[str, bytes]] = (-1, ("", b""))

    def name(self, entry: int) -> str:
        """First column; the row number where the row has no columns."""
        try:
            return self._columns(entry)[0]
        except LeftOut:
            return f"row {self.places[entry][0]}"

    def row(self, entry: int) -> int:
        """Row in the file."""
        return int(self.places[entry][0])

    def read(self, entry: int) -> bytes:
        """Decoded second column."""
        return tsv.decoded(self._columns(entry)[1])

    def further(self, entry: int) -> list[tuple[str, bytes]]:
        """Nothing lies beside its pictures."""
        return []

    def _columns(self, entry: int) -> tuple[str, bytes]:
        if self._last[0] != entry:
            _, offset, size = self.places[entry]
            if size > 2 * MAX_BYTES:
                raise LeftOut("too_many_bytes")
            self._last = (entry, tsv.read_row(self.source, offset, size))
        return self._last[1]


Reader = FolderReader | TarReader | TsvReader | ParquetReader


@lru_cache(maxsize=4)
def reader_of(source: Source, lists: Path, number: int, piece: int, wanted: tuple[Kept, ...] = ()) -> Reader:
    """Reads the inputs of a piece at any place, and the `wanted` fields beside them."""
    if source.kind == "tsv":
        return TsvReader(source.path, np.load(piece_path(lists, number, piece, "npy"), allow_pickle=False))
    entries = json.loads(piece_path(lists, number, piece, "json").read_bytes())
    if source.kind == "parquet":
        return ParquetReader(source, entries, wanted)
    kind = FolderReader if source.kind == "folder" else TarReader
    return kind(source.path, entries, wanted)

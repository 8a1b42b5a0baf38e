"""Sentences as the converter sees them: read once into a spool of the kept ones, which the shards are made of."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.convert.duplicates import repeats
from toolkit.data.convert.listing import jsonl
from toolkit.data.convert.outcome import Sample, Skip
from toolkit.data.convert.sentences import SentenceOptions, hash_text, sentences_of
from toolkit.data.convert.sources import Source
from toolkit.data.index import write_aside

PIECE = 100_000
"""Sentences per piece."""


@dataclass(frozen=True)
class SentenceJob:
    """`dime shards texts`: what each phase does with a source; documented in picture_job.py.

    Tables have no place to jump to, so a source is read once from front to end when it is listed: what stays goes to
    `<source>-<piece>.spool` (name, row and words as JSON lines) with the offsets and hashes beside it.
    """

    sources: tuple[Source, ...]
    options: SentenceOptions
    lists: Path
    what = "texts"
    store_kind = "text"
    unit = "sentences"

    def settings(self) -> dict[str, Any]:
        """Everything the shards depend on beside the sources."""
        return asdict(self.options)

    @property
    def samples_per_shard(self) -> int:
        """Sentences per shard."""
        return self.options.samples_per_shard

    def pieces(self, number: int) -> list[int]:
        """Read source `number` into its spools; `<number>.json` is written last."""
        done = self.lists / f"{number:05d}.json"
        if done.is_file():
            return list(json.loads(done.read_bytes()))
        source = self.sources[number]
        counts: list[int] = []
        lines: list[bytes] = []
        hashes: list[int] = []
        skipped = self.listing_skips(number)
        aside = skipped.with_name(f".{skipped.name}.{os.getpid()}")

        def flush() -> None:
            stem = self._stem(number, len(counts))
            write_aside(stem.with_suffix(".spool"), b"".join(lines))
            offsets = np.cumsum([0, *map(len, lines)], dtype=np.int64)
            places = stem.with_name(f".{stem.name}.{os.getpid()}.npz")
            np.savez(places, offsets=offsets, hashes=np.array(hashes, np.uint64))
            places.replace(stem.with_suffix(".npz"))
            counts.append(len(lines))
            lines.clear()
            hashes.clear()

        with open(aside, "w") as skips:
            for name, row, text, reason in sentences_of(source, self.options):
                if reason:
                    skips.write(jsonl([Skip(source.path, name, reason)]))
                    continue
                lines.append(json.dumps([name, row, text]).encode() + b"\n")
                hashes.append(hash_text(text, self.options.dedupe))
                if len(lines) == PIECE:
                    flush()
            if lines:
                flush()
        aside.replace(skipped)
        write_aside(done, json.dumps(counts))
        return counts

    def listing_skips(self, number: int) -> Path:
        """File of what the reading left out."""
        return self.lists / f"{number:05d}.skipped.jsonl"

    def scan(self, number: int, piece: int, count: int) -> tuple[np.ndarray, np.ndarray, list[Skip]]:
        """The hashes are there already."""
        return np.arange(count), _places(self._stem(number, piece).with_suffix(".npz"))[1], []

    def repeated(self, hashes: np.ndarray) -> tuple[np.ndarray, str]:
        """Sentences that an earlier one makes superfluous."""
        if self.options.dedupe == "none":
            return np.zeros(len(hashes), bool), "duplicate"
        return repeats(hashes), "duplicate" if self.options.dedupe == "exact" else "near_duplicate"

    def names(self, number: int, piece: int, entries: Sequence[int]) -> list[str]:
        """Key, line or row of these sentences."""
        return [str(name) for name, _, _ in self._read(number, piece, entries)]

    def samples(self, number: int, piece: int, entries: Sequence[int]) -> Iterator[Sample | Skip]:
        """The sentences as UTF-8."""
        for name, row, text in self._read(number, piece, entries):
            yield Sample(self.sources[number].path, name, "txt", text.encode(), True, row)

    def facts(self, counts: Counter[str]) -> dict[str, int]:
        """Nothing more to say."""
        return {}

    def _stem(self, number: int, piece: int) -> Path:
        return self.lists / f"{number:05d}-{piece:05d}"

    def _read(self, number: int, piece: int, entries: Sequence[int]) -> Iterator[Any]:
        stem = self._stem(number, piece)
        offsets = _places(stem.with_suffix(".npz"))[0]
        with open(stem.with_suffix(".spool"), "rb") as spool:
            for entry in entries:
                spool.seek(offsets[entry])
                yield json.loads(spool.readline())


@lru_cache(maxsize=4)
def _places(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path, allow_pickle=False) as found:
        return found["offsets"], found["hashes"]


def forget() -> None:
    """Called at the start of a conversion: its files may bear the names of another's."""
    _places.cache_clear()

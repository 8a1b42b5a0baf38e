"""First look at every sentence: can it be read, is it embedded, is its length right, has it been seen before."""

import hashlib
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.corpus.request import Filters
from toolkit.data.decode import BadSample
from toolkit.data.index import aside_of
from toolkit.data.shards import Shard, scan_shard
from toolkit.data.store_file import hash_of
from toolkit.data.stored import StoredPool, StoredShard
from toolkit.data.texts import decode_text
from toolkit.errors import DataError

REASONS = (
    "kept", "not_embedded", "no_text", "not_utf8", "nul_in_text", "empty_text", "too_many_bytes", "too_short", "too_long",
    "too_many_tokens", "duplicate",
)  # fmt: skip
"""A sentence's code is its place here; the first that holds is counted."""
KEPT, DUPLICATE = 0, REASONS.index("duplicate")
LOOK_ROWS = 16_384
"""Samples between two partial results of this look."""
BUCKET = 2**22
"""Hashes that are compared at a time: a pool of more is looked through in several rounds."""
LOOKED = np.dtype([("hash", "<u8"), ("reason", "u1")])
CHUNK = 8192


@dataclass(frozen=True)
class LookJob:
    """Some consecutive shards of the pool."""

    number: int
    shards: range
    work: Path
    rows: StoredPool
    filters: Filters
    text_key: str

    @property
    def path(self) -> Path:
        """Where its result lies; a file that is there is complete."""
        return self.work / f"look-{self.number:05d}.npy"

    @property
    def samples(self) -> int:
        """In all its shards."""
        return int(self.rows.starts[self.shards.stop] - self.rows.starts[self.shards.start])


def look_jobs(rows: StoredPool, work: Path, filters: Filters, text_key: str) -> list[LookJob]:
    """Whole shards, at least LOOK_ROWS samples each."""
    jobs: list[LookJob] = []
    first = 0
    for number in range(len(rows.shards)):
        full = rows.starts[number + 1] - rows.starts[first] >= LOOK_ROWS
        if full or number + 1 == len(rows.shards):
            jobs.append(LookJob(len(jobs), range(first, number + 1), work, rows, filters, text_key))
            first = number + 1
    return jobs


def look(job: LookJob) -> None:
    """Writes a hash and a reason for each sample of the job's shards."""
    count_tokens = token_counter(job.filters)
    found = []
    for number in job.shards:
        stored = job.rows.shards[number]
        shard = open_shard(stored)
        start = int(job.rows.starts[number])
        embedded = np.concatenate(
            [
                is_embedded(job.rows.read(a, min(a + CHUNK, start + shard.count)))
                for a in range(start, start + shard.count, CHUNK)
            ]
            or [np.zeros(0, bool)]
        )
        found.append(look_at(shard, embedded, job.filters, count_tokens, job.text_key))
    save_aside(job.path, np.concatenate(found))


def look_at(shard: Shard, embedded: np.ndarray, filters: Filters, count_tokens: Any, text_key: str) -> np.ndarray:
    """LOOKED of one shard."""
    looked = np.zeros(shard.count, LOOKED)
    for row in range(shard.count):
        if not embedded[row]:
            looked[row] = 0, REASONS.index("not_embedded")
            continue
        try:
            text = read_text(shard, row, text_key)
        except BadSample as bad:
            looked[row] = 0, REASONS.index(str(bad.args[0]))
            continue
        reason = length_reason(text, filters, count_tokens)
        looked[row] = hash_text(text), REASONS.index(reason)
    return looked


def open_shard(stored: StoredShard) -> Shard:
    """Its table of contents; raises DataError when it holds other samples than were embedded."""
    assert stored.path is not None
    shard = scan_shard(stored.path)
    if shard.count != stored.samples or hash_of(shard.keys) != stored.keys_sha256:
        raise DataError(
            f"{stored.file} was made from other samples than {stored.path} holds now ({stored.samples} embedded, {shard.count} "
            "there, or other keys); embed the shard again"
        )
    return shard


def read_text(shard: Shard, row: int, text_key: str) -> str:
    """A sentence; raises BadSample."""
    extension = shard.extension_of(row, text_key.split(";"))
    if extension is None:
        raise BadSample("no_text")
    return decode_text(shard.read(row, extension))


def length_reason(text: str, filters: Filters, count_tokens: Any) -> str:
    """One of REASONS."""
    words = len(text.split())
    if words < filters.min_words or len(text) < filters.min_chars:
        return "too_short"
    if 0 < filters.max_words < words or 0 < filters.max_chars < len(text):
        return "too_long"
    return "too_many_tokens" if count_tokens is not None and count_tokens(text) else "kept"


def token_counter(filters: Filters) -> Any:
    """text -> does it have more tokens than allowed; None where nobody asks."""
    if not filters.max_tokens:
        return None
    from toolkit.models.tokenizers import build_tokenizer  # and with it open_clip: only for those who ask

    tokenize = build_tokenizer(filters.tokenizer, filters.max_tokens + 1)
    padding = int(tokenize([""])[0, -1])
    return lambda text: int(tokenize([text])[0, -1]) != padding


@cache
def punctuation() -> dict[int, None]:
    """Every character that Unicode calls punctuation, for str.translate; a third of a second to make."""
    return {c: None for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)).startswith("P")}


def normalised(text: str) -> str:
    """Without case, punctuation and superfluous white space; a text of punctuation alone keeps it."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(punctuation()).split()) or " ".join(folded.split())


def hash_text(text: str) -> int:
    """64 bits: among a billion sentences one pair in thirty such pools is taken for equal by mistake."""
    return int.from_bytes(
        hashlib.blake2b(normalised(text).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )


def is_embedded(rows: np.ndarray) -> np.ndarray:
    """Which rows are neither NaN nor zero."""
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.square(rows, dtype=np.float32).sum(1)
    return np.isfinite(length) & (length > 0)


def mark_duplicates(jobs: Sequence[LookJob], path: Path) -> None:
    """Join the looks into one file, a byte per sentence; of equal sentences the first in (shard, row) is kept."""
    if path.is_file():
        return
    total = sum(job.samples for job in jobs)
    reasons = np.empty(total, np.uint8)
    rounds = max(1, -(-total // BUCKET))
    for this_round in range(rounds):
        hashes, places = [], []
        for start, looked in with_start(load(job.path) for job in jobs):
            if this_round == 0:
                reasons[start : start + len(looked)] = looked["reason"]
            here = np.flatnonzero((looked["reason"] == KEPT) & (looked["hash"] % np.uint64(rounds) == this_round))
            hashes.append(looked["hash"][here])
            places.append(here + start)
        joined, where = np.concatenate(hashes), np.concatenate(places)
        first = np.zeros(len(joined), bool)
        first[np.unique(joined, return_index=True)[1]] = True
        reasons[where[~first]] = DUPLICATE
    save_aside(path, reasons)


def with_start(pieces: Iterable[np.ndarray]) -> Iterable[tuple[int, np.ndarray]]:
    """Each piece with the number of rows before it."""
    start = 0
    for piece in pieces:
        yield start, piece
        start += len(piece)


def save_aside(path: Path, array: np.ndarray) -> None:
    """Written and renamed: a file that is there is whole."""
    aside = aside_of(path)
    with open(aside, "wb") as file:
        np.save(file, array, allow_pickle=False)
    aside.replace(path)


def load(path: Path) -> np.ndarray:
    """Mapped; never unpickles."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))

"""The corpus on disk: text shards, where each sentence came from, and its embeddings in a store."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toolkit.corpus.choose import Choice
from toolkit.corpus.filters import open_shard, read_text, save_aside
from toolkit.corpus.jobs import Progress
from toolkit.corpus.mixing import Mixed
from toolkit.data.shards import write_shards
from toolkit.data.store import EmbeddingStore
from toolkit.data.stored import StoredPool

ORIGIN = np.dtype([("shard", "<i4"), ("row", "<i8"), ("rank", "<i8"), ("score", "<f4")])
"""A row of chosen.npy, in the order of the shards: where the sentence lay, and how it was judged."""


def write_corpus(
    out: Path, aside: Path, rows: StoredPool, choice: Choice, mixed: Sequence[Mixed], text_key: str, per_shard: int
) -> None:
    """Text shards in `out`: the chosen in the order of the pool (shard, row), then what is mixed in.

    In the order of the pool each shard is read once from front to end; training shuffles anyway, and chosen.npy has the ranks.
    """
    shutil.rmtree(aside, ignore_errors=True)
    order = np.argsort(choice.places)
    progress = Progress("wrote", "sentences", len(order) + sum(len(other.places) for other in mixed))

    def samples() -> Iterator[dict[str, Any]]:
        for key, text in chain_samples(rows, choice.places[order], mixed, text_key):
            progress.add(1)
            yield {"__key__": key, "txt": text}

    write_shards(aside, samples(), per_shard)
    out.mkdir(parents=True, exist_ok=True)
    for path in out.glob("*.tar"):  # of a run that asked for something else and was killed
        path.unlink()
    for path in sorted(aside.iterdir(), key=lambda path: path.suffix != ".tar"):  # the index last
        path.replace(out / path.name)
    aside.rmdir()
    save_aside(out / "chosen.npy", origins(rows, choice, order))


def chain_samples(
    rows: StoredPool, places: np.ndarray, mixed: Sequence[Mixed], text_key: str
) -> Iterator[tuple[str, str]]:
    """(key, sentence) of everything that is written, in order."""
    shards = np.searchsorted(rows.starts, places, side="right") - 1
    for number in np.unique(shards).tolist():
        shard = open_shard(rows.shards[number])
        for row in (places[shards == number] - rows.starts[number]).tolist():
            yield key_of(number, row), read_text(shard, row, text_key)
    for other in mixed:
        yield from other.samples()


def key_of(shard: int, row: int) -> str:
    """A key that says where the sentence lay in the pool."""
    return f"{shard:05d}-{row:07d}"


def origins(rows: StoredPool, choice: Choice, order: np.ndarray) -> np.ndarray:
    """ORIGIN of every chosen sentence."""
    found = np.empty(len(order), ORIGIN)
    places = choice.places[order]
    found["shard"] = np.searchsorted(rows.starts, places, side="right") - 1
    found["row"] = places - rows.starts[found["shard"]]
    found["rank"], found["score"] = order, choice.scores[order]
    return found


def write_store(
    folder: Path, manifest: dict[str, Any], out: Path, rows: StoredPool, choice: Choice, mixed: Sequence[Mixed],
    per_shard: int,
) -> None:  # fmt: skip
    """The embeddings of the corpus as a store of its shards; raises DataError where `folder` is another teacher's."""
    store = EmbeddingStore(folder, manifest)
    store.check_identity()
    store.write_identity()
    places = np.sort(choice.places)
    sources = [(rows, places), *((other.rows, other.places) for other in mixed)]
    keys = keys_of(rows, places, mixed)
    total = sum(len(where) for _, where in sources)
    progress = Progress("stored the embeddings of", "sentences", total)
    for number, start in enumerate(range(0, total, per_shard)):
        count = min(per_shard, total - start)
        values = [source.take(where[a:b]) for source, where, a, b in slices(sources, start, start + count)]
        store.write(
            out / f"{number:05d}.tar", [next(keys) for _ in range(count)], torch.from_numpy(np.concatenate(values))
        )
        progress.add(count)


def slices(
    sources: Sequence[tuple[Any, np.ndarray]], start: int, stop: int
) -> Iterator[tuple[Any, np.ndarray, int, int]]:
    """Which rows of which source make rows `start` to `stop` of them all."""
    before = 0
    for source, where in sources:
        first, last = max(start - before, 0), min(stop - before, len(where))
        if first < last:
            yield source, where, first, last
        before += len(where)


def keys_of(rows: StoredPool, places: np.ndarray, mixed: Sequence[Mixed]) -> Iterator[str]:
    """The keys of `chain_samples`, without reading a sentence."""
    shards = np.searchsorted(rows.starts, places, side="right") - 1
    for number, row in zip(shards.tolist(), (places - rows.starts[shards]).tolist(), strict=True):
        yield key_of(number, row)
    for other in mixed:
        yield from other.keys()

"""Embed shards one after the other: decoded by data workers, encoded in batches, a file per shard as soon as it is whole."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from toolkit import heartbeat, signals
from toolkit.data.convert.progress import Progress
from toolkit.data.images import BadSample
from toolkit.data.shards import Shard, ShardPath, scan_shard
from toolkit.data.store import EmbeddingStore
from toolkit.data.store_file import as_stored
from toolkit.data.streams import data_worker, without_worker_traceback, worker_context
from toolkit.embed.pool import ROWS, Pool, Reader


@dataclass
class Tally:
    """What came of a fill; of several processes they add up."""

    shards: int = 0
    samples: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    """By reason."""
    rows: int = 0
    """Embeddings written: views of readable samples."""
    cosine_sum: float = 0.0
    cosine_min: float = 1.0
    """Of what is stored with what was computed."""
    same_neighbour: int = 0
    """Rows whose nearest other row of the batch is the same in what is stored."""
    seconds: float = 0.0
    waited: float = 0.0
    """Of these, waiting for data."""

    def add(self, other: "Tally") -> None:
        """Another process's; the time is that of the slowest."""
        self.shards += other.shards
        self.samples += other.samples
        self.unreadable += other.unreadable
        self.rows += other.rows
        self.cosine_sum += other.cosine_sum
        self.cosine_min = min(self.cosine_min, other.cosine_min)
        self.same_neighbour += other.same_neighbour
        self.seconds, self.waited = max(self.seconds, other.seconds), max(self.waited, other.waited)

    def compare(self, computed: Tensor, stored: Tensor) -> None:
        """Count in a batch of embeddings [k, e] and what a reader will get for them."""
        if stored is computed:
            self.rows += len(computed)
            self.cosine_sum += len(computed)
            self.same_neighbour += len(computed)
            return
        cosines = F.cosine_similarity(computed, stored)
        self.rows += len(computed)
        self.cosine_sum += float(cosines.sum())
        self.cosine_min = min(self.cosine_min, float(cosines.min()))
        nearest = [(x @ x.T).fill_diagonal_(-2.0).argmax(1) for x in (computed, stored)]
        self.same_neighbour += int((nearest[0] == nearest[1]).sum())


class Batch(NamedTuple):
    """Consecutive samples of one shard after the other."""

    shards: list[int]
    rows: list[int]
    inputs: Tensor | None
    """[good x v, ...]; None where no sample is good."""
    crops: Tensor | None
    good: list[int]
    """Which of the samples."""
    reasons: Counter[str]


class ShardSamples(Dataset[Any]):
    """Every sample of some shards in order, read for a teacher."""

    def __init__(self, paths: Sequence[ShardPath], counts: Sequence[int], reader: Reader) -> None:
        """`counts` are samples per shard."""
        self.paths, self.reader = list(paths), reader
        self.ends = np.cumsum(np.asarray(counts, dtype=np.int64))
        self._shard: tuple[int, Shard] | None = None

    def __len__(self) -> int:
        """Samples of all shards."""
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> tuple[int, int, Any]:
        """Shard, row, and (inputs, crops) or the reason why there are none."""
        number = int(np.searchsorted(self.ends, index, side="right"))
        row = index - (int(self.ends[number - 1]) if number else 0)
        if self._shard is None or self._shard[0] != number:
            self._shard = number, scan_shard(self.paths[number])
        try:
            return number, row, self.reader.of(self._shard[1], row)
        except BadSample as bad:
            return number, row, str(bad.args[0])


def collate(samples: list[tuple[int, int, Any]]) -> Batch:
    """Views of good samples under one another."""
    good = [k for k, sample in enumerate(samples) if not isinstance(sample[2], str)]
    found = [samples[k][2] for k in good]
    crops = torch.stack([crops for _, crops in found]) if found and found[0][1] is not None else None
    return Batch(
        [sample[0] for sample in samples],
        [sample[1] for sample in samples],
        torch.cat([inputs for inputs, _ in found]) if found else None,
        crops,
        good,
        Counter(sample[2] for sample in samples if isinstance(sample[2], str)),
    )


def fill(
    store: EmbeddingStore,
    paths: Sequence[ShardPath],
    counts: Sequence[int],
    pool: Pool,
    *,
    workers: int,
    speak: bool,
    batch_size: int = ROWS,
) -> Tally:
    """Embed these shards with `workers` data processes, `batch_size` views per forward; `speak` shows progress."""
    tally = Tally()
    if not paths:
        return tally
    loader: DataLoader[Any] = DataLoader(
        ShardSamples(paths, counts, pool.reader),
        batch_size=max(1, batch_size // store.views),
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=data_worker,
        generator=torch.Generator(),
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context=worker_context() if workers else None,
    )
    unit = "pictures" if pool.tensor == "teacher_images" else "sentences"
    progress = Progress("embedded", sum(counts), unit) if speak else None
    began = asked = time.monotonic()
    shard = WholeShard(store, paths, counts, int(store.identity["width"]))
    for batch in without_worker_traceback(loader):
        tally.waited += time.monotonic() - asked
        embed_batch(batch, pool, store, shard, tally)
        heartbeat.alive()
        signals.stop_here("embedding")  # shards that are complete are kept
        if progress:
            progress.add(len(batch.rows))
        asked = time.monotonic()
    tally.seconds = time.monotonic() - began
    tally.shards, tally.samples = len(paths), sum(counts)
    if progress:
        progress.close()
    return tally


def embed_batch(batch: Batch, pool: Pool, store: EmbeddingStore, shard: "WholeShard", tally: Tally) -> None:
    """Encode the good samples of a batch and hand all to their shards."""
    tally.unreadable += batch.reasons
    rows = None
    if batch.inputs is not None:
        flat = pool.encode(batch.inputs).cpu()
        rows = flat.view(len(batch.good), -1, flat.shape[-1])
        stored = as_stored(rows, store.identity["stored_as"])
        tally.compare(flat, flat if stored is rows else stored.flatten(0, 1))
    position = {k: place for place, k in enumerate(batch.good)}
    for k, (number, row) in enumerate(zip(batch.shards, batch.rows, strict=True)):
        place = position.get(k)
        if place is None or rows is None:
            shard.add(number, row, None, None)
        else:
            shard.add(number, row, rows[place], None if batch.crops is None else batch.crops[place])


class WholeShard:
    """Collects the rows of the shard at hand and writes it after the last."""

    def __init__(self, store: EmbeddingStore, paths: Sequence[ShardPath], counts: Sequence[int], width: int) -> None:
        """Rows come in order."""
        self.store, self.paths, self.counts, self.width = store, paths, counts, width
        self.rows = self.crops = torch.empty(0)

    def add(self, number: int, row: int, features: Tensor | None, crops: Tensor | None) -> None:
        """[v, e] and [v, 5] of the next sample; None where it cannot be read."""
        count, views = self.counts[number], self.store.views
        if row == 0:
            self.rows = torch.full((count, views, self.width), float("nan"))
            self.crops = torch.zeros(count, views, 5, dtype=torch.int32)
        if features is not None:
            self.rows[row] = features
        if crops is not None:
            self.crops[row] = crops
        if row == count - 1:
            found = scan_shard(self.paths[number])
            recorded = isinstance(self.store.identity.get("view"), dict)
            self.store.write(found.path, found.keys, self.rows, self.crops if recorded else None)


def missing(
    store: EmbeddingStore, paths: Sequence[ShardPath], counts: Sequence[int]
) -> Iterator[tuple[ShardPath, int]]:
    """Shards, with their samples, that are not embedded yet."""
    for path, count in zip(paths, counts, strict=True):
        if not store.is_complete(path, count):
            yield path, count

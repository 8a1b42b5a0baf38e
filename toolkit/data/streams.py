"""Unpaired streams of images and of sentences (or one of pairs): endless, exact once per pass, resumable at any step."""

import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from toolkit.data.decode import BadSample
from toolkit.data.jpeg import PRELOAD
from toolkit.data.plan import MixedPlan, Place, Plan
from toolkit.data.seeding import kept_generator
from toolkit.data.shards import Shard, ShardPath, count_samples, scan_shard
from toolkit.data.store import EmbeddingStore
from toolkit.errors import DataError, ToolkitError

ATTEMPTS = 100
"""Bad samples in a row after which a stream gives up."""
OPEN_SHARDS = 64
"""Shards whose table of contents a worker keeps."""


@dataclass
class Field:
    """One thing to take from a sample: the extensions that may hold it, and what to make of its bytes."""

    extensions: Sequence[str]
    read: Any
    """bytes -> dict of tensors; raises BadSample(reason)."""
    random: bool = True
    """Does `read` draw from torch's generator, which is then seeded for each sample."""
    replays: bool = False
    """Does `read` take the crop that a store has of the sample, as its second argument."""


@dataclass
class StreamBatch:
    """Tensors of this rank's rows, where they came from, and what had to be replaced."""

    tensors: dict[str, Tensor]
    keys: list[str]
    """`shard.tar:key` per row."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Bad samples met while this batch was put together, by reason."""

    def pin_memory(self) -> "StreamBatch":
        """Called by the DataLoader: page-locked copies, for asynchronous transfer to the GPU."""
        return StreamBatch(
            {name: tensor.pin_memory() for name, tensor in self.tensors.items()}, self.keys, self.skipped
        )


class ShardStream(Dataset[tuple[dict[str, Tensor], str, Counter[str]]]):
    """The sample at a position of an endless stream, decoded; the same bytes and crop whoever asks and how often."""

    def __init__(
        self,
        name: str,
        paths: Sequence[ShardPath],
        fields: Sequence[Field],
        *,
        seed: int,
        window_shards: int,
        max_skip_fraction: float,
        stores: dict[str, EmbeddingStore] | None = None,
        plan: Plan | MixedPlan | None = None,
    ) -> None:
        """`name` is the config path of the shards, for messages; indexing is by position, from 0 without end.

        `stores` add stored embeddings of the same sample, by the name of the tensor; `plan` is the order where it is not a
        permutation of all.
        """
        self.name, self.paths, self.fields, self.seed = name, list(paths), list(fields), seed
        self.counts = count_samples(self.paths)
        self.plan = plan or Plan(self.counts, seed, window_shards)
        self.max_skip_fraction = max_skip_fraction
        self.stores = stores or {}
        self._random = any(wanted.random for wanted in self.fields)
        self._open = lru_cache(maxsize=OPEN_SHARDS)(self._open_uncached)

    def __getstate__(self) -> dict[str, Any]:
        """Workers open shards themselves."""
        return {name: value for name, value in self.__dict__.items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore with an empty table of open shards."""
        self.__dict__.update(state)
        self._open = lru_cache(maxsize=OPEN_SHARDS)(self._open_uncached)

    def __len__(self) -> int:
        """Samples in one pass."""
        return self.plan.total

    def __getitem__(self, position: int) -> tuple[dict[str, Tensor], str, Counter[str]]:
        """Decoded tensors, origin, and the reasons of the bad samples that were replaced on the way.

        Raises DataError after 100 bad samples in a row.
        """
        with kept_generator():
            return self._sample(position, self.plan.place(position), self._seed_of(position))

    def __getitems__(self, positions: Sequence[int]) -> StreamBatch:
        """A batch, which the DataLoader asks for where this is defined.

        Places and seeds come first: between two pictures, with cold caches, they take eight times as long. Each sample is
        copied into its row at once, and a worker's rows lie in the memory it shares with the training process from the
        start: stacking and sending would each go over all of it again.
        """
        found = StreamBatch({}, [])
        planned = [(position, self.plan.place(position), self._seed_of(position)) for position in positions]
        with kept_generator():
            for row, one_sample in enumerate(planned):
                tensors, key, skipped = self._sample(*one_sample)
                if not row:
                    found.tensors = {name: rows_of(len(positions), one) for name, one in tensors.items()}
                for name, one in tensors.items():
                    found.tensors[name][row] = one
                found.keys.append(key)
                if skipped:
                    found.skipped.update(skipped)
        return found

    def _sample(self, position: int, place: Place, seed: int) -> tuple[dict[str, Tensor], str, Counter[str]]:
        """As __getitem__, with torch's generator left anywhere."""
        skipped: Counter[str] = Counter()
        for attempt in range(1, ATTEMPTS + 1):
            shard = self._open(place.shard)
            try:
                return self._decode(shard, place, seed), f"{shard.name}:{shard.keys[place.row]}", skipped
            except BadSample as bad:
                skipped[str(bad.args[0])] += 1
            place = self.plan.substitute(position, attempt)
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.most_common())
        raise DataError(
            f"{self.name}: {ATTEMPTS} bad samples in a row near {self.paths[place.shard]} ({reasons}); check the shards"
        )

    def _decode(self, shard: Shard, place: Place, seed: int) -> dict[str, Tensor]:
        """All fields of one sample, with torch's generator seeded for its augmentation.

        Of several stored views, each pass takes the next one, beginning at another for each row.
        """
        stored = {
            name: store.read(shard.path, shard.keys, place.row, (place.epoch + place.row) % store.views)
            for name, store in self.stores.items()
        }
        tensors = {name: found.features for name, found in stored.items()}
        crop = next((found.crop for found in stored.values() if found.crop is not None), None)
        if self._random:
            torch.default_generator.manual_seed(seed)
        for wanted in self.fields:
            extension = shard.extension_of(place.row, wanted.extensions)
            if extension is None:
                raise BadSample(f"no_{wanted.extensions[0]}")
            data = shard.read(place.row, extension)
            tensors.update(wanted.read(data, crop) if wanted.replays else wanted.read(data))
        return tensors

    def _seed_of(self, position: int) -> int:
        """Of torch's generator for the sample at `position`; 0 where nothing is random."""
        if not self._random:
            return 0
        return int(np.random.SeedSequence([self.seed, 3, position]).generate_state(1, np.uint64)[0] >> 1)

    def _open_uncached(self, number: int) -> Shard:
        """Table of contents of a shard; raises DataError when too many of its samples lack a wanted field."""
        shard = scan_shard(self.paths[number])
        for wanted in self.fields:
            lacking = shard.lacking(wanted.extensions)
            if lacking > self.max_skip_fraction * shard.count:
                kinds = "' or '".join(wanted.extensions)
                found = ", ".join(shard.extensions) or "nothing"
                raise DataError(
                    f"{shard.path}: {lacking} of {shard.count} samples had no '{kinds}' (found: {found}; limit "
                    f"{self.max_skip_fraction:.0%}); set data.image_key or data.text_key, or raise data.max_skip_fraction"
                )
        if shard.count != self.counts[number]:
            raise DataError(
                f"{shard.path} holds {shard.count} samples, its index says {self.counts[number]}; delete the index.json"
            )
        return shard


def rows_of(count: int, one: Tensor) -> Tensor:
    """Room for so many tensors like `one`; shared memory in a worker of a DataLoader."""
    if get_worker_info() is None:
        return torch.empty((count, *one.shape), dtype=one.dtype)
    storage = torch.UntypedStorage._new_shared(count * one.numel() * one.itemsize)  # as in torch's default_collate
    return torch.tensor([], dtype=one.dtype).set_(storage, 0, (count, *one.shape))  # type: ignore[call-overload]


class RankRows(Sampler[list[int]]):
    """Positions of this rank's rows, one list per step, from a given step on, without end."""

    def __init__(self, global_batch: int, rank: int, world: int, first_step: int) -> None:
        """`global_batch` divides by `world`."""
        self.global_batch, self.rank, self.world, self.first_step = global_batch, rank, world, first_step

    def __iter__(self) -> Iterator[list[int]]:
        """Step t, rank r: positions t * batch + r * rows ... + rows."""
        rows = self.global_batch // self.world
        step = self.first_step
        while True:
            start = step * self.global_batch + self.rank * rows
            yield list(range(start, start + rows))
            step += 1


def as_it_is(batch: Any) -> Any:
    """What collates: a batch is put together by the stream."""
    return batch


def data_worker(_: int) -> None:
    """A data worker uses one thread, as ranks x workers of them share the machine, and ends when its rank does.

    torch's own look at the parent sees the fork server, which lives as long as its workers: whoever reads our output would wait.
    """
    torch.set_num_threads(1)
    rank = multiprocessing.parent_process()
    if rank is not None:

        def end_with_it() -> None:
            rank.join()
            os._exit(1)

        threading.Thread(target=end_with_it, daemon=True).start()


def batches(
    stream: ShardStream, global_batch: int, *, rank: int, world: int, first_step: int, workers: int
) -> Iterator[StreamBatch]:
    """This rank's batches from `first_step` on, prefetched by `workers` processes (0: none)."""
    loader: DataLoader[Any] = DataLoader(
        stream,
        batch_sampler=RankRows(global_batch, rank, world, first_step),
        num_workers=workers,
        collate_fn=as_it_is,
        worker_init_fn=data_worker,
        generator=torch.Generator(),  # its own: making an iterator draws a number, which would shift dropout after a resume
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        multiprocessing_context=worker_context() if workers else None,
    )
    return without_worker_traceback(loader)


def worker_context() -> Any:
    """Data workers are forked from a clean process that has imported torch once: safe beside CUDA, and quick to start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toolkit.data.build", *PRELOAD])
    return context


def without_worker_traceback(loader: Iterable[Any]) -> Iterator[Any]:
    """What a loader yields; a worker's ToolkitError, to which torch adds the traceback, is brought back to its message."""
    iterator = iter(loader)

    def batches_of() -> Iterator[Any]:
        try:
            yield from iterator
        except ToolkitError as error:
            message = str(error)
            if not message.startswith("Caught "):
                raise
            raise type(error)(message.rpartition(f"{type(error).__name__}: ")[2].strip()) from None

    return batches_of()


class SkipLimit:
    """Counts replaced samples of a stream and stops the run when their share is too large."""

    def __init__(self, name: str, max_fraction: float) -> None:
        """`name` is the config path of the shards."""
        self.name, self.max_fraction = name, max_fraction
        self.seen = 0
        self.skipped: Counter[str] = Counter()

    def add(self, batch: StreamBatch) -> None:
        """Count a batch; raises DataError once more than the allowed share of at least 100 samples was bad."""
        self.seen += len(batch.keys) + batch.skipped.total()
        self.skipped.update(batch.skipped)
        if self.skipped.total() > self.max_fraction * max(self.seen, 100):
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.skipped.most_common())
            raise DataError(
                f"{self.name}: {self.skipped.total()} of {self.seen} samples were bad ({reasons}), more than "
                f"data.max_skip_fraction ({self.max_fraction}); mend the shards or raise the limit"
            )

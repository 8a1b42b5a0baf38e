"""The first samples of a run's own streams, as its teacher embeds them."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from toolkit.config import Run, shards_of
from toolkit.data.cache import cache_of
from toolkit.data.shards import ShardPath, count_samples, expand_shards
from toolkit.data.store import EmbeddingStore
from toolkit.data.streams import ShardStream, SkipLimit, batches
from toolkit.data.views import TrainingViews
from toolkit.embed import ROWS, Pool, Reader, pools, store_of, weight_hash
from toolkit.models import Teacher

MOST = 4096
"""Samples of each kind that are drawn where nobody says how many."""


@dataclass(frozen=True)
class Sample:
    """Unit-norm fp32 embeddings; no sentences where the run has none."""

    images: Float[Tensor, "n e"]
    sentences: Float[Tensor, "m e"] | None
    notes: list[str]
    """What a reader of the numbers should know, in sentences."""


def draw_sample(run: Run, teacher: Teacher, samples: int | None) -> Sample:
    """As many as a step of the run compares, at most MOST; `samples` of each where it is given, as far as there are.

    Read from `teacher.store` where that is complete, else embedded now; nothing is written. Raises DataError for shards
    that are missing or broken, or a store of another teacher.
    """
    data = run.data
    notes: list[str] = []
    found: dict[str, Tensor] = {}
    weights = weight_hash(teacher) if run.teacher.store else ""
    batch = {"image": data.global_batch_size, "text": data.text_batch_size or data.global_batch_size}
    for kind, pool in pools(run, teacher, bool(shards_of(data, "texts") or data.pairs)).items():
        if kind == "image" and data.teacher_view == "same":
            pool = with_crops(run, teacher, pool)
            notes.append("The teacher's pictures are crops, as data.teacher_view=same says, at the teacher's own size.")
        paths = expand_shards(pool.pattern, asked_by=pool.asked_by, cache=cache_of(data))
        store = (
            filled(store_of(run.teacher.store, teacher, kind, pool, weights), paths, notes)
            if run.teacher.store
            else None
        )
        number = int(
            kind == "text" and not data.pairs
        )  # the seed of build_sources: the sample is the run's first batch
        stream = ShardStream(
            pool.asked_by, paths, [pool.reader.field] if store is None else [], seed=2 * run.seed + number,
            window_shards=data.shuffle_shards, max_skip_fraction=data.max_skip_fraction,
            stores={} if store is None else {pool.tensor: store},
        )  # fmt: skip
        asked = samples or min(batch[kind], MOST)
        count = min(asked, len(stream))
        if count < asked:
            notes.append(f"{asked:,} samples of {pool.asked_by} were asked for, it holds {count:,}: all are taken.")
        found[kind] = embedded(run, stream, pool, count, stored=store is not None).to(teacher.device)
    return Sample(found["image"], found.get("text"), notes)


def with_crops(run: Run, teacher: Teacher, pool: Pool) -> Pool:
    """The pool with the random view that the student shares with its teacher."""
    how = run.data.augmentation, run.data.teacher_view, run.data.max_image_pixels
    return replace(
        pool,
        reader=Reader(
            replace(
                pool.reader.field,
                read=TrainingViews(teacher.preprocess, {"teacher": teacher.preprocess}, *how),
                random=True,
            )
        ),
    )


def filled(store: EmbeddingStore, paths: list[ShardPath], notes: list[str]) -> EmbeddingStore | None:
    """The store if it holds every shard, else None, and a note."""
    lacking = sum(not store.is_complete(path, n) for path, n in zip(paths, count_samples(paths), strict=True))
    if not lacking:
        return store
    notes.append(f"{store.folder} lacks {lacking} of {len(paths)} shards, so the sample was embedded anew.")
    return None


def embedded(run: Run, stream: ShardStream, pool: Pool, count: int, *, stored: bool) -> Tensor:
    """The first `count` of the stream, [count, e]."""
    if not stored:
        print(f"embedding {count:,} samples of {pool.asked_by} with the teacher", flush=True)
    limit = SkipLimit(pool.asked_by, run.data.max_skip_fraction)
    rows = min(ROWS, count)
    parts: list[Tensor] = []
    for batch in batches(stream, rows, rank=0, world=1, first_step=0, workers=run.workers):
        limit.add(batch)
        given = batch.tensors[pool.tensor][: count - rows * len(parts)]
        parts.append(given if stored else pool.encode(given))
        if rows * len(parts) >= count:
            break
    return torch.cat(parts)

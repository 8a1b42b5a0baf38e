"""Fill a store: the teacher over every shard once, shared among the ranks, restartable per shard."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit import distributed
from toolkit.config import Run, shards_of
from toolkit.data.images import BadSample
from toolkit.data.shards import Shard, ShardPath, count_samples, expand_shards, scan_shard
from toolkit.data.store import EmbeddingStore
from toolkit.data.streams import Field
from toolkit.data.texts import TokenReader
from toolkit.data.views import PlainViews
from toolkit.errors import DataError
from toolkit.models import Teacher

ROWS = 256
"""Samples per forward of the teacher."""
SPOT_CHECKS = 4
MIN_COSINE = 0.999
"""Stored and live embedding of one sample must agree at least so well."""


@dataclass(frozen=True)
class Pool:
    """The pictures or the sentences of a run, as its teacher meets them."""

    pattern: str
    asked_by: str
    """Config path of the shards, for messages."""
    tensor: str
    """What `field` calls the tensor that `encode` takes."""
    field: Field
    encode: Callable[[Tensor], Tensor]
    how: dict[str, Any]
    """Preprocessing or tokenizer: what an embedding depends on beside the weights."""


def pools(run: Run, teacher: Teacher, reads_text: bool) -> dict[str, Pool]:
    """`{"image": ..., "text": ...}`, no text where the run reads none; pictures are seen plain."""
    data = run.data
    views = Field(data.image_key.split(";"), PlainViews({"teacher": teacher.preprocess}, data.max_image_pixels))
    how: dict[str, Any] = {"preprocess": asdict(teacher.preprocess)}
    key = "data.pairs" if data.pairs else "data.images"
    found = {
        "image": Pool(data.pairs or shards_of(data, "images"), key, "teacher_images", views, teacher.encode_image, how)
    }
    if reads_text:
        tokens = Field(data.text_key.split(";"), TokenReader({"tokens": teacher.tokenizer()}))
        how = {"tokenizer": tokenizer_identity(teacher), "context_length": teacher.context_length}
        key = "data.pairs" if data.pairs else "data.texts"
        found["text"] = Pool(data.pairs or shards_of(data, "texts"), key, "tokens", tokens, teacher.encode_text, how)
    return found


def store_of(run: Run, teacher: Teacher, kind: str, pool: Pool, weights: str) -> EmbeddingStore:
    """The store of a pool under `teacher.store`; raises DataError when the folder belongs to another teacher or view."""
    identity = {"version": 1, "teacher": teacher.name, "weights_sha256": weights, "width": teacher.embed_dim}
    identity |= {"computed_in": str(teacher.dtype).removeprefix("torch."), **plain(pool.how)}
    store = EmbeddingStore(Path(run.teacher.store) / kind, identity)
    store.check_identity()
    return store


def prepare_stores(run: Run, teacher: Teacher | None, reads_text: bool) -> dict[str, EmbeddingStore]:
    """`{"image": ..., "text": ...}` filled for the run's shards, empty when `teacher.store` is not set; a collective.

    Raises DataError when the folder belongs to another teacher, or a few stored embeddings differ from the live teacher's.
    """
    if teacher is None or not run.teacher.store:
        return {}
    weights = weight_hash(teacher)
    stores = {}
    for kind, pool in pools(run, teacher, reads_text).items():
        store = store_of(run, teacher, kind, pool, weights)
        distributed.barrier()
        if distributed.is_main():
            store.write_identity()
        distributed.barrier()
        fill(store, expand_shards(pool.pattern, asked_by=pool.asked_by), pool.field, pool.encode, teacher.embed_dim)
        stores[kind] = store
    return stores


def fill(
    store: EmbeddingStore, paths: list[ShardPath], field: Field, encode: Callable[[Tensor], Tensor], width: int
) -> None:
    """Embed the shards that are missing, every rank its share, and spot-check the first shard; a collective."""
    todo = [path for path, count in zip(paths, count_samples(paths), strict=True) if not store.is_complete(path, count)]
    todo = distributed.broadcast_object(todo)
    if todo:
        distributed.say(f"embedding {len(todo)} of {len(paths)} shards with the teacher into {store.folder}")
    for done, path in enumerate(todo[distributed.rank() :: distributed.world()], start=1):
        shard = scan_shard(path)
        store.write(path, shard.keys, embed_shard(shard, field, encode, width))
        share = -(-len(todo) // distributed.world())
        if distributed.is_main() and (done == share or done % max(1, share // 10) == 0):
            print(f"embedded {done * distributed.world()} of {len(todo)} shards", flush=True)
    distributed.barrier()
    spot_check(store, scan_shard(paths[0]), field, encode)


def embed_shard(shard: Shard, field: Field, encode: Callable[[Tensor], Tensor], width: int) -> Tensor:
    """[n, e] of a whole shard; NaN where a sample cannot be read."""
    rows = torch.full((shard.count, width), float("nan"))
    for start in range(0, shard.count, ROWS):
        good, inputs = [], []
        for row in range(start, min(start + ROWS, shard.count)):
            try:
                inputs.append(read_one(shard, row, field))
                good.append(row)
            except BadSample:
                continue
        if good:
            rows[good] = encode(torch.stack(inputs)).cpu()
    return rows


def read_one(shard: Shard, row: int, field: Field) -> Tensor:
    """The one tensor that a field makes of a sample; raises BadSample."""
    extension = shard.extension_of(row, field.extensions)
    if extension is None:
        raise BadSample(f"no_{field.extensions[0]}")
    (tensor,) = field.read(shard.read(row, extension)).values()
    return tensor


def spot_check(store: EmbeddingStore, shard: Shard, field: Field, encode: Callable[[Tensor], Tensor]) -> None:
    """Raise DataError when a few stored embeddings are not what the live teacher makes of their samples."""
    for row in range(0, shard.count, max(1, shard.count // SPOT_CHECKS)):
        try:
            stored = store.read(shard.path, shard.keys, row)
            live = encode(read_one(shard, row, field)[None])[0].cpu()
        except BadSample:
            continue
        cosine = float(stored @ live)
        if cosine < MIN_COSINE:
            raise DataError(
                f"{store.folder}: the stored embedding of {shard.path}:{shard.keys[row]} has cosine {cosine:.4f} with the "
                f"live teacher's (at least {MIN_COSINE} is needed); remove the folder, it is filled anew"
            )


def weight_hash(teacher: Teacher) -> str:
    """Hash of every weight of both towers, in the dtype they are used in."""
    digest = hashlib.sha256()
    for name, value in sorted(teacher.module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tokenizer_identity(teacher: Teacher) -> str:
    """Name of an open_clip tokenizer, hash of a vocabulary file."""
    name = teacher.tokenizer_name or ""
    return hashlib.sha256(Path(name).read_bytes()).hexdigest() if name.endswith(".model") else name


def plain(how: dict[str, Any]) -> dict[str, Any]:
    """As JSON would give it back: tuples become lists."""
    return {k: plain(v) if isinstance(v, dict) else list(v) if isinstance(v, tuple) else v for k, v in how.items()}

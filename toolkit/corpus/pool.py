"""The two stores side by side: what is chosen from, and the pictures that decide."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from toolkit.corpus.request import Request
from toolkit.data.shards import ShardPath, expand_shards, local_file
from toolkit.data.stored import (
    TEACHER_KEYS,
    StoredPool,
    StoredShard,
    read_manifest,
    store_folder,
    stored_for,
    stored_shards,
)
from toolkit.errors import DataError


@dataclass(frozen=True)
class Pool:
    """Both stores, opened and found to be of one teacher."""

    teacher: dict[str, Any]
    """Name, weight hash and width."""
    manifest: dict[str, Any]
    """Of the text store, for the store that is written."""
    images: StoredPool
    texts: StoredPool
    text_folder: Path


def open_pool(request: Request) -> Pool:
    """Raises DataError for stores of two teachers, shards that are not embedded, and shards that cannot be found."""
    folders = {kind: store_folder(getattr(request, f"{kind}s"), kind) for kind in ("image", "text")}
    manifests = {kind: read_manifest(folder) for kind, folder in folders.items()}
    images, texts = manifests["image"], manifests["text"]
    if folders["image"].resolve() == folders["text"].resolve():
        raise DataError(
            f"--images and --texts are both {folders['text']}; give the store of the images and that of the texts"
        )
    wrong = [f"{key} {images[key]} / {texts[key]}" for key in TEACHER_KEYS if images[key] != texts[key]]
    if wrong:
        raise DataError(
            f"{folders['image']} and {folders['text']} hold embeddings of two teachers ({'; '.join(wrong)}), which cannot be "
            "compared; embed images and sentences with the same teacher and precision"
        )
    width = int(texts["width"])
    return Pool(
        {key: texts[key] for key in TEACHER_KEYS},
        texts,
        StoredPool(stored_shards(folders["image"]), width),
        StoredPool(text_shards(request, folders["text"]), width),
        folders["text"],
    )


def text_shards(request: Request, folder: Path) -> list[StoredShard]:
    """Those of `--shards`, else all in the store but the command's own and those that are mixed in."""
    if request.shards:
        return stored_for(folder, request.shards, asked_by="--shards")
    mixed = {path.resolve() for mix in request.mix for path in expand_shards(mix.pattern, asked_by="--mix")}
    out = request.out.resolve()
    found = []
    for shard in stored_shards(folder):
        if shard.path is None:
            raise DataError(
                f"{folder} does not say where the shard {shard.name} lies (it was filled by an earlier version); name the shards "
                "with --shards"
            )
        here = shard.path if isinstance(shard.path, Path) else None
        if shard.path in mixed or (here and here.parent == out):
            continue
        if here and not here.is_file():
            raise DataError(f"{shard.path}, embedded in {folder}, is not there any more; name the shards with --shards")
        found.append(shard)
    if not found:
        raise DataError(
            f"{folder} holds no shards to choose from beside those of --mix; embed some, or name them with --shards"
        )
    return found


def fingerprint(request: Request, pool: Pool, device: str) -> str:
    """What the partial results depend on: stores, shards, filters and sizes, but not method, number or workers."""
    content = {
        "version": 1,
        "torch": torch.__version__,
        "device": device,
        "teacher": pool.teacher,
        "images": [entry(shard) for shard in pool.images.shards],
        "texts": [(*entry(shard), str(shard.path), *stamp(shard.path)) for shard in pool.texts.shards],
        "filters": asdict(request.active_filters()),
        "text_key": request.text_key,
        "max_k": request.max_k,
        "sizes": asdict(request.sizes),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def entry(shard: StoredShard) -> tuple[str, int, str, int, int]:
    """A stored shard as it is now."""
    return (str(shard.file.resolve()), shard.samples, shard.keys_sha256, *stamp(shard.file))


def stamp(path: ShardPath | None) -> tuple[int, int]:
    """Bytes and time of change, those of a remote shard's copy."""
    assert path is not None
    found = local_file(path).stat()
    return found.st_size, found.st_mtime_ns

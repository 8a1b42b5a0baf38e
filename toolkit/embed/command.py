"""`dime embed`: teachers over image or text shards, several processes, restartable per shard; and a second look at a store."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from accelerate import PartialState

from toolkit import config, distributed
from toolkit.config import Augmentation
from toolkit.data.shards import ShardPath, count_samples, expand_shards
from toolkit.data.store import IMPORTED, MANIFEST, EmbeddingStore
from toolkit.data.stored import read_manifest, stored_shards
from toolkit.data.views import RecordedViews
from toolkit.embed.fill import Tally, fill, missing
from toolkit.embed.pool import Pool, identity_of, image_pool, text_pool, views_of, weight_hash
from toolkit.embed.prepare import about
from toolkit.embed.verify import Verdict, check_files, compare_sample
from toolkit.errors import ConfigError, DataError
from toolkit.models import Teacher, build_teacher

NEVER = timedelta(days=30)
"""Processes wait for the slowest at the end, however long that takes."""


@dataclass(frozen=True)
class Request:
    """What to embed, by whom, and how it is stored."""

    kind: Literal["image", "text"]
    shards: str
    out: Path
    teachers: dict[str, config.Teacher]
    """By the folder of their stores inside `out`; empty for the main one."""
    precision: Literal["fp32", "bf16"] = "bf16"
    store_as: Literal["fp32", "bf16", "fp16", "int8"] = "bf16"
    views: int = 0
    """Random crops per picture; 0: the plain view."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    keys: str = "jpg;jpeg;png;webp"
    """Fields that may hold the picture or sentence."""
    max_pixels: int = 89_478_485
    workers: int = 2
    batch_size: int = 256
    part: tuple[int, int] = (0, 1)
    """(i, n): every n-th shard from the i-th on, for array jobs."""


def embed(request: Request, *, as_json: bool) -> list[dict[str, Any]]:
    """Fill a store per teacher; what is there already stays. Raises ConfigError and DataError for what does not fit."""
    PartialState(timeout=NEVER)
    paths = expand_shards(request.shards, asked_by=f"{request.kind} shards")
    paths, of_all = paths[request.part[0] :: request.part[1]], len(paths)
    results: list[dict[str, Any]] = []
    frame = 0
    if not paths:
        distributed.say(f"--part {request.part[0]}/{request.part[1]} of {of_all:,} shards is none; nothing to embed")
        request = replace(request, teachers={})
    for name, cfg in request.teachers.items():
        teacher = build_teacher(cfg, request.precision, distributed.device())
        frame = frame or frame_of(request, teacher)
        results.append(embed_with(request, request.out / name / request.kind, cfg, teacher, paths, frame))
    for result in results:
        distributed.say(in_words(result))
    if as_json:
        distributed.say(json.dumps({"stores": results}))
    return results


def frame_of(request: Request, first: Teacher) -> int:
    """Side that crops are drawn for: the largest of the teachers', so that all of them see the same."""
    cpu = torch.device("cpu")
    others = list(request.teachers.values())[1:] if request.views else []
    sides = [build_teacher(cfg, request.precision, cpu).preprocess.image_size for cfg in others]
    return max(first.preprocess.image_size, *sides, 0)


def embed_with(
    request: Request, folder: Path, cfg: config.Teacher, teacher: Teacher, paths: Sequence[ShardPath], frame: int
) -> dict[str, Any]:
    """One teacher over the shards; every process its share."""
    pool = pool_of(request, teacher, frame)
    store = open_store(request, folder, cfg, teacher, pool)
    counts = count_samples(paths)
    todo = distributed.broadcast_object(list(missing(store, paths, counts)))
    distributed.say(
        f"{teacher.name} ({request.precision}) over {len(todo):,} of {len(paths):,} shards into {folder}, "
        f"{distributed.world()} processes"
    )
    share = todo[distributed.rank() :: distributed.world()]
    tally = fill(
        store, [path for path, _ in share], [count for _, count in share], pool, workers=request.workers,
        batch_size=request.batch_size, speak=distributed.is_main(),
    )  # fmt: skip
    total = Tally()
    for other in gathered(tally):
        total.add(other)
    done = [store.file_of(path) for path in paths]
    stored = sum(file.stat().st_size for file in done)
    return {
        "store": str(folder), "teacher": teacher.name, "precision": request.precision, "stored_as": request.store_as,
        "shards": len(paths), "samples": sum(counts), "bytes": stored, "bytes_per_sample": round(stored / sum(counts), 1),
        "new": {
            "shards": total.shards, "samples": total.samples, "unreadable": dict(total.unreadable), "embeddings": total.rows,
            "seconds": round(total.seconds, 2), "samples_per_second": round(total.samples / max(total.seconds, 1e-9), 1),
            "data_wait_percent": round(100 * total.waited / max(total.seconds, 1e-9), 1),
            "cosine_mean": total.cosine_sum / total.rows if total.rows else None,
            "cosine_min": total.cosine_min if total.rows else None,
            "same_neighbour_percent": round(100 * total.same_neighbour / total.rows, 2) if total.rows else None,
        },
    }  # fmt: skip


def gathered(tally: Tally) -> list[Tally]:
    """Of all processes."""
    if distributed.world() == 1:
        return [tally]
    found: list[Any] = [None] * distributed.world()
    dist.all_gather_object(found, tally)
    return found


def pool_of(request: Request, teacher: Teacher, frame: int) -> Pool:
    """What the teacher meets."""
    if request.kind == "text":
        return text_pool(teacher, request.shards, "text shards", request.keys)
    views = (
        RecordedViews(teacher.preprocess, frame, request.augmentation, request.views, request.seed, request.max_pixels)
        if request.views
        else None
    )
    return image_pool(teacher, request.shards, "image shards", request.keys, request.max_pixels, views)


def open_store(request: Request, folder: Path, cfg: config.Teacher, teacher: Teacher, pool: Pool) -> EmbeddingStore:
    """The folder with its manifest; raises DataError when it holds something else."""
    named = asdict(cfg) | {"dtype": request.precision, "store": "", "in_memory": True}
    for key in ("name", "pretrained", "tokenizer"):  # paths stay true from another folder
        if named[key] and os.path.exists(named[key]):
            named[key] = str(Path(named[key]).resolve())
    identity = identity_of(teacher, pool, weight_hash(teacher)) | {"stored_as": request.store_as}
    extra = about(teacher) | {"fields": request.keys, "max_pixels": request.max_pixels, "teacher_config": named}
    store = EmbeddingStore(folder, identity, extra)
    store.check_identity()
    distributed.barrier()
    if distributed.is_main() and store.manifest() is None:
        store.write_identity()
    distributed.barrier()
    return store


def in_words(result: dict[str, Any]) -> str:
    """What was done, in two lines."""
    new = result["new"]
    bad = sum(new["unreadable"].values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in new["unreadable"].items())
    lines = [
        f"{result['store']}: {result['samples']:,} samples in {result['shards']:,} shards, {result['bytes']:,} bytes "
        f"({result['bytes_per_sample']:,.0f} per sample)"
    ]
    if new["samples"]:
        lines.append(
            f"  new: {new['samples']:,} samples, {new['samples_per_second']:,.0f}/s, data wait {new['data_wait_percent']:.0f} %"
            + (f"; {bad:,} unreadable ({reasons})" if bad else "")
        )
    if new["embeddings"] and result["stored_as"] != "fp32":
        lines.append(
            f"  stored as {result['stored_as']}: cosine with what was computed {new['cosine_mean']:.6f} on average, "
            f"{new['cosine_min']:.6f} at least; nearest neighbour kept for {new['same_neighbour_percent']:.2f} %"
        )
    return "\n".join(lines)


def verify(folder: Path, samples: int, seed: int, teacher: config.Teacher | None, *, as_json: bool) -> dict[str, Any]:
    """Look at every store in `folder` again; `samples` of each are encoded anew. `teacher` overrides the manifest's."""
    found: dict[str, dict[str, Any]] = {}
    for where in store_folders(folder):
        verdict = verify_one(where, samples, seed, teacher)
        found[str(where)] = {
            "compared": verdict.compared, "cosine_mean": verdict.mean, "cosine_min": verdict.worst,
            "wrong": len(verdict.wrong), "first_wrong": verdict.wrong[:20], "notes": verdict.notes,
        }  # fmt: skip
        print(
            f"{where}: {len(verdict.wrong):,} things wrong; {verdict.compared:,} embeddings computed again, cosine {verdict.mean:.6f} "
            f"on average, {verdict.worst:.6f} at least"
        )
        print("".join(f"  {line}\n" for line in [*verdict.notes, *verdict.wrong[:20]]), end="", flush=True)
    result = {"stores": found, "wrong": sum(int(store["wrong"]) for store in found.values())}
    if as_json:
        print(json.dumps(result))
    return result


def store_folders(folder: Path) -> list[Path]:
    """Every folder with a manifest at or below; raises DataError where there is none."""
    patterns = (MANIFEST, f"*/{MANIFEST}", f"*/*/{MANIFEST}")
    found = sorted(path.parent for pattern in patterns for path in folder.glob(pattern))
    if not found:
        raise DataError(
            f"{folder} holds no store of embeddings (no {MANIFEST} there or below); give the folder of --out"
        )
    return found


def verify_one(folder: Path, samples: int, seed: int, chosen: config.Teacher | None) -> Verdict:
    """One store: files first, then the teacher."""
    manifest = read_manifest(folder)
    verdict = Verdict()
    shards = check_files(folder, stored_shards(folder), verdict)
    cfg = chosen or (config.Teacher(**manifest["teacher_config"]) if "teacher_config" in manifest else None)
    if cfg is None:
        verdict.notes.append(
            "the manifest does not say how to build its teacher, so nothing was encoded; give --teacher"
        )
        return verdict
    computed_in: Literal["fp32", "bf16"] = "bf16" if manifest.get("computed_in") == "bfloat16" else "fp32"
    teacher = build_teacher(replace(cfg, dtype=computed_in), computed_in, distributed.device())
    if manifest["weights_sha256"] not in (IMPORTED, weight_hash(teacher)):
        verdict.wrong.append(f"{teacher.name} has other weights now than when it filled the store")
    keys, pixels = manifest.get("fields", ""), manifest.get("max_pixels", Request.max_pixels)
    if "tokenizer" in manifest or (manifest["weights_sha256"] == IMPORTED and folder.name == "text"):
        pool = text_pool(teacher, "", "store", keys or "txt")
    else:
        pool = image_pool(
            teacher,
            "",
            "store",
            keys or Request.keys,
            pixels,
            views_of(manifest.get("view"), teacher, pixels, str(folder)),
        )
    store = EmbeddingStore(folder, manifest)
    compare_sample(store, shards, pool, samples, seed, verdict)
    return verdict


def check(request: Request) -> None:
    """Raise ConfigError for options that contradict each other, before a teacher is built."""
    if request.kind == "text" and request.views:
        raise ConfigError("--views are crops of pictures; sentences have none, leave it out")
    if request.views < 0 or request.batch_size < 1:
        raise ConfigError(
            f"--views ({request.views}) and --batch-size ({request.batch_size}) must not be negative or zero"
        )
    i, n = request.part
    if not 0 <= i < n:
        raise ConfigError(f"--part {i}/{n}: the first number counts from 0 and is below the second")
    low, high = request.augmentation.crop_scale
    if not 0 < low <= high <= 1:
        raise ConfigError(f"--crop-scale {low} {high}: fractions of the picture's area, the smaller first, at most 1")

"""The stores of a training run: filled where a live teacher can, complete where it is not in memory."""

from pathlib import Path
from typing import Any

import torch

from toolkit import config, distributed
from toolkit.config import Run
from toolkit.data.cache import cache_of
from toolkit.data.shards import count_samples, expand_shards
from toolkit.data.store import IMPORTED, MANIFEST, EmbeddingStore
from toolkit.data.store_file import DTYPES
from toolkit.data.stored import read_manifest
from toolkit.data.views import RecordedViews
from toolkit.embed.fill import fill, missing
from toolkit.embed.pool import Pool, identity_of, plain, pools, views_of, weight_hash
from toolkit.embed.verify import spot_check
from toolkit.errors import DataError
from toolkit.models import StoredTeacher, Teacher


def teacher_config(run: Run, name: str) -> config.Teacher:
    """Of the main teacher (`teacher`) or an extra one."""
    return run.extra_teachers.get(name, run.teacher)


def prepare_stores(run: Run, teachers: dict[str, Teacher], reads_text: bool) -> dict[str, EmbeddingStore]:
    """Stores by the name of the tensor they give (`teacher_image_features`), none for teachers without `store`.

    A collective. What is missing is embedded now. Raises DataError when a folder belongs to another teacher or view, is
    incomplete and its teacher not in memory, or a few stored embeddings differ from the live teacher's.
    """
    stores: dict[str, EmbeddingStore] = {}
    for name, teacher in teachers.items():
        folder = teacher_config(run, name).store
        if not folder:
            continue
        if isinstance(teacher, StoredTeacher):
            found = complete_stores(run, folder, teacher, reads_text)
        else:
            found = filled_stores(run, folder, teacher, reads_text)
        stores |= {f"{name}_{kind}_features": store for kind, store in found.items()}
    return stores


def filled_stores(run: Run, folder: str, teacher: Teacher, reads_text: bool) -> dict[str, EmbeddingStore]:
    """`{"image": ..., "text": ...}` of a live teacher, with every shard of the run."""
    weights = weight_hash(teacher)
    stores = {}
    for kind, pool in pools(run, teacher, reads_text, recorded_views(run, folder, teacher)).items():
        store = store_of(folder, teacher, kind, pool, weights)
        distributed.barrier()
        if distributed.is_main() and store.manifest() is None:
            store.write_identity()
        distributed.barrier()
        paths = expand_shards(pool.pattern, asked_by=pool.asked_by, cache=cache_of(run.data))
        todo = distributed.broadcast_object(list(missing(store, paths, count_samples(paths))))
        if todo:
            distributed.say(f"embedding {len(todo)} of {len(paths)} shards with the teacher into {store.folder}")
        share = todo[distributed.rank() :: distributed.world()]
        fill(
            store, [path for path, _ in share], [count for _, count in share], pool, workers=run.workers,
            speak=distributed.is_main(),
        )  # fmt: skip
        distributed.barrier()
        spot_check(store, paths[0], pool)
        stores[kind] = store
    return stores


def store_of(folder: str, teacher: Teacher, kind: str, pool: Pool, weights: str) -> EmbeddingStore:
    """The store of a pool under `teacher.store`; raises DataError when the folder belongs to another teacher or view.

    How rows are stored is the folder's affair; of imported ones only the width is known, and a spot check decides.
    """
    identity = identity_of(teacher, pool, weights) | {"stored_as": "fp32"}
    store = EmbeddingStore(Path(folder) / kind, identity, about(teacher))
    found = store.manifest()
    if found is not None:
        free = [key for key in identity if key != "width"] if found.get("weights_sha256") == IMPORTED else ["stored_as"]
        store.identity |= {key: found.get(key) for key in free}
        if store.identity["stored_as"] not in DTYPES:
            raise DataError(
                f"{store.folder}/{MANIFEST}: stored_as is none of {', '.join(DTYPES)}; embed the shards again"
            )
    store.check_identity()
    return store


def about(teacher: Teacher) -> dict[str, Any]:
    """What a manifest says of a teacher beside its identity, enough to train without it."""
    scalars = {"logit_scale": teacher.logit_scale, "logit_bias": teacher.logit_bias}
    return {
        **{name: None if value is None else float(value) for name, value in scalars.items()},
        "tokenizer_name": teacher.tokenizer_name,
        "image_params": teacher.image_params,
        "text_params": teacher.text_params,
        "computed_in": str(teacher.dtype).removeprefix("torch."),
    }


def recorded_views(run: Run, folder: str, teacher: Teacher) -> RecordedViews | None:
    """The crops that the store has seen and the student sees again; None where the teacher sees plain pictures.

    Raises DataError where the store and `data.teacher_view` or `data.augmentation` contradict each other.
    """
    view = store_view(folder)
    check_view(run, folder, view)
    return views_of(view, teacher, run.data.max_image_pixels, folder)


def store_view(folder: str) -> Any:
    """`plain`, the rules of the crops, or None for a store that is not there yet."""
    path = Path(folder) / "image" / MANIFEST
    return read_manifest(path.parent).get("view", "plain") if path.is_file() else None


def check_view(run: Run, folder: str, view: Any) -> None:
    """Raise DataError where the run sees pictures in another way than the teacher of the store did."""
    same = run.data.teacher_view == "same"
    if same and view is None:
        raise DataError(
            f"data.teacher_view=same replays the crops of a store, and teacher.store={folder} holds none yet; make it with "
            "`dime embed images ... --views N`, or unset teacher.store"
        )
    if same != isinstance(view, dict) and view is not None:
        seen = "crops" if isinstance(view, dict) else "plain pictures"
        raise DataError(
            f"{folder} holds embeddings of {seen} and data.teacher_view={run.data.teacher_view}; set data.teacher_view="
            f"{'plain' if same else 'same'}, or use another store"
        )
    if isinstance(view, dict):
        wanted = plain(vars(run.data.augmentation))
        wrong = [
            f"{key}: {view.get(key)} there, {value} here" for key, value in wanted.items() if view.get(key) != value
        ]
        if wrong:
            raise DataError(
                f"{folder} holds crops drawn by other rules than data.augmentation ({'; '.join(wrong)}); set data.augmentation "
                "as it is there, or embed again"
            )


def complete_stores(run: Run, folder: str, teacher: StoredTeacher, reads_text: bool) -> dict[str, EmbeddingStore]:
    """The stores as they lie there; raises DataError when a shard of the run is missing."""
    check_view(run, folder, store_view(folder))
    stores = {}
    wanted = {"image": "pairs" if run.data.pairs else "images"}
    if reads_text:
        wanted["text"] = "pairs" if run.data.pairs else "texts"
    for kind, name in wanted.items():
        store = EmbeddingStore(Path(folder) / kind, teacher.manifests[kind] | {"width": teacher.embed_dim})
        store.check_identity()
        key = f"data.{name}"
        paths = expand_shards(config.shards_of(run.data, name), asked_by=key, cache=cache_of(run.data))
        lacking = [path for path, _ in missing(store, paths, count_samples(paths))]
        if lacking:
            raise DataError(
                f"{store.folder} lacks {len(lacking)} of the {len(paths)} shards of {key}, the first is {lacking[0]}, and "
                f"teacher.in_memory=false; embed them with `dime embed {kind}s`, or set teacher.in_memory=true"
            )
        stores[kind] = store
    return stores


def stored_teacher(cfg: config.Teacher, precision: str, device: torch.device, reads_text: bool) -> StoredTeacher:
    """A teacher known from its store alone; raises DataError when the two stores are of different teachers."""
    kinds = ("image", "text") if reads_text else ("image",)
    manifests = {kind: read_manifest(Path(cfg.store) / kind) for kind in kinds}
    for key in ("teacher", "weights_sha256", "width"):
        values = {manifest[key] for manifest in manifests.values()}
        if len(values) > 1:
            raise DataError(
                f"{cfg.store}/image and {cfg.store}/text are of different teachers ({key}: {' and '.join(map(str, values))}); "
                "embed pictures and sentences with the same one"
            )
    return StoredTeacher(cfg, manifests, precision, device)

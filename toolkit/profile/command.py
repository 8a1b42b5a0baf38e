"""`dime profile data`: time the stages of a run's streams, say how many cores a GPU needs."""

import json
import math
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

from toolkit.config import Batch, Run, shards_of
from toolkit.data.build import Source, build_sources
from toolkit.data.cache import cache_of
from toolkit.data.jpeg import simplejpeg
from toolkit.data.shards import count_samples, expand_shards
from toolkit.data.store import EmbeddingStore
from toolkit.errors import ConfigError, DataError
from toolkit.losses.registry import LOSSES
from toolkit.models.outline import Outline, student_outline, teacher_outline
from toolkit.models.tokenizers import build_tokenizer
from toolkit.profile.stages import Timed, on_one_thread, profile_stream

GPUS = {
    "an H100 or H200 with stored teacher embeddings": 5600.0,
    "an H100 or H200 with a live ViT-L/14 teacher": 1750.0,
}
"""Images per second of a ViT-B/32 student: estimates from its arithmetic (25 % of peak, the teacher 45 %), not measured."""
SAMPLES = 256


def profile_data(
    run: Run, *, samples: int = SAMPLES, gpu_images_per_second: float | None = None, as_json: bool = False
) -> dict[str, Any]:
    """Print the table and the sentence, with `as_json` the same as one object in the last line; returns that object.

    No teacher is built where its name or card says how it sees pictures. Raises ConfigError for options that make no sense,
    DataError for the run's shards.
    """
    if samples < 2:
        raise ConfigError(f"--samples ({samples}) must be at least 2")
    if gpu_images_per_second is not None and not gpu_images_per_second > 0:
        raise ConfigError(f"--gpu-images-per-second ({gpu_images_per_second:g}) must be above 0")
    notes: list[str] = []
    sources = sources_of_run(run, notes)
    timed = {name: on_one_thread(partial(profile_stream, source.stream, samples)) for name, source in sources.items()}
    sentences_per_image = (run.data.text_batch_size or run.data.global_batch_size) / run.data.global_batch_size
    rates = GPUS if gpu_images_per_second is None else {"a GPU": gpu_images_per_second}
    found: dict[str, Any] = {
        "recipe": {"images": shards_of(run.data, "images") or run.data.pairs, "student": run.student.name},
        "decoder": "simplejpeg" if simplejpeg else "torchvision",
        "streams": {name: as_dict(one) for name, one in timed.items()},
        "gpus": [cores_for(timed, sentences_per_image, name, rate) for name, rate in rates.items()],
        "notes": notes,
    }
    print("\n".join([table(timed), *(f"Note: {note}" for note in notes), *sentences(timed, found["gpus"])]), flush=True)
    if as_json:
        print(json.dumps(found), flush=True)
    return found


def sources_of_run(run: Run, notes: list[str]) -> dict[str, Source]:
    """The streams as training would build them, with small batches."""
    active = [chosen.kind or name for name, chosen in run.losses.items() if chosen.weight or chosen.final_weight]
    needs = frozenset[str]().union(*(getattr(LOSSES[kind], "needs", ()) for kind in active))
    teacher = teacher_outline(run.teacher) if run.teacher.name else None
    student = student_outline(run.student, teacher)
    teachers = {} if teacher is None or "teacher" not in needs else {"teacher": teacher}
    teachers |= {name: teacher_outline(one) for name, one in run.extra_teachers.items()} if teachers else {}
    notes += [f"{name} was built to see how it takes pictures." for name, one in teachers.items() if one.built]
    stores = stores_of(run, teachers, "text" in needs, notes)
    tokenizers = tokenizers_of(run, student, teachers, reads_text="text" in needs, stores=stores)
    try:
        return build_sources(
            run.data, Batch(1, 1, 1, 1, 1, 1), student=student.preprocess,
            teachers={name: one.preprocess for name, one in teachers.items()}, tokenizers=tokenizers, seed=run.seed,
            stores=stores,
        )  # fmt: skip
    except DataError as error:
        raise DataError(
            f"{error}. A recipe that makes its own data, as recipes/quickstart.py does, must have run first"
        ) from error


def stores_of(run: Run, teachers: Collection[str], reads_text: bool, notes: list[str]) -> dict[str, EmbeddingStore]:
    """Those of the run that hold all of its shards, by the tensor they give; training looks whose they are."""
    found = {}
    asked = {name: run.teacher.store if name == "teacher" else run.extra_teachers[name].store for name in teachers}
    for name, folder in asked.items():
        for kind in ("image", "text") if folder else ():
            pattern = run.data.pairs or shards_of(run.data, f"{kind}s")
            if not pattern or (kind == "text" and not reads_text):
                continue
            asked_by = "data.pairs" if run.data.pairs else f"data.{kind}s"
            store = EmbeddingStore(Path(folder) / kind, {})
            store.identity = store.manifest() or {}
            paths = expand_shards(pattern, asked_by=asked_by, cache=cache_of(run.data))
            if all(store.is_complete(path, count) for path, count in zip(paths, count_samples(paths), strict=True)):
                found[f"{name}_{kind}_features"] = store
            else:
                notes.append(f"{store.folder} does not hold all shards yet: timed as with a live teacher ({kind}s).")
    return found


def tokenizers_of(
    run: Run, student: Outline, teachers: dict[str, Outline], *, reads_text: bool, stores: Collection[str]
) -> dict[str, Any]:
    """By the name of the tensor, as training has them."""
    wanted = {"student_tokens": student} if run.student.text_tower else {}
    if reads_text:
        wanted |= {f"{name}_tokens": one for name, one in teachers.items() if f"{name}_text_features" not in stores}
    named = {name: one for name, one in wanted.items() if one.tokenizer}
    return {name: build_tokenizer(str(one.tokenizer), one.context_length) for name, one in named.items()}


def cores_for(timed: dict[str, Timed], sentences_per_image: float, gpu: str, rate: float) -> dict[str, Any]:
    """Whole cores that keep a GPU busy, and `workers`: every stream has so many processes, so the slowest decides."""
    weights = {name: sentences_per_image if name == "texts" else 1.0 for name in timed}
    shares = {name: rate * weights[name] / one.per_second for name, one in timed.items()}
    return {
        "name": gpu,
        "images_per_second": rate,
        "cores": math.ceil(sum(shares.values())),
        "workers": math.ceil(max(shares.values())),
    }


def as_dict(timed: Timed) -> dict[str, Any]:
    """As JSON has it."""
    stages = {name: {"microseconds": us, "per_second": 1e6 / us if us else None} for name, us in timed.stages.items()}
    whole = {"stream_microseconds": timed.stream, "per_second_per_core": timed.per_second}
    return {"samples": timed.samples, "kib_per_sample": timed.kib, "stages": stages, **whole}


def table(timed: dict[str, Timed]) -> str:
    """Stages of every stream in columns."""
    lines = []
    for name, one in timed.items():
        lines.append(f"data.{name}: {one.samples:,} samples, {one.kib:.1f} KiB each")
        rows = [*one.stages.items(), ("the stream as a whole", one.stream)]
        width = max(len(stage) for stage, _ in rows)
        lines += [
            f"  {stage:<{width}}  {us:>10,.1f} us  {1e6 / max(us, 1e-3):>12,.0f} /s  {us / one.stream:>6.1%}"
            for stage, us in rows
        ]
    return "\n".join(lines)


def sentences(timed: dict[str, Timed], gpus: list[dict[str, Any]]) -> list[str]:
    """What it comes to."""
    speeds = " and ".join(
        f"{one.per_second:,.0f} {'sentences' if name == 'texts' else 'images'}/s" for name, one in timed.items()
    )
    return [
        f"One core gives {speeds}; {gpu['name']} that takes {gpu['images_per_second']:,.0f} images/s needs {gpu['cores']} "
        f"core{'s' if gpu['cores'] > 1 else ''} per GPU: workers={gpu['workers']}."
        for gpu in gpus
    ]

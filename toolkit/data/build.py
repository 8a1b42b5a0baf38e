"""The streams of a run from its `data` section."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toolkit import config
from toolkit.config import Batch, Preprocess, shards_of, sources_of
from toolkit.data.cache import cache_of
from toolkit.data.images import is_plain
from toolkit.data.plan import MixedPlan, Plan, ResampledPlan
from toolkit.data.shards import ShardPath, count_samples, expand_shards
from toolkit.data.store import EmbeddingStore
from toolkit.data.streams import Field, ShardStream, SkipLimit, StreamBatch, batches
from toolkit.data.texts import TokenReader
from toolkit.data.views import TrainingViews
from toolkit.errors import DataError


@dataclass
class Source:
    """A stream with its global batch size and its count of bad samples."""

    stream: ShardStream
    global_batch: int
    limit: SkipLimit

    def facts(self) -> dict[str, int]:
        """Shards and samples, for the start of a run."""
        return {"shards": len(self.stream.paths), "samples": len(self.stream)}


def build_sources(
    data: config.Data,
    batch: Batch,
    *,
    student: Preprocess,
    teachers: dict[str, Preprocess],
    tokenizers: dict[str, Any],
    seed: int,
    stores: dict[str, EmbeddingStore] | None = None,
) -> dict[str, Source]:
    """`{"images": ..., "texts": ...}`, or `{"pairs": ...}`; no texts when no loss reads sentences.

    `teachers` are by the name of their tensors (`teacher` -> `teacher_images`), `tokenizers` by the name of the tensor they
    make; `stores`, by the name of the tensor they give, stand for a teacher's view or tokens. Raises DataError for shards that
    are missing or empty, and stores that saw different crops.
    """
    image_store = {name: store for name, store in (stores or {}).items() if name.endswith("_image_features")}
    text_store = {name: store for name, store in (stores or {}).items() if name.endswith("_text_features")}
    seen = {name: preprocess for name, preprocess in teachers.items() if f"{name}_image_features" not in image_store}
    frame = recorded_frame(image_store)
    views = TrainingViews(student, seen, data.augmentation, data.teacher_view, data.max_image_pixels, frame)
    image = Field(
        data.image_key.split(";"), views, random=not frame and not is_plain(data.augmentation), replays=bool(frame)
    )
    text = [Field(data.text_key.split(";"), TokenReader(tokenizers), random=False)] if tokenizers else []
    if data.pairs:
        wanted = {"pairs": ([image, *text], image_store | text_store, batch.global_images)}
    else:
        wanted = {"images": ([image], image_store, batch.global_images)}
        if text or text_store:
            wanted["texts"] = (text, text_store, batch.global_texts)
    sources = {}
    for number, (name, (fields, stored, global_batch)) in enumerate(wanted.items()):
        paths, plan = plan_of(data, name, 2 * seed + number)
        key = f"data.{name}"
        stream = ShardStream(
            key,
            paths,
            fields,
            seed=2 * seed + number,
            window_shards=data.shuffle_shards,
            max_skip_fraction=data.max_skip_fraction,
            stores=stored,
            plan=plan,
        )
        if len(stream) < global_batch:
            raise DataError(
                f"{key}={shards_of(data, name)} holds {len(stream)} samples, fewer than one global batch ({global_batch}), so a "
                "batch would hold the same sample twice; lower data.global_batch_size or data.text_batch_size, or add shards"
            )
        sources[name] = Source(stream, global_batch, SkipLimit(key, data.max_skip_fraction))
    return sources


def recorded_frame(stores: dict[str, EmbeddingStore]) -> int:
    """Side that the crops of these stores are drawn for, 0 where they saw plain pictures; raises DataError where they differ."""
    views = [store.identity.get("view", "plain") for store in stores.values()]
    if any(view != views[0] for view in views):
        raise DataError(
            f"{' and '.join(str(store.folder) for store in stores.values())} did not see the same crops of the pictures; embed "
            "them with one command (`dime embed images --teacher ... --teacher ...`)"
        )
    return int(views[0]["frame"]) if views and isinstance(views[0], dict) else 0


def plan_of(data: config.Data, kind: str, seed: int) -> tuple[list[ShardPath], Plan | MixedPlan]:
    """Paths of all sources of a kind and the order in which their samples come; raises DataError for missing shards."""
    paths: list[ShardPath] = []
    plans: list[Plan] = []
    sources = sources_of(data, kind) or {f"data.{kind}": config.Source()}
    for number, (asked_by, source) in enumerate(sources.items()):
        found = expand_shards(source.shards, asked_by=asked_by, cache=cache_of(data))
        paths += found
        build = Plan if data.sampling == "permuted" else ResampledPlan
        plans.append(build(count_samples(found), seed + 1_000_003 * number, data.shuffle_shards))
    if len(plans) == 1:
        return paths, plans[0]
    weights = [
        float(plan.total) if w.weight is None else w.weight for plan, w in zip(plans, sources.values(), strict=True)
    ]
    return paths, MixedPlan(plans, weights, seed)


def check_shards(run: config.Run) -> None:
    """Raise DataError at once, before any model is built, when a shard of the run does not exist.

    Of remote shards, indexes are read and a few are looked for; nothing is fetched.
    """
    cache = cache_of(run.data)
    for name in ("images", "texts", "pairs"):
        for asked_by, source in sources_of(run.data, name).items():
            expand_shards(source.shards, asked_by=asked_by, cache=cache)
    for name, chosen in run.evaluation.sets.items():
        expand_shards(chosen.shards, asked_by=f"evaluation.sets.{name}.shards", cache=cache)


class Streams:
    """All sources in step: one dictionary of batches per training step, from any step on."""

    def __init__(self, sources: dict[str, Source], *, rank: int, world: int, first_step: int, workers: int) -> None:
        """Position of every stream is `step * global batch`."""
        self.sources = sources
        self._iterators: dict[str, Iterator[StreamBatch]] = {
            name: batches(
                source.stream, source.global_batch, rank=rank, world=world, first_step=first_step, workers=workers
            )
            for name, source in sources.items()
        }

    def next(self) -> dict[str, StreamBatch]:
        """This rank's batches of the next step; raises DataError when too many samples are bad."""
        found = {name: next(iterator) for name, iterator in self._iterators.items()}
        for name, batch in found.items():
            self.sources[name].limit.add(batch)
        return found

    def skipped(self) -> dict[str, int]:
        """Replaced samples of this rank so far, by reason."""
        totals: dict[str, int] = {}
        for source in self.sources.values():
            for reason, count in source.limit.skipped.items():
                totals[reason] = totals.get(reason, 0) + count
        return totals

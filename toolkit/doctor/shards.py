"""Every shard of a run on every host: there, as long as its index says, and a few of its samples readable."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.config import Data, Run, sources_of
from toolkit.data.cache import cache_of
from toolkit.data.convert.check import sha256_of
from toolkit.data.decode import BadSample, decode_text
from toolkit.data.images import decode_image
from toolkit.data.index import INDEX_NAME, IndexEntry, read_index
from toolkit.data.remote import RemoteShard, is_remote, split_pattern
from toolkit.data.shards import Shard, ShardPath, expand_shards, scan_shard
from toolkit.doctor.check import Check, Context, Facts, Row, Verdict, gibibytes
from toolkit.errors import DataError
from toolkit.evaluate.sets import IMAGES, read_classes

OPENED = 4
"""Shards whose samples a rank looks at; of remote ones one, which is fetched, and only with --deep."""
TOLD = 10
"""Problems of a kind that the table shows."""
COPY_AGAIN = "copy or write it again; `dime shards check` looks at every sample"


@dataclass
class Look:
    """What was seen of the shards of one setting."""

    shards: int = 0
    bytes: int = 0
    samples: int = 0
    """By the index, over this rank's share; -1 where a shard is in no index."""
    hashed: int = 0
    decoded: int = 0
    remote: int = 0
    problems: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    """(verdict, shard, found, wanted, what to do)."""

    def add(self, verdict: str, shard: object, found: str, wanted: str, todo: str) -> None:
        """One more problem."""
        self.problems.append((verdict, str(shard), found, wanted, todo))


@dataclass(frozen=True)
class Wanted:
    """Shards that a setting names, and what their samples must hold."""

    asked_by: str
    pattern: str
    fields: tuple[tuple[str, tuple[str, ...]], ...]
    """(kind, extensions that may hold it)."""


def training_sets(run: Run) -> list[Wanted]:
    """Of the data section."""
    data = run.data
    pictures, sentences = ("picture", tuple(data.image_key.split(";"))), ("sentence", tuple(data.text_key.split(";")))
    fields = {"images": (pictures,), "texts": (sentences,), "pairs": (pictures, sentences)}
    found = [
        Wanted(asked_by, source.shards, fields[kind])
        for kind in fields
        for asked_by, source in sources_of(data, kind).items()
    ]
    return found or [Wanted("data.images", "", (pictures,))]


def evaluation_sets(run: Run) -> list[Wanted]:
    """Of the evaluation section."""
    label = {"classification": ("class number", ("cls",)), "retrieval": ("sentence", ("txt",))}
    return [
        Wanted(f"evaluation.sets.{name}.shards", chosen.shards, (("picture", IMAGES), label[chosen.kind]))
        for name, chosen in run.evaluation.sets.items()
    ]


def measure_training(context: Context) -> dict[str, Any]:
    """This rank's share of its host's shards."""
    return {wanted.asked_by: vars(look_at(wanted, context)) for wanted in training_sets(context.run)}


def measure_evaluation(context: Context) -> dict[str, Any]:
    """The same of the evaluation sets, and their classes."""
    found = {wanted.asked_by: vars(look_at(wanted, context)) for wanted in evaluation_sets(context.run)}
    for name, chosen in context.run.evaluation.sets.items():
        if chosen.kind == "classification":
            look, key = Look(), f"evaluation.sets.{name}.classes"
            try:
                read_classes(chosen.classes, asked_by=key)
            except DataError as error:
                look.add("bad", key, str(error), "", "")
            found[key] = vars(look)
    return found


def look_at(wanted: Wanted, context: Context) -> Look:
    """What this rank sees: every n-th shard, n being the ranks of its host."""
    look = Look()
    try:
        paths = expand_shards(wanted.pattern, asked_by=wanted.asked_by, cache=cache_of(context.run.data))
    except DataError as error:
        look.add("bad", wanted.asked_by, str(error), "", "a recipe that makes its own data must have run once before")
        return look
    here = context.neighbours()
    mine = paths[here.index(context.rank) :: len(here)]
    look.shards = len(paths)
    indexes = local_indexes(wanted, paths, look if context.is_first_here() else Look())
    for path in mine:
        if isinstance(path, RemoteShard):
            look.remote += 1
            note(look, path.entry)
        else:
            compare(look, path, indexes[path.parent], deep=context.deep)
    remote = [path for path in mine if isinstance(path, RemoteShard)]
    local = [path for path in mine if not isinstance(path, RemoteShard)]
    looked_into: list[ShardPath] = [*spread(local, OPENED), *(remote[:1] if context.deep else [])]
    for path in looked_into:
        read_samples(look, path, wanted, context.run.data)
    return look


def local_indexes(wanted: Wanted, paths: Sequence[ShardPath], look: Look) -> dict[Path, dict[str, IndexEntry]]:
    """By folder, empty where there is none; shards of a whole folder that its index names must be there."""
    found: dict[Path, dict[str, IndexEntry]] = {}
    for folder in dict.fromkeys(path.parent for path in paths if isinstance(path, Path)):
        try:
            index = read_index(folder)
        except DataError as error:
            look.add("bad", folder, str(error), "", "")
            index = {}
        if index is None:
            look.add(
                "warn", folder, f"no {INDEX_NAME}", "bytes and samples of each shard",
                "sizes cannot be compared, and every start counts the samples; `dime shards` writes the index",
            )  # fmt: skip
        found[folder] = index or {}
    parts = [part for part in split_pattern(wanted.pattern) if not is_remote(part, asked_by=wanted.asked_by)]
    for folder in (Path(part) for part in parts if Path(part).is_dir()):
        for name in found.get(folder, {}):
            if not (folder / name).is_file():
                look.add("bad", folder / name, "missing", f"{INDEX_NAME} names it", COPY_AGAIN)
    return found


def compare(look: Look, path: Path, index: dict[str, IndexEntry], *, deep: bool) -> None:
    """One shard with its entry."""
    try:
        size = path.stat().st_size
        look.bytes += size
        entry = index.get(path.name)
        note(look, entry)
        if entry is None:
            if index:
                look.add("warn", path, f"{INDEX_NAME} does not know it", "an entry", COPY_AGAIN)
        elif entry.bytes != size:
            look.add("bad", path, f"{size:,} bytes", f"{entry.bytes:,}, as {INDEX_NAME} says", COPY_AGAIN)
        elif deep and entry.sha256:
            look.hashed += 1
            if sha256_of(path) != entry.sha256:
                look.add("bad", path, "other contents", f"the sha256 of {INDEX_NAME}", COPY_AGAIN)
    except OSError as error:
        look.add("bad", path, error.strerror or str(error), "a readable file", "look at its file system on that node")


def note(look: Look, entry: IndexEntry | None) -> None:
    """Count samples as far as the index knows them."""
    look.samples = -1 if entry is None or look.samples < 0 else look.samples + entry.samples


def read_samples(look: Look, path: ShardPath, wanted: Wanted, data: Data) -> None:
    """The first, a middle and the last sample of a shard."""
    try:
        shard = scan_shard(path)
        for kind, extensions in wanted.fields:
            lacking = shard.lacking(extensions)
            if lacking > data.max_skip_fraction * shard.count:
                kinds = "' or '".join(extensions)
                found = (
                    f"{lacking} of {shard.count} samples have no {kind} in '{kinds}' ({', '.join(shard.extensions)})"
                )
                todo = (
                    "set data.image_key or data.text_key to what the shards hold" if "data" in wanted.asked_by else ""
                )
                look.add("bad", path, found, f"{data.max_skip_fraction:.0%} at most", todo or COPY_AGAIN)
                return
            read_kind(look, shard, kind, extensions, data.max_image_pixels)
    except (DataError, OSError) as error:
        look.add("bad", path, str(error), "a readable shard", COPY_AGAIN)


def read_kind(look: Look, shard: Shard, kind: str, extensions: Sequence[str], max_pixels: int) -> None:
    """One field of a few samples; those without it are the stream's affair."""
    rows = sorted({0, shard.count // 2, shard.count - 1}) if shard.count else []
    bad: list[str] = []
    for row in rows:
        extension = shard.extension_of(row, extensions)
        if extension is None:
            continue
        look.decoded += 1
        content = shard.read(row, extension)
        try:
            if kind == "picture":
                decode_image(content, max_pixels)
            else:
                text = decode_text(content)
                if kind == "class number" and not text.isdecimal():
                    raise BadSample("no_class_number")
        except BadSample as sample:
            bad.append(f"{shard.keys[row]} ({sample})")
    if bad:
        found = f"{len(bad)} of {len(rows)} samples looked at are no {kind}: {', '.join(bad)}"
        look.add("bad" if len(bad) == len(rows) else "warn", shard.path, found, "samples that decode", COPY_AGAIN)


def spread(paths: Sequence[Path], most: int) -> list[Path]:
    """The first, the last, and some between."""
    if len(paths) <= most:
        return list(paths)
    return [paths[round(k * (len(paths) - 1) / (most - 1))] for k in range(most)]


def judge(found: Facts, context: Context) -> list[Row]:
    """A row per problem, with the ranks that see it; one for each setting without any."""
    rows: list[Row] = []
    for key in dict.fromkeys(key for facts in found.values() for key in facts):
        looks = {rank: facts[key] for rank, facts in found.items()}
        problems: dict[tuple[Any, ...], list[int]] = {}
        for rank, look in looks.items():
            for problem in look["problems"]:
                problems.setdefault(tuple(problem), []).append(rank)
        for (verdict, shard, seen, wanted, todo), ranks in list(problems.items())[:TOLD]:
            rows.append(Row(shard, context.where(ranks), seen, wanted, verdict, todo))
        if len(problems) > TOLD:
            worst: Verdict = "bad" if any(problem[0] == "bad" for problem in problems) else "warn"
            more = f"{len(problems) - TOLD} more such shards"
            rows.append(Row(key, context.where(found), more, "", worst, COPY_AGAIN))
        if not problems:
            rows.append(Row(key, context.where(looks), in_words(looks, context)))
    return rows


def judge_training(found: Facts, context: Context) -> list[Row]:
    """The same, and whether each stream fills a batch."""
    rows = judge(found, context)
    here = [rank for rank, host in context.hosts.items() if host == context.hosts[min(found)]]
    first = [found[rank] for rank in here if rank in found]
    if len(first) < len(here):
        return rows  # nobody has seen the shares of the others
    batches = {
        "image": context.batch.global_images,
        "text": context.batch.global_texts,
        "pair": context.batch.global_images,
    }
    for kind, wanted in batches.items():
        looks = [look for facts in first for key, look in facts.items() if key.startswith(f"data.{kind}")]
        if not looks or any(look["samples"] < 0 or not look["shards"] for look in looks):
            continue
        total = sum(look["samples"] for look in looks)
        if total < wanted:
            todo = "lower data.global_batch_size or data.text_batch_size, or add shards"
            seen = f"{total:,} samples"
            rows.append(Row(f"data.{kind}s", context.where(found), seen, f"{wanted:,}, a global batch", "bad", todo))
    return rows


def in_words(looks: Facts, context: Context) -> str:
    """What was seen on the first host; the others saw the same shards."""
    first = [look for rank, look in looks.items() if context.hosts[rank] == context.hosts[min(looks)]]
    total = {name: sum(look[name] for look in first) for name in ("bytes", "hashed", "decoded", "remote")}
    shards = max(look["shards"] for look in first)
    if not shards:
        return "as it should be"
    parts = [f"{shards:,} shard{'s' * (shards > 1)}"]
    if all(look["samples"] >= 0 for look in first):
        parts.append(f"{sum(look['samples'] for look in first):,} samples")
    if total["remote"]:
        parts.append(f"{total['remote']:,} of them remote, some looked for")
    if total["bytes"]:
        parts.append(f"{gibibytes(total['bytes'])} as the index says")
    parts += [f"{total['hashed']:,} hashes right"] * bool(total["hashed"])
    return ", ".join([*parts, f"{total['decoded']:,} fields decoded"])


CHECK = Check("shards", "training shards against their index", measure_training, judge_training, seconds=900.0)
EVALUATION = Check("evaluation", "evaluation sets and classes", measure_evaluation, judge, seconds=600.0)

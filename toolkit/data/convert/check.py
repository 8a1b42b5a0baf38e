"""`dime shards check`: every shard against the index, every sample against what a run will want of it."""

import hashlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toolkit.data.convert.check_shard import Checked, Member, check_shard, samples_in
from toolkit.data.convert.duplicates import hash_bytes
from toolkit.data.convert.pool import run_all
from toolkit.data.convert.progress import Progress
from toolkit.data.index import IndexEntry, read_index
from toolkit.data.tar_headers import printable
from toolkit.errors import DataError

BLOCK = 1 << 20


class Verdict(NamedTuple):
    """What a worker found out about one shard."""

    checked: Checked
    wrong_shard: list[str]
    hashes: np.ndarray
    """Of its keys, in order."""
    fields: Counter[str]
    """Samples that have each field."""


def check_folder(
    folder: Path, *, fast: bool, max_pixels: int, workers: int, say: Callable[[str], object]
) -> dict[str, Any]:
    """`say` each thing that is wrong as `shard:key: reason`; returns the counts. Raises DataError without any shard.

    16 bytes of memory per sample: a hash of its key and its place in their order.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give the folder of the shards")
    index = read_index(folder)
    names = sorted({path.name for path in folder.glob("*.tar")} | set(index or {}))
    if not names:
        raise DataError(f"{folder} holds no .tar file; give the folder of the shards")
    if index is None:
        say(f"{folder} has no index.json: bytes, hashes and numbers of samples cannot be compared")
    reasons: Counter[str] = Counter()

    def tell(shard: str, key: str, reason: str) -> None:
        say(printable(f"{shard}:{key}: {reason}" if key else f"{shard}: {reason}"))
        reasons[reason.partition(" ")[0].rstrip(":")] += 1

    verdicts: dict[str, Verdict] = {}
    waiting = list(names)
    progress = Progress("checked", len(names), "shards")
    tasks = [(name, None if index is None else index.get(name, IndexEntry(-1, -1))) for name in names]
    for (name, _), verdict in run_all(partial(look_over, folder, fast, max_pixels), tasks, workers):
        verdicts[name] = verdict
        progress.add(1)
        while waiting and waiting[0] in verdicts:  # told in the order of the shards
            shard = waiting.pop(0)
            for reason in verdicts[shard].wrong_shard:
                tell(shard, "", reason)
            for key, reason in verdicts[shard].checked.problems:
                tell(shard, key, reason)
            verdicts[shard].checked.problems.clear()
    progress.close()
    for shard, key, reason in [*across(folder, verdicts), *lacking(folder, verdicts)]:
        tell(shard, key, reason)
    samples = sum(verdict.checked.samples for verdict in verdicts.values())
    found: dict[str, Any] = {"folder": str(folder), "shards": len(names), "samples": samples}
    return found | {"wrong": sum(reasons.values()), "reasons": dict(sorted(reasons.items())), "fast": fast}


def look_over(folder: Path, fast: bool, max_pixels: int, task: tuple[str, IndexEntry | None]) -> Verdict:
    """One shard; `entry` is None without an index, with -1 bytes when the index does not know it."""
    name, entry = task
    path = folder / name
    nothing = Checked(0, [])
    if not path.is_file():
        return Verdict(nothing, ["missing_shard: the index names it"], np.zeros(0, np.uint64), Counter())
    wrong = []
    size = path.stat().st_size
    if entry is not None and entry.bytes < 0:
        wrong.append("not_in_index")
    elif entry is not None and entry.bytes != size:
        wrong.append(f"other_bytes: the index says {entry.bytes}, found {size}")
    elif entry is not None and entry.sha256 and not fast and sha256_of(path) != entry.sha256:
        wrong.append("other_sha256: its contents have changed since the index was written")
    members, torn = samples_in(path)
    wrong += torn
    checked = check_shard(path, members, fast=fast, max_pixels=max_pixels)
    if entry is not None and entry.samples >= 0 and entry.samples != checked.samples:
        wrong.append(f"other_samples: the index says {entry.samples}, found {checked.samples}")
    if not checked.samples and not torn:
        wrong.append("empty_shard")
    hashes = np.array([hash_bytes(key.encode("utf-8", "surrogateescape")) for key, _ in members], np.uint64)
    return Verdict(checked, wrong, hashes, Counter(f for _, fields in members for f in kinds_of(fields)))


def kinds_of(fields: list[Member]) -> set[str]:
    """Names of fields, all pictures being one kind."""
    return {field.kind for field in fields}


def sha256_of(path: Path) -> str:
    """Of the whole file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def across(folder: Path, verdicts: dict[str, Verdict]) -> list[tuple[str, str, str]]:
    """Keys that an earlier shard has too. Hashes are compared first, then the keys themselves."""
    names = sorted(verdicts)
    together = np.concatenate([np.zeros(0, np.uint64), *(verdicts[name].hashes for name in names)])
    order = np.argsort(together, kind="stable")
    alike = np.zeros(len(together), bool)
    same = together[order[1:]] == together[order[:-1]]
    alike[order[1:][same]] = alike[order[:-1][same]] = True
    first: dict[str, str] = {}
    found = []
    begin = 0
    for name in names:
        mine = np.flatnonzero(alike[begin : begin + len(verdicts[name].hashes)])
        begin += len(verdicts[name].hashes)
        if len(mine):
            members, _ = samples_in(folder / name)
            for key in dict.fromkeys(members[place][0] for place in mine.tolist()):
                if key in first:
                    found.append((name, key, f"duplicate_key_in_other_shard: {first[key]} has it too"))
                first.setdefault(key, name)
    return found


def lacking(folder: Path, verdicts: dict[str, Verdict]) -> list[tuple[str, str, str]]:
    """Samples without a field that more than half of all samples have."""
    total: Counter[str] = Counter()
    for verdict in verdicts.values():
        total.update(verdict.fields)
    samples = sum(len(verdict.hashes) for verdict in verdicts.values())
    wanted = sorted(field for field, count in total.items() if 2 * count > samples)
    found = []
    for name in sorted(verdicts):
        if any(verdicts[name].fields[field] < len(verdicts[name].hashes) for field in wanted):
            for key, fields in samples_in(folder / name)[0]:
                missing = [field for field in wanted if field not in kinds_of(fields)]
                if missing:
                    found.append((name, key, f"missing_field: {', '.join(missing)}"))
    return found

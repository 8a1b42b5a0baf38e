"""Shards get their numbers; index, names, what was left out, stored features and, last, the report are written."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from toolkit.data.convert.features import FeatureFiles
from toolkit.data.convert.job import Job
from toolkit.data.convert.plan import Piece
from toolkit.data.convert.workspace import REPORT, Workspace, read_json
from toolkit.data.index import aside_of, write_aside, write_index
from toolkit.errors import DataError

SKIPPED = "skipped.jsonl"
NAMES = "names"


def finish(
    job: Job, work: Workspace, pieces: list[Piece], units: int, features: FeatureFiles | None, teacher: str, store: str
) -> dict[str, Any]:
    """Returns the report; raises DataError when no sample is left. Killed in here, the next run ends it the same way."""
    parts = [read_json(work.shards / f"{unit:06d}.json") for unit in range(units)]
    full = [unit for unit in range(units) if parts[unit]["samples"]]
    reasons = write_skipped(job, work, pieces, units)
    if not full:
        why = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common()) or "the sources are empty"
        raise DataError(f"not one of the {job.unit} can be used: {why}; see {work.out / SKIPPED}")
    digits = max(5, len(str(len(full) - 1)))
    names = {unit: f"{number:0{digits}d}" for number, unit in enumerate(full)}
    (work.out / NAMES).mkdir(exist_ok=True)
    for unit, name in names.items():
        place(work.shards / f"{unit:06d}.tar", work.out / f"{name}.tar")
        place(work.shards / f"{unit:06d}.names.jsonl", work.out / NAMES / f"{name}.jsonl")
    counts = {f"{name}.tar": int(parts[unit]["samples"]) for unit, name in names.items()}
    write_index(work.out, counts, {f"{name}.tar": parts[unit]["sha256"] for unit, name in names.items()})
    told: Counter[str] = Counter()
    for unit in full:
        told.update(parts[unit]["counts"])
    samples = sum(counts.values())
    report: dict[str, Any] = {
        "what": job.what,
        "inputs": samples + sum(reasons.values()),
        "samples": samples,
        "shards": len(full),
        "bytes": sum(part["bytes"] for part in parts if part["samples"]),
        **job.facts(told),
        "left_out": dict(sorted(reasons.items())),
    }
    if features is not None:
        write_store(job, work, names, features, teacher, Path(store))
        missing = {reason.partition(":")[2]: n for reason, n in sorted(told.items()) if reason.startswith("feature:")}
        report["features"] = {"store": store, "stored": samples - sum(missing.values()), "missing": missing}
    report["request"] = work.request
    write_aside(work.out / REPORT, json.dumps(report, indent=1) + "\n")
    work.remove()
    return report


def place(source: Path, target: Path) -> None:
    """Rename, unless an earlier run has."""
    if source.exists():
        source.replace(target)


def write_skipped(job: Job, work: Workspace, pieces: list[Piece], units: int) -> Counter[str]:
    """`skipped.jsonl` in a fixed order: listing, scan, repeats, packing; returns how many for which reason."""
    reasons: Counter[str] = Counter()
    parts = [job.listing_skips(number) for number in range(len(job.sources))]
    parts += [work.scans / f"{piece.stem}.skipped.jsonl" for piece in pieces]
    parts += [work.root / "repeats.jsonl"]
    parts += [work.shards / f"{unit:06d}.skipped.jsonl" for unit in range(units)]
    aside = aside_of(work.out / SKIPPED)
    with open(aside, "w") as out:
        for part in parts:
            with open(part) as lines:
                for line in lines:
                    reasons[json.loads(line)["reason"]] += 1
                    out.write(line)
    aside.replace(work.out / SKIPPED)
    return reasons


def write_store(
    job: Job, work: Workspace, names: dict[int, str], features: FeatureFiles, teacher: str, folder: Path
) -> None:
    """The features of each shard into an EmbeddingStore, as if the teacher had been run."""
    import numpy as np
    import torch  # only here: without stored features the converter starts without it

    from toolkit.data.store import IMPORTED, VERSION, EmbeddingStore

    identity = {"version": VERSION, "teacher": teacher, "weights_sha256": IMPORTED, "width": features.width}
    identity |= {"stored_as": "fp32", "imported_from": [os.path.basename(path) for path in features.paths]}
    store = EmbeddingStore(folder / job.store_kind, identity)
    store.check_identity()
    store.write_identity()
    for unit, name in names.items():
        rows = np.load(work.shards / f"{unit:06d}.npy", allow_pickle=False)
        lines = (work.out / NAMES / f"{name}.jsonl").read_text().splitlines()
        store.write(work.out / f"{name}.tar", [json.loads(line)["key"] for line in lines], torch.from_numpy(rows))

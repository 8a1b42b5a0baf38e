"""One shard from its inputs: the tar, the names its keys stand for, what was left out, and stored features if any."""

import json
import os
from collections import Counter
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from toolkit.data.convert.features import FeatureFiles
from toolkit.data.convert.job import Job
from toolkit.data.convert.outcome import LeftOut, Skip
from toolkit.data.convert.plan import inputs_of, load_pieces
from toolkit.data.convert.tar_writer import ShardWriter
from toolkit.data.convert.workspace import Workspace
from toolkit.data.index import write_aside


class Packing(NamedTuple):
    """What every shard of a conversion needs."""

    job: Job
    work: Workspace
    features: FeatureFiles | None


def pack_unit(packing: Packing, unit: int) -> int:
    """Write shard `unit` under `.work/shards`; `<unit>.json` last, which says that it is complete.

    A key is the number of the input among all that the plan kept, so it is unique and holds neither dot nor slash.
    """
    job, work, features = packing
    stem = work.shards / f"{unit:06d}"
    size = job.samples_per_shard
    counts: Counter[str] = Counter()
    skips, names, rows = [], [], []
    position = unit * size
    writer = ShardWriter(stem.with_suffix(".tar"))
    with ExitStack() as on_failure:
        on_failure.callback(writer.abandon)
        for piece, entries in inputs_of(work, load_pieces(work), unit, size):
            for sample in job.samples(piece.source, piece.number, entries):
                key = f"{position:09d}"
                position += 1
                if isinstance(sample, Skip):
                    skips.append(sample)
                    counts[sample.reason] += 1
                    continue
                writer.add(key, sample.extension, sample.data, sample.further)
                counts["kept" if sample.kept else "anew"] += 1
                names.append(json.dumps({"key": key, "source": sample.source, "name": sample.name}) + "\n")
                if features is not None:
                    try:
                        rows.append(features.vector(sample))
                    except LeftOut as error:
                        rows.append(np.full(features.width, np.nan, np.float32))
                        counts[f"feature:{error.reason}"] += 1
        on_failure.pop_all()
    sha256 = writer.close()
    write_aside(stem.with_suffix(".names.jsonl"), "".join(names))
    write_aside(stem.with_suffix(".skipped.jsonl"), "".join(json.dumps(skip._asdict()) + "\n" for skip in skips))
    if features is not None:
        aside = stem.with_suffix(f".{os.getpid()}.npy")
        np.save(aside, np.stack(rows) if rows else np.zeros((0, features.width), np.float32), allow_pickle=False)
        aside.replace(stem.with_suffix(".npy"))
    done: dict[str, Any] = {"samples": writer.samples, "bytes": writer.bytes, "sha256": sha256, "counts": counts}
    write_aside(stem.with_suffix(".json"), json.dumps(done))
    return writer.samples + len(skips)

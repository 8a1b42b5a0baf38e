"""Look at a store again: some embeddings computed anew, and every file against what its header says."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from toolkit.data.images import BadSample
from toolkit.data.shards import Shard, ShardPath, scan_shard
from toolkit.data.store import EmbeddingStore
from toolkit.data.store_file import StoredRows, hash_of, read_entry
from toolkit.data.stored import StoredShard
from toolkit.embed.pool import Pool
from toolkit.errors import DataError

MIN_COSINE = 0.999
"""Stored and live embedding of one sample must agree at least so well."""


@dataclass
class Verdict:
    """What a look at a store found."""

    compared: int = 0
    worst: float = 1.0
    total: float = 0.0
    wrong: list[str] = field(default_factory=list)
    """One line each."""
    notes: list[str] = field(default_factory=list)
    """What could not be looked at, and why."""

    @property
    def mean(self) -> float:
        """Mean cosine, 1 where nothing was compared."""
        return self.total / self.compared if self.compared else 1.0


def compare_rows(store: EmbeddingStore, shard: Shard, rows: Sequence[int], pool: Pool, verdict: Verdict) -> None:
    """Encode these samples again, every stored view through its recorded crop, and compare."""
    file = store.file_of(shard.path)
    opened = StoredRows(file)
    if read_entry(file).keys_sha256 != hash_of(shard.keys):
        verdict.wrong.append(f"{file} was made from other samples than {shard.path} holds (keys differ)")
        return
    for row in rows:
        stored = torch.stack([opened.floats(row, view) for view in range(opened.views)])
        crops = opened.tensors["crops"][row] if "crops" in opened.tensors else None
        name = f"{shard.path}:{shard.keys[row]}"
        try:
            inputs, _ = pool.reader.of(shard, row, crops)
        except BadSample as bad:
            if not bool(stored.isnan().all()):
                verdict.wrong.append(f"{name} is embedded and cannot be read now ({bad.args[0]})")
            continue
        if bool(stored.isnan().any()):
            verdict.wrong.append(f"{name} can be read and is not embedded")
            continue
        note(verdict, name, (pool.encode(inputs).cpu() * stored).sum(-1))


def note(verdict: Verdict, name: str, cosines: Tensor) -> None:
    """Count the cosines of one sample's views."""
    worst = float(cosines.min())
    verdict.compared += len(cosines)
    verdict.total += float(cosines.sum())
    verdict.worst = min(verdict.worst, worst)
    if worst < MIN_COSINE:
        verdict.wrong.append(f"{name}: the stored embedding has cosine {worst:.4f} with the live teacher's")


def spot_check(store: EmbeddingStore, path: ShardPath, pool: Pool, samples: int = 4) -> None:
    """Raise DataError when a few stored embeddings of a shard are not what the live teacher makes of their samples."""
    shard = scan_shard(path)
    verdict = Verdict()
    compare_rows(store, shard, range(0, shard.count, max(1, shard.count // samples)), pool, verdict)
    if verdict.wrong:
        raise DataError(
            f"{store.folder}: {verdict.wrong[0]} (at least {MIN_COSINE} is needed); remove the folder, it is filled anew"
        )


def check_files(folder: Path, stored: Sequence[StoredShard], verdict: Verdict) -> list[Shard]:
    """The shards whose files are as they were written and of the shard's own samples; what is wrong goes to the verdict."""
    good: list[Shard] = []
    for entry in stored:
        if entry.path is None or (isinstance(entry.path, Path) and not entry.path.is_file()):
            verdict.wrong.append(f"{entry.path or entry.name}, embedded in {entry.file.name}, is not there any more")
            continue
        if StoredRows(entry.file).hash() != read_entry(entry.file).rows_sha256:
            verdict.wrong.append(f"{entry.file} was changed after it was written (hash differs)")
        try:
            shard = scan_shard(entry.path)
        except DataError as error:
            verdict.wrong.append(str(error))
            continue
        if entry.keys_sha256 != hash_of(shard.keys) or entry.samples != shard.count:
            verdict.wrong.append(f"{entry.file} was made from other samples than {entry.path} holds (keys differ)")
        else:
            good.append(shard)
    return good


def compare_sample(
    store: EmbeddingStore, shards: Sequence[Shard], pool: Pool, samples: int, seed: int, verdict: Verdict
) -> None:
    """`samples` of all, drawn at random, encoded again."""
    total = sum(shard.count for shard in shards)
    chosen = (
        np.random.default_rng(seed).choice(total, size=min(samples, total), replace=False).tolist() if total else []
    )
    start = 0
    for shard in shards:
        rows = [n - start for n in sorted(chosen) if start <= n < start + shard.count]
        compare_rows(store, shard, rows, pool, verdict)
        start += shard.count

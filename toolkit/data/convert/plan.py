"""Which inputs become samples, and in which shard: decided before anything is written, so that a kill changes nothing."""

import itertools
import json
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolkit.data.convert.job import Job
from toolkit.data.convert.listing import jsonl
from toolkit.data.convert.outcome import Skip
from toolkit.data.convert.workspace import Workspace
from toolkit.data.index import write_aside


class Piece(NamedTuple):
    """Some inputs of a source."""

    source: int
    number: int
    inputs: int

    @property
    def stem(self) -> str:
        """Name of its files."""
        return f"{self.source:05d}-{self.number:05d}"


def scan_piece(job: Job, scans: Path, piece: Piece) -> int:
    """Hash the inputs of a piece; `<stem>.npz` is written last."""
    entries, hashes, skips = job.scan(*piece)
    write_aside(scans / f"{piece.stem}.skipped.jsonl", jsonl(skips))
    aside = scans / f".{piece.stem}.{os.getpid()}.npz"
    np.savez(aside, entries=entries, hashes=hashes)
    aside.replace(scans / f"{piece.stem}.npz")
    return piece.inputs


def make_plan(job: Job, work: Workspace, pieces: list[Piece]) -> int:
    """Drop repeats in the order of the inputs and write `plan.npy` ([samples, 2] int32: piece, position in it).

    Returns the number of samples. Memory: the hashes, their order and the plan, 33 bytes per input.
    """
    plan_file, skipped = work.root / "plan.npy", work.root / "repeats.jsonl"
    if plan_file.is_file():
        return len(np.load(plan_file, mmap_mode="r", allow_pickle=False))
    counts = []
    hashes = []
    for piece in pieces:
        with np.load(work.scans / f"{piece.stem}.npz", allow_pickle=False) as found:
            hashes.append(found["hashes"])
            counts.append(len(found["hashes"]))
    together = np.concatenate([np.zeros(0, np.uint64), *hashes])
    hashes.clear()
    again, reason = job.repeated(together)
    del together
    plan = np.zeros((int((~again).sum()), 2), np.int32)
    begin = filled = 0
    aside = skipped.with_suffix(f".{os.getpid()}")
    with open(aside, "w") as file:
        for number, (piece, count) in enumerate(zip(pieces, counts, strict=True)):
            mine = again[begin : begin + count]
            stay = np.flatnonzero(~mine)
            plan[filled : filled + len(stay)] = np.stack([np.full(len(stay), number), stay], axis=1)
            begin, filled = begin + count, filled + len(stay)
            if len(stay) < count:
                gone = entries_of(work, piece)[mine].tolist()
                source = job.sources[piece.source].path
                names = job.names(piece.source, piece.number, gone)
                file.write(jsonl(Skip(source, name, reason) for name in names))
    aside.replace(skipped)
    aside = plan_file.with_name(f".{plan_file.name}.{os.getpid()}")
    with open(aside, "wb") as binary:
        np.save(binary, plan, allow_pickle=False)
    aside.replace(plan_file)
    return len(plan)


def entries_of(work: Workspace, piece: Piece) -> np.ndarray:
    """Inputs of the piece that the scan left in."""
    with np.load(work.scans / f"{piece.stem}.npz", allow_pickle=False) as found:
        return np.asarray(found["entries"])


def inputs_of(work: Workspace, pieces: list[Piece], unit: int, size: int) -> Iterator[tuple[Piece, list[int]]]:
    """The inputs of shard `unit`, piece by piece."""
    plan = np.load(work.root / "plan.npy", mmap_mode="r", allow_pickle=False)[unit * size : (unit + 1) * size]
    bounds = [0, *(np.flatnonzero(np.diff(plan[:, 0])) + 1).tolist(), len(plan)]
    for start, stop in itertools.pairwise(bounds):
        piece = pieces[int(plan[start, 0])]
        yield piece, entries_of(work, piece)[plan[start:stop, 1]].tolist()


def load_pieces(work: Workspace) -> list[Piece]:
    """As the listing left them; read once per process."""
    path = work.root / "pieces.json"
    return _load_pieces(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _load_pieces(path: Path, stamp: int) -> list[Piece]:
    return [Piece(*entry) for entry in json.loads(path.read_bytes())]

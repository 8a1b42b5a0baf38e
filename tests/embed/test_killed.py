"""`dime embed` killed ten times at random moments and started again: the bytes of one run."""

import sys
from itertools import count
from pathlib import Path

import pytest
from killing import Started, differing, entries, killed_often, moments, needs_proc, straight

from toolkit.data.shards import expand_shards, scan_shard, write_shards
from toolkit.playground.prepare import TEACHER
from toolkit.playground.shards import write_world

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@needs_proc
def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Recorded crops; on one process and on two in turn, with data workers; whole by one process."""
    world = write_world(tmp_path / "world", images=600, texts=8, test_images_per_class=1, test_pairs=20)
    shard = scan_shard(expand_shards(str(world / "train_images"), asked_by="test")[0])
    pictures = ({"__key__": shard.keys[row], "png": shard.read(row, "png")} for row in range(shard.count))
    write_shards(tmp_path / "pictures", pictures, 10)
    out, runs = tmp_path / "store", count()
    words = ["embed", "images", str(tmp_path / "pictures"), "--teacher", str(TEACHER), "--out", str(out)]
    words += ["--views", "4", "--batch-size", "20"]

    def start(processes: int = 0) -> Started:
        processes = processes or 1 + next(runs) % 2
        more = ["--processes", str(processes), "--workers", str(2 // processes)]
        return Started([sys.executable, "-m", "toolkit.cli", *words, *more], ROOT, tmp_path / "log")

    whole, took = straight(lambda: start(1), out)
    for found in killed_often(start, out, moments(took, entries, 8), 10, note=lambda out: f"{entries(out)} entries"):
        assert differing(found, whole) == []

"""Killed at any moment and started again: the same bytes, and no process left behind."""

import sys
from pathlib import Path

import numpy as np
import pytest
from corpus.pools import World, make_world, unit_rows
from killing import Started, differing, entries, killed_often, moments, needs_proc, straight

WORKER = """
import sys
from pathlib import Path
from corpus.pools import SMALL
from toolkit.corpus import Filters, Request, select_corpus

if __name__ == "__main__":
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    store = folder / "store"
    select_corpus(Request(store, store, 300, out, store=out / "chosen", sizes=SMALL, filters=Filters(min_words=0),
                          workers=2, device="cpu", samples_per_shard=50))
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def world(tmp_path: Path) -> World:
    rng = np.random.default_rng(3)
    return make_world(tmp_path, unit_rows(rng, 200), unit_rows(rng, 1200), per_shard=100)


@pytest.mark.slow
@needs_proc
def test_killed_at_any_moment(world: World) -> None:
    """Ten SIGKILLs to the first process, at any time and when so many files are there; the workers end by themselves."""
    script = world.folder / "worker.py"
    script.write_text(WORKER)

    out = world.folder / "out"

    def start() -> Started:
        words = [sys.executable, str(script), str(world.folder), str(out)]
        return Started(words, world.folder, world.folder / "log", {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"})

    whole, took = straight(start, out)
    for found in killed_often(start, out, moments(took, entries, 30), 10, alone=True):
        assert differing(found, whole) == []

"""Killed at any moment and started again: the same bytes, and no process left behind."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from corpus.pools import World, all_bytes, make_world, unit_rows
from launch_ranks import environment

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


def started(world: World, out: Path) -> subprocess.Popen:
    """The command on two workers, in a session of its own."""
    script = world.folder / "worker.py"
    script.write_text(WORKER)
    env = environment(PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}")
    command = [sys.executable, str(script), str(world.folder), str(out)]
    return subprocess.Popen(command, env=env, start_new_session=True, stdout=subprocess.DEVNULL, cwd=world.folder)


def left_of(session: int) -> list[str]:
    """Processes of a session that are still there."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(words[3]) == session and words[0] != "Z":
                found.append(folder.name)
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_killed_at_any_moment(world: World) -> None:
    """SIGKILL to the first process when so many files are there; the workers must notice by themselves."""
    straight, out = world.folder / "straight", world.folder / "out"
    assert started(world, straight).wait(120) == 0
    moments = random.Random(0)
    for _ in range(10):
        process = started(world, out)
        before = len([*out.rglob("*")])
        wanted, until = before + moments.randrange(1, 30), time.monotonic() + 60
        while len([*out.rglob("*")]) < wanted and process.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(moments.random() * 0.05)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
        until = time.monotonic() + 20
        while left_of(process.pid) and time.monotonic() < until:
            time.sleep(0.1)
        assert not left_of(process.pid), "a worker outlived its parent"
        if (out / "selection.json").is_file():
            break
    assert started(world, out).wait(120) == 0
    compared = {name: value for name, value in all_bytes(out).items() if not name.startswith("chosen/")}
    wanted_bytes = {name: value for name, value in all_bytes(straight).items() if not name.startswith("chosen/")}
    assert list(compared) == list(wanted_bytes)
    for name, value in wanted_bytes.items():
        assert compared[name].replace(str(out).encode(), str(straight).encode()) == value, name
    rows = [sorted(path.read_bytes() for path in (folder / "chosen").glob("*.npy")) for folder in (straight, out)]
    assert rows[0] == rows[1]

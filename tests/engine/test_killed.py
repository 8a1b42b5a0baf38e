"""Training killed ten times at random moments and started again: the samples, losses and weights of the uninterrupted run."""

import json
import random
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from killing import Moment, Started, after, killed_often, needs_proc, straight, when
from launch_ranks import free_port
from safetensors.torch import load_file

from toolkit.playground.shards import write_world

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("killed_worker.py")
STEPS = 40
pytestmark = [pytest.mark.slow, needs_proc]


class Launches:
    """The same command again and again, its notes inside the run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        self.world = write_world(folder / "world", images=256, texts=256, test_images_per_class=1, test_pairs=20)
        self.whole, self.took = straight(lambda: self.start(2, 2), self.out)

    def start(self, ranks: int, workers: int) -> Started:
        """Through the launcher, `workers` data processes for each rank and stream."""
        self.out.mkdir(exist_ok=True)
        launcher = [
            str(Path(sys.executable).with_name("deepspeed")),
            "--master_port",
            free_port(),
            "--num_gpus",
            str(ranks),
        ]
        words = [str(WORKER), str(self.world), str(self.out), str(self.out / "notes"), str(workers)]
        return Started([*launcher, *words], self.folder, self.folder / "log", {"PYTHONPATH": str(ROOT)})


@pytest.fixture(scope="module")
def launches(tmp_path_factory: pytest.TempPathFactory) -> Launches:
    return Launches(tmp_path_factory.mktemp("killed"))


def steps_noted(out: Path) -> int:
    """How often rank 0 has begun a step."""
    notes = out / "notes"
    return notes.read_text().count('"rank": 0') if notes.exists() else 0


def newest_begun(out: Path) -> int:
    """Step of the newest checkpoint, also while it is being written."""
    return max((int(path.name.strip(".").split("_")[1][:8]) for path in out.glob("checkpoints/*step_*")), default=0)


def where(out: Path) -> str:
    """What was there when everything had been killed."""
    aside = [path.name for path in out.glob("checkpoints/.step_*")]
    return f"{steps_noted(out)} steps noted{', writing ' + aside[0] if aside else ''}"


def moments(took: float, seed: int) -> Iterator[Callable[[Path], Moment]]:
    """In turn: between two steps or in one, in the writing of a checkpoint or after it, at any time of the whole run."""
    rng = random.Random(seed)
    while True:
        yield when(steps_noted, rng.randint(1, 8), rng.uniform(0, 0.2))
        yield when(newest_begun, 1, rng.uniform(0, 0.05))
        share = rng.uniform(0.1, 0.95) * took
        yield lambda _, share=share: after(share)


def consumed(out: Path) -> list[dict[str, list[str]]]:
    """`shard:key` of every row by step and stream: what was noted last, and whatever was done twice was the same."""
    parts: dict[int, dict[tuple[int, int], dict[str, list[str]]]] = {}
    ranks: dict[int, int] = {}
    for line in map(json.loads, (out / "notes").read_text().splitlines()):
        step, part = line["step"], (line["ranks"], line["rank"])
        assert parts.setdefault(step, {}).setdefault(part, line["keys"]) == line["keys"], f"{out}: step {step}"
        ranks[step] = line["ranks"]
    assert sorted(parts) == list(range(STEPS))
    last = [[parts[step][ranks[step], rank] for rank in range(ranks[step])] for step in range(STEPS)]
    return [{name: [key for part in step for key in part[name]] for name in step[0]} for step in last]


def losses(out: Path) -> list[float]:
    """After each step, every step once."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    return [line["train/loss"] for line in lines]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoints" / f"step_{STEPS:08d}" / "student.safetensors")


def test_same_ranks(launches: Launches) -> None:
    """Two ranks x two workers: bit for bit."""
    times = moments(launches.took, 0)
    wanted = consumed(launches.whole)
    assert len(wanted[0]["images"]) == len(wanted[0]["texts"]) == 24
    for out in killed_often(lambda: launches.start(2, 2), launches.out, times, 7, note=where):
        assert consumed(out) == wanted
        assert losses(out) == losses(launches.whole)
        found, other = weights(out), weights(launches.whole)
        assert found.keys() == other.keys() and all(torch.equal(found[name], other[name]) for name in found)


def test_other_ranks(launches: Launches) -> None:
    """Two ranks x two workers and one x three in turn: the same samples; losses and weights up to rounding (seen: 2e-7)."""
    runs = count()
    times = moments(launches.took, 1)

    def start() -> Started:
        return launches.start(*((2, 2) if next(runs) % 2 == 0 else (1, 3)))

    for out in killed_often(start, launches.out, times, 3, note=where):
        assert consumed(out) == consumed(launches.whole)
        assert all(f'"ranks": {ranks}' in (out / "notes").read_text() for ranks in (1, 2))
        pairs = list(zip(losses(out), losses(launches.whole), strict=True))
        apart = max(abs(a - b) / b for a, b in pairs)
        found, other = weights(out), weights(launches.whole)
        moved = max(float((found[name] - other[name]).abs().max()) for name in found)
        print(f"losses {apart:.1e} apart, weights {moved:.1e}")
        assert apart < 1e-4 and moved < 1e-4

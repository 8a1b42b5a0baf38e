"""Real launches on two ranks that are asked to stop, lose a rank, hang or are slow."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from killing import Started, needs_proc
from launch_ranks import free_port
from safetensors.torch import load_file

from toolkit import launches
from toolkit.playground.shards import write_world

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("faults_worker.py")
STEPS = 12
pytestmark = needs_proc


class World:
    """Small shards, and a run on them that nothing disturbed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards = write_world(folder / "world", images=192, texts=192, test_images_per_class=1, test_pairs=20)
        self.start("whole").end(240)

    def start(self, name: str, *overrides: str, **environment: str) -> Started:
        """Two ranks through the launcher."""
        launcher = [str(Path(sys.executable).with_name("deepspeed")), "--master_port", free_port(), "--num_gpus", "2"]
        words = [str(WORKER), str(self.shards), str(self.folder / name), *overrides]
        return Started(
            [*launcher, *words], self.folder, self.folder / f"{name}.log", {"PYTHONPATH": str(ROOT), **environment}
        )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def steps(self, name: str) -> list[int]:
        """Of the lines in its metrics."""
        path = self.folder / name / "metrics.jsonl"
        return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / name / "checkpoints" / f"step_{STEPS:08d}" / "student.safetensors")

    def pid(self, name: str, rank: int) -> int:
        """Of a rank, as its heartbeat says."""
        return int(json.loads((self.folder / name / "heartbeats" / f"rank_{rank:05d}.json").read_text())["pid"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("stopped"))


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "told", "again"),
    [(signal.SIGUSR1, (1,), True), pytest.param(signal.SIGTERM, (0, 1), False, marks=pytest.mark.slow)],
)
def test_asked_to_stop(
    world: World, tmp_path: Path, number: signal.Signals, told: tuple[int, ...], again: bool
) -> None:
    """Also when only one rank is: all save at one step, leave with 0, and the run goes on as if nothing had been."""
    name, marker = f"asked_{number.name}", tmp_path / "again"
    launch = world.start(name, "faults.hang_seconds=50", PACE="0.2", DIME_REQUEUE_FILE=str(marker))
    until(lambda: len(world.steps(name)) >= 4 and len(list((world.folder / name / "heartbeats").glob("*.json"))) == 2)
    for rank in told:
        os.kill(world.pid(name, rank), number)
    launch.end(120)
    (ended,) = launches.read(world.folder / name)
    assert ended["how"] == number.name.removeprefix("SIG") and 4 <= ended["last_step"] < STEPS
    assert marker.exists() == again
    assert (world.folder / name / "checkpoints" / "newest").read_text() == f"step_{ended['last_step']:08d}\n"
    assert "the checkpoint is complete, the same command goes on from it" in world.log(name)
    world.start(name).end(240)
    assert world.steps(name) == list(range(1, STEPS + 1))
    found, wanted = world.weights(name), world.weights("whole")
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in found)


def test_a_stopped_rank_is_named_and_the_run_ends(world: World) -> None:
    """SIGSTOP is as near to a hang as a test can come: the other rank reports, both stacks are there."""
    name = "hung"
    launch = world.start(name, "faults.hang_seconds=5", "steps=1000", PACE="0.05")
    beats = world.folder / name / "heartbeats"
    until(lambda: len(world.steps(name)) >= 3 and len(list(beats.glob("*.json"))) == 2)
    for rank in (0, 1):  # whatever kills it now, nothing of it stays in /dev/shm
        maps = Path(f"/proc/{world.pid(name, rank)}/maps").read_text().splitlines()
        assert {line.endswith("(deleted)") for line in maps if "/dev/shm/deepspeed" in line} <= {True}
    os.kill(world.pid(name, 1), signal.SIGSTOP)
    stopped = time.monotonic()
    launch.process.wait(90)
    assert time.monotonic() - stopped < 5 + 1 + 2 * 5 + 45, "limit, watch, grace twice; the launcher's own patience"
    launch.kill()
    log = world.log(name)
    assert launch.process.returncode != 0 and "rank 0 ends with code 5: no progress within faults.hang_seconds=5" in log
    assert "rank 1 on" in log and "is silent for" in log
    for rank in (0, 1):
        stacks = (beats / "stacks" / f"rank_{rank:05d}.txt").read_text()
        assert "forward_backward" in stacks or "loop" in stacks, f"rank {rank}: {stacks[:500]}"


@pytest.mark.slow
def test_a_rank_that_hangs_in_its_own_code_is_behind(world: World) -> None:
    """Both ranks are alive; the one that the other waits for is named."""
    name = "behind"
    launch = world.start(name, "faults.hang_seconds=5", SLEEP_RANK="1", SLEEP_STEP="4", SLEEP_SECONDS="600")
    launch.process.wait(200)
    launch.kill()
    log = world.log(name)
    assert launch.process.returncode != 0
    assert "is behind: in 'forward' of step 4" in log and "rank 0 on" not in "".join(
        line for line in log.splitlines() if "is behind" in line
    )


@pytest.mark.slow
def test_a_slow_rank_is_named(world: World) -> None:
    name = "slow"
    world.start(name, "steps=6", SLEEP_RANK="1", SLEEP_SECONDS="0.5").end(240)
    named = [line for line in world.log(name).splitlines() if line.startswith("slow: ")]
    assert len(named) >= 4 and all(line.startswith("slow: rank 1 on ") for line in named)


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_others(world: World) -> None:
    """At once, with a message; the same command goes on to the same end."""
    name = "died"
    launch = world.start(name, PACE="0.2", **{"DIME_REQUEUE_FILE": str(world.folder / "died.again")})
    until(lambda: len(world.steps(name)) >= 5 and len(list((world.folder / name / "heartbeats").glob("*.json"))) == 2)
    os.kill(world.pid(name, 1), signal.SIGKILL)
    launch.process.wait(90)
    launch.kill()
    assert launch.process.returncode != 0 and (world.folder / "died.again").exists()
    world.start(name).end(240)
    found, wanted = world.weights(name), world.weights("whole")
    assert all(torch.equal(found[key], wanted[key]) for key in found)

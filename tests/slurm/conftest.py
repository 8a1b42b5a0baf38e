"""A cluster per process tracker, and a folder to submit from."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from slurm_lab import SlurmLab
from slurm_layout import missing

REPO = Path(__file__).resolve().parents[2]
TWO_RANKS = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=1", "--time=20")


@pytest.fixture(scope="session")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], SlurmLab]]:
    """`labs(proctrack)`: started when first asked for. Without Slurm a skip, with REQUIRE_SLURM=1 a failure."""
    if absent := missing():
        why = f"needs a Slurm of this machine's own; {', '.join(absent)} missing (apt-get install slurmctld slurmd slurm-client munge)"
        (pytest.fail if os.environ.get("REQUIRE_SLURM") == "1" else pytest.skip)(why)
    running: dict[str, SlurmLab] = {}
    with ExitStack() as stack:

        def lab(proctrack: str) -> SlurmLab:
            if proctrack not in running:
                folder = tmp_path_factory.mktemp(f"lab_{proctrack}")
                running[proctrack] = stack.enter_context(SlurmLab(folder, proctrack=proctrack))
            return running[proctrack]

        yield lab


@dataclass
class Site:
    """The folder a user submits from, and the cluster."""

    lab: SlurmLab
    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def sbatch(self, *words: str) -> str:
        """Submit from the folder; the job's id."""
        return self.lab.sbatch(*words, cwd=self.folder, env=self.env)

    def distill(self, *words: str, options: tuple[str, ...] = ()) -> str:
        """Submit slurm/distill.sh on two nodes with a rank each."""
        return self.sbatch(*TWO_RANKS, *options, "slurm/distill.sh", *words)

    def wait(self, job: str, *states: str, seconds: float = 60) -> dict[str, str]:
        """Until the job is in one of the states (by default: has ended); shows its log where it does not get there."""
        try:
            return self.lab.wait(job, *states, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log(job)}") from None

    def log(self, job: str) -> str:
        """What the job wrote so far."""
        found = [path for path in self.folder.glob("*.out") if path.stem.endswith(f"-{job}")]
        return found[0].read_text() if found else ""

    def until(self, ready: Callable[[], Any], job: str, seconds: float = 60) -> None:
        """Wait for something that a job does; shows its log where it does not."""
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, self.log(job)
            time.sleep(0.05)

    def hold(self, job: str) -> None:
        """Until both ranks of the trainer wait for a signal at its third step."""
        self.until(lambda: all(self.step(rank) == [1, 2, 3] for rank in (0, 1)), job)

    def step(self, rank: int) -> list[int]:
        """What the trainer of a rank has counted."""
        path = self.folder / f"step-{rank}"
        return [int(word) for word in path.read_text().split()] if path.exists() else []

    def seen(self, restart: int = 0, rank: int = 0) -> dict[str, Any]:
        """What the trainer found at its start."""
        return json.loads((self.folder / f"seen-{restart}-{rank}.json").read_text())


def site_of(lab: SlurmLab, tmp_path: Path) -> Site:
    """With the scripts as they are shipped and the stand-in as the default recipe; its name has a space."""
    folder = tmp_path / "my runs"
    folder.mkdir()
    shutil.copytree(REPO / "slurm", folder / "slurm")
    (folder / "recipes").mkdir()
    shutil.copy(Path(__file__).with_name("trainer.py"), folder / "recipes" / "distill_vitb32.py")
    shutil.copy(Path(__file__).with_name("trainer.py"), folder / "recipes" / "other.py")
    return Site(lab, folder)


@pytest.fixture
def site(labs: Callable[[str], SlurmLab], tmp_path: Path) -> Site:
    """On the default tracker of processes."""
    return site_of(labs("linuxproc"), tmp_path)


@pytest.fixture(scope="module")
def stories(
    labs: Callable[[str], SlurmLab], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[None]]]:
    """The module's STORIES, `name: (tracker of processes, function of a Site)`, all at once and each in a folder of its own.

    A job that was put back into the queue waits there for seven seconds; like this all wait together.
    """
    told = request.module.STORIES
    sites = {name: site_of(labs(tracker), tmp_path_factory.mktemp("story")) for name, (tracker, _) in told.items()}
    with ThreadPoolExecutor(len(told)) as threads:
        yield {name: threads.submit(story, sites[name]) for name, (_, story) in told.items()}

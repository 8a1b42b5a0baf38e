"""`dime checkpoints`: what is there, what is torn, where the next launch goes on."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit import launches
from toolkit.checkpoint.listing import in_words, listing
from toolkit.cli import dispatch
from toolkit.config import Checkpoint
from toolkit.errors import ConfigError
from toolkit.playground.shards import write_world
from toolkit.train import train

sys.path.insert(0, str(Path(__file__).parent))
from faults_worker import run_of  # the folder of a script is its import path; tests are no package


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints."""
    folder = tmp_path_factory.mktemp("listing")
    world = write_world(folder / "world", images=96, texts=96, test_images_per_class=1, test_pairs=20)
    run = run_of(world, folder / "run")
    train(
        replace(
            run, steps=3, optim=replace(run.optim, warmup_steps=1), checkpoint=Checkpoint(every_steps=1, keep_last=9)
        )
    )
    return folder / "run"


def test_whole_and_torn(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A torn one is named with its reason, the exit code says so, and the one before it is where a launch goes on."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    assert [entry["complaint"] for entry in listing(run)["checkpoints"]] == ["", "", ""]
    victim = run / "checkpoints" / "step_00000003" / "student.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1])
    (run / "checkpoints" / ".step_00000004.abcd.tmp").mkdir()
    launches.append(run, {"started": "2026-01-01T00:00:00+00:00", "job": "7", "restart": 1, "step": 2})
    with pytest.raises(SystemExit) as left:
        dispatch(["checkpoints", str(run), "--json"])
    assert left.value.code == 1
    *table, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert [entry["newest"] for entry in found["checkpoints"]] == [False, True, False]
    assert found["resumes_at"] == 2 and found["unfinished"] == [".step_00000004.abcd.tmp"]
    assert any("TORN: student.safetensors has" in line for line in table)
    assert "launch 2026-01-01T00:00:00+00:00 (job 7, restart 1) from step 2; no end is noted" in table


def test_before_the_first_one(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    assert in_words(listing(tmp_path)).splitlines() == ["no checkpoint yet", "the next launch goes on at step 0"]
    with pytest.raises(ConfigError, match="is no run"):
        listing(tmp_path / "nothing")

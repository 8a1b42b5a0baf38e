"""The scripts with the toolkit itself on two nodes: a run to its end, its evaluation, and a store filled by an array."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import differing
from safetensors.torch import load_file

from toolkit.data.shards import expand_shards, scan_shard, write_shards
from toolkit.playground.prepare import TEACHER
from toolkit.playground.shards import write_world

REPO = Path(__file__).resolve().parents[2]
TINY = (
    "steps=6", "optim.warmup_steps=2", "data.global_batch_size=64", "evaluation.every_steps=0", "evaluation.best=''",
    "checkpoint.every_steps=0", "logging.every_steps=1", "logging.tensorboard=false", "workers=0",
    "data.images=world/train_images", "data.texts=world/train_texts", "teacher.store=''",
    "evaluation.sets.scenes.shards=world/test_classes", "evaluation.sets.scenes.classes=world/classes.json",
    "evaluation.sets.captions.shards=world/test_pairs",
)  # fmt: skip


@pytest.fixture
def real(site: Any) -> Any:
    """This Python and this tree's toolkit and recipes."""
    site.env = {"DIME_PYTHON": sys.executable, "PYTHONPATH": str(REPO)}
    shutil.copy(REPO / "recipes/quickstart.py", site.folder / "recipes/quickstart.py")
    return site


@pytest.mark.slow
def test_a_run_to_its_end_and_its_evaluation(real: Any) -> None:
    """Two nodes with a rank each; `dime evaluate` then shares its work among two ranks on one node."""
    write_world(real.folder / "world", images=320, texts=320, test_images_per_class=1, test_pairs=20)
    job = real.distill("recipes/quickstart.py", *TINY)
    record = real.wait(job, seconds=400)
    log = real.log(job)
    assert (record["JobState"], record["Restarts"]) == ("COMPLETED", "0"), log
    assert "64 images per step = 2 ranks x 32 per rank" in log and log.rstrip().endswith("done")
    assert (real.folder / "runs/quickstart/report.html").is_file()
    assert not list(real.folder.glob(".dime-requeue-*")) and not list(real.folder.glob("*-collectives-*"))
    judged = real.sbatch(
        "--time=20", "--ntasks-per-node=2", "--cpus-per-task=1", "slurm/evaluate.sh", "runs/quickstart", "--json"
    )
    assert real.wait(judged, seconds=200)["JobState"] == "COMPLETED", real.log(judged)
    told = json.loads(next(line for line in real.log(judged).splitlines() if line.startswith("{")))
    kept = json.loads((real.folder / "runs/quickstart/evaluation.json").read_text())
    for name in ("scenes", "captions"):
        assert told["sets"][name]["rows"]["student"] == kept["sets"][name]["rows"]["student"]


@pytest.mark.slow
def test_an_array_fills_a_store_as_one_run_does(real: Any) -> None:
    """Eight tasks, two at a time, one of which is killed and submitted again, then as two ranks: the bytes of one run."""
    world = write_world(real.folder / "world", images=160, texts=8, test_images_per_class=1, test_pairs=20)
    shard = scan_shard(expand_shards(str(world / "train_images"), asked_by="test")[0])
    pictures = ({"__key__": shard.keys[row], "png": shard.read(row, "png")} for row in range(shard.count))
    write_shards(real.folder / "pictures", pictures, 8)
    words = ["images", "pictures", "--teacher", str(TEACHER), "--views", "2", "--workers", "0", "--out"]
    shape = ("--time=20", "--cpus-per-task=1")
    job = real.sbatch(*shape, "--array=0-7%2", "slurm/embed.sh", *words, "store")
    real.until(lambda: "command:" in real.log(f"{job}_3"), f"{job}_3", seconds=300)  # Python takes seconds to start
    real.lab.run("scancel", f"{job}_3")
    for task in range(8):
        state = real.wait(f"{job}_{task}", seconds=300)["JobState"]
        assert state == ("CANCELLED" if task == 3 else "COMPLETED"), real.log(f"{job}_{task}")
    assert len(list((real.folder / "store/image").glob("*.safetensors"))) == 17
    two_ranks = ("--nodes=2", "--ntasks-per-node=1")
    again = real.sbatch(*shape, *two_ranks, "--array=3", "slurm/embed.sh", *words, "store")
    assert real.wait(f"{again}_3", seconds=200)["JobState"] == "COMPLETED", real.log(f"{again}_3")
    assert "of 20 shards into store/image, 2 processes" in real.log(f"{again}_3")
    one_run = [sys.executable, "-m", "toolkit.cli", "embed", *words, "one"]
    subprocess.run(one_run, cwd=real.folder, check=True, env=real.lab.daemons.env | real.env, timeout=200)
    assert differing(real.folder / "store", real.folder / "one") == []


@pytest.mark.slow
def test_a_run_that_is_warned_goes_on(real: Any) -> None:
    """USR1 in the middle: a checkpoint, back into the queue, and from that step to the end."""
    write_world(real.folder / "world", images=320, texts=320, test_images_per_class=1, test_pairs=20)
    job = real.distill("recipes/quickstart.py", *TINY, "steps=80")
    real.until(lambda: "step 5/80 " in real.log(job), job, seconds=300)
    real.lab.run("scancel", "--signal=USR1", job)
    real.until(lambda: "back into the queue, restart 1" in real.log(job), job, seconds=100)
    assert "step 80/80 " not in real.log(job)
    record = real.wait(job, seconds=400)
    log = real.log(job)
    assert (record["JobState"], record["Restarts"]) == ("COMPLETED", "1"), log
    assert all(log.count(f"step {step}/80 ") == 1 for step in range(1, 81)), log
    assert log.rstrip().endswith("done") and not list(real.folder.glob(".dime-requeue-*"))


PACED = """\
import time
from recipes import quickstart
from toolkit.launch import launch

def main(words):
    from toolkit import train

    class Paced(train.Streams):
        def next(self):
            time.sleep(0.25)
            return super().next()

    train.Streams = Paced
    quickstart.main(words)

if __name__ == "__main__":
    launch(main)
"""


@pytest.mark.slow
def test_three_time_limits_in_a_row_leave_the_weights_of_one_run(real: Any) -> None:
    """Slurm warns each of the first three launches that its time is up; the fourth gets the time it needs."""
    write_world(real.folder / "world", images=320, texts=320, test_images_per_class=1, test_pairs=20)
    (real.folder / "recipes/paced.py").write_text(PACED)
    words = (*TINY, "steps=480", "time_margin_seconds=0")
    job = real.distill("recipes/paced.py", *words, "out_dir=runs/limited", options=("--time=5",))
    for restart in (1, 2, 3):
        told = f"back into the queue, restart {restart}"
        real.until(lambda told=told: told in real.log(job), job, seconds=200)
    real.lab.run("scontrol", "update", f"jobid={job}", "timelimit=30")
    record = real.wait(job, seconds=400)
    log = real.log(job)
    assert (record["JobState"], record["Restarts"]) == ("COMPLETED", "3"), log
    assert log.count("signal USR1 (the time limit is near)") == 3, log
    assert all(log.count(f"step {step}/480 ") == 1 for step in range(1, 481)), log
    ended = [json.loads(line) for line in (real.folder / "runs/limited/launches.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in ended if "ended" in line]
    assert len(steps) == 4 and sorted({0, *steps}) == [0, *steps], steps  # each launch got further
    whole = real.distill("recipes/quickstart.py", *words, "out_dir=runs/whole")
    assert real.wait(whole, seconds=400)["JobState"] == "COMPLETED", real.log(whole)
    limited, straight = (
        load_file(real.folder / f"runs/{name}/checkpoints/step_00000480/student.safetensors")
        for name in ("limited", "whole")
    )
    assert limited.keys() == straight.keys()
    assert all(torch.equal(limited[name], straight[name]) for name in limited)


KILL_RANK_1 = """\
for process in /proc/[0-9]*; do
    seen=$(tr '\\0' '\\n' < $process/environ 2>/dev/null | grep -cE "^SLURM_(JOB_ID=$1|PROCID=1|STEP_ID=0)$")
    [ "$seen" = 3 ] && grep -q python $process/comm && kill -9 "${process#/proc/}"
done; true
"""


@pytest.mark.slow
def test_a_run_that_lost_a_rank_goes_on(real: Any) -> None:
    """From its newest checkpoint; the other rank notices, or is ended."""
    write_world(real.folder / "world", images=320, texts=320, test_images_per_class=1, test_pairs=20)
    real.env["SLURM_WAIT"] = "20"
    job = real.distill("recipes/quickstart.py", *TINY, "steps=120", "checkpoint.every_steps=10")
    real.until(lambda: "step 25/120 " in real.log(job), job, seconds=300)
    real.lab.run("sh", "-c", KILL_RANK_1, "kill", job)
    real.until(lambda: "back into the queue, restart 1" in real.log(job), job, seconds=100)
    record = real.wait(job, seconds=400)
    log = real.log(job)
    assert (record["JobState"], record["Restarts"]) == ("COMPLETED", "1"), log
    assert log.count("step 1/120 ") == log.count("step 120/120 ") == 1, log


@pytest.mark.slow
def test_a_cancelled_run_is_saved_and_a_mistake_is_told(real: Any) -> None:
    """Neither is run again; the cancelled one's checkpoint is whole, and the mistake's exit code is the job's."""
    write_world(real.folder / "world", images=320, texts=320, test_images_per_class=1, test_pairs=20)
    wrong = real.distill("recipes/quickstart.py", *TINY, "optim.lrr=3")
    record = real.wait(wrong, seconds=100)
    assert (record["JobState"], record["ExitCode"], record["Restarts"]) == ("FAILED", "2:0", "0"), real.log(wrong)
    assert "did you mean optim.lr?" in real.log(wrong) and "Traceback" not in real.log(wrong)
    job = real.distill("recipes/quickstart.py", *TINY, "steps=400")
    real.until(lambda: "step 5/400 " in real.log(job), job, seconds=300)
    real.lab.run("scancel", job)
    record = real.wait(job, seconds=100)
    assert (record["JobState"], record["Restarts"]) == ("CANCELLED", "0"), real.log(job)
    assert "scancel or Slurm ends this job" in real.log(job)
    saved = [
        path
        for path in (real.folder / "runs/quickstart/checkpoints").glob("step_*")
        if (path / "manifest.json").is_file()
    ]
    assert len(saved) == 1 and "back into the queue" not in real.log(job)

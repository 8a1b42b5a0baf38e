"""slurm/embed.sh and slurm/evaluate.sh: an array shares the shards out, and what was killed is run again; stand-ins for `dime`."""

import sys
from pathlib import Path
from typing import Any

import pytest

STANDIN = Path(__file__).with_name("embedder.py")
WORDS = ("images", "my shards", "--teacher", "a:b", "--out", "my store")
HELD = 3


@pytest.fixture
def shards(site: Any) -> Any:
    """Sixteen shards, and a Python that is the stand-in."""
    python = site.folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {STANDIN} "$@"\n')
    python.chmod(0o755)
    site.env = {"DIME_PYTHON": str(python)}
    (site.folder / "my shards").mkdir()
    for number in range(16):
        (site.folder / "my shards" / f"{number:05d}.tar").touch()
    return site


def embed(site: Any, *options: str) -> str:
    return str(site.sbatch("--time=20", "--cpus-per-task=1", *options, "slurm/embed.sh", *WORDS))


def written(site: Any) -> list[str]:
    """Shards that were embedded, once per time."""
    path = site.folder / "written"
    return sorted(path.read_text().split()) if path.exists() else []


ALL = [f"{number:05d}" for number in range(16)]


def test_an_array_with_a_task_killed_and_submitted_again(shards: Any) -> None:
    """Eight tasks, as the script has it; any array does what is left, here one of a single task, and nothing twice."""
    (shards.folder / f"hold-{HELD}").touch()
    job = embed(shards)
    for task in range(8):
        if task != HELD:
            assert shards.wait(f"{job}_{task}")["JobState"] == "COMPLETED", shards.log(f"{job}_{task}")
    shards.until(lambda: len(written(shards)) == 15, f"{job}_{HELD}")
    shards.lab.run("scancel", f"{job}_{HELD}")
    assert shards.wait(f"{job}_{HELD}")["JobState"] == "CANCELLED"
    (shards.folder / f"hold-{HELD}").unlink()
    assert len(written(shards)) == 15
    again = embed(shards, f"--array={HELD}")
    assert shards.wait(f"{again}_{HELD}")["JobState"] == "COMPLETED", shards.log(f"{again}_{HELD}")
    assert written(shards) == ALL
    assert f"part 0 of 1: ['-u', '-m', 'toolkit.cli', 'embed', {str(list(WORDS))[1:-1]}, " in shards.log(
        f"{again}_{HELD}"
    )


def test_a_killed_task_can_be_requeued_by_hand(shards: Any) -> None:
    """It keeps its number and the size of its array."""
    (shards.folder / "hold-1").touch()
    job = embed(shards, "--array=4-5")
    shards.until(lambda: len(written(shards)) == 9, f"{job}_5")
    shards.lab.run("scancel", f"{job}_5")
    shards.wait(f"{job}_5")
    (shards.folder / "hold-1").unlink()
    shards.lab.run("scontrol", "requeue", f"{job}_5")
    shards.hurry(f"{job}_5")
    record = shards.wait(f"{job}_5")
    assert (record["JobState"], record["Restarts"]) == ("COMPLETED", "1"), shards.log(f"{job}_5")
    assert written(shards) == ALL and shards.log(f"{job}_5").count("part 1 of 2") == 2


def test_a_task_whose_time_is_over_goes_on_while_the_store_grows(shards: Any) -> None:
    """The array's last one: only it is put back. One that gained nothing in all its time is not."""
    (shards.folder / "hold-1").touch()
    (shards.folder / "hold-0-empty").touch()
    job = embed(shards, "--array=0-1")
    shards.until(lambda: len(written(shards)) == 1, f"{job}_1")
    shards.lab.run("scancel", "--batch", "--signal=USR1", f"{job}_1")
    shards.until(lambda: "its time is over: back into the queue" in shards.log(f"{job}_1"), f"{job}_1")
    (shards.folder / "hold-1").unlink()
    shards.hurry(f"{job}_1")
    assert shards.wait(f"{job}_1")["Restarts"] == "1" and written(shards) == ALL[1::2]
    (shards.folder / "my store/image/00001.safetensors").touch()
    assert shards.lab.job(f"{job}_0")["JobState"] == "RUNNING"


def test_a_task_that_gains_nothing_is_not_run_again(shards: Any) -> None:
    """It would not end in all eternity."""
    (shards.folder / "hold-0-empty").touch()
    job = embed(shards, "--array=0-0")
    shards.until(lambda: "part 0 of 1" in shards.log(f"{job}_0"), f"{job}_0")
    shards.lab.run("scancel", "--batch", "--signal=USR1", f"{job}_0")
    record = shards.wait(f"{job}_0")
    assert (record["JobState"], record["Restarts"]) == ("FAILED", "0"), shards.log(f"{job}_0")
    assert "is not run again by itself" in shards.log(f"{job}_0")


def test_a_task_that_dies_is_run_again_twice(shards: Any) -> None:
    """Each time it gained a shard; what kills it every time is not waited for."""
    (shards.folder / "die-0").touch()
    job = embed(shards, "--array=0-0")
    for restart in (1, 2):
        shards.until(
            lambda restart=restart: (
                f"it died with 137: back into the queue, restart {restart}" in shards.log(f"{job}_0")
            ),
            f"{job}_0",
        )
        shards.hurry(f"{job}_0")
    record = shards.wait(f"{job}_0")
    assert (record["JobState"], record["ExitCode"], record["Restarts"]) == ("FAILED", "137:0", "2")
    assert written(shards) == ALL[:3]


@pytest.mark.parametrize(
    ("array", "more", "said"),
    [("0,2-3", (), "--array is no range"), ("0-1", ("--part=0/4",), "--part is what the array is for")],
)
def test_what_would_leave_shards_out_is_refused(shards: Any, array: str, more: tuple[str, ...], said: str) -> None:
    """At once, by each task."""
    job = shards.sbatch(f"--array={array}", "slurm/embed.sh", *WORDS, *more)
    last = f"{job}_{array[-1]}"
    assert shards.wait(last)["ExitCode"] == "2:0" and said in shards.log(last)
    assert written(shards) == []


def test_evaluate_passes_its_words_on(site: Any) -> None:
    """To `dime evaluate`, one task per GPU; its exit code is the job's."""
    python = site.folder / "python"
    python.write_text('#!/bin/sh\nprintf "<%s>" "$SLURM_PROCID" "$@"\nexit 2\n')
    python.chmod(0o755)
    site.env = {"DIME_PYTHON": str(python)}
    words = ["runs/my run", "evaluation.sets.mine.shards=a/{0..3}.tar"]
    job = site.sbatch("--time=20", "--ntasks-per-node=2", "--cpus-per-task=1", "slurm/evaluate.sh", *words)
    assert site.wait(job)["ExitCode"] == "2:0"
    for rank in (0, 1):
        assert f"<{rank}><-u><-m><toolkit.cli><evaluate><{words[0]}><{words[1]}>" in site.log(job)
    empty = site.sbatch("slurm/evaluate.sh")
    assert site.wait(empty)["ExitCode"] == "2:0" and "which run?" in site.log(empty)

"""slurm/embed.sh and slurm/evaluate.sh: an array shares the shards out, and what was killed is run again; stand-ins for `dime`."""

import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

STANDIN = Path(__file__).with_name("embedder.py")
WORDS = ("images", "my shards", "--teacher", "a:b", "--out", "my store")
HELD = 3
ALL = [f"{number:05d}" for number in range(16)]


def prepared(site: Any) -> None:
    """Sixteen shards, and a Python that is the stand-in."""
    python = site.folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {STANDIN} "$@"\n')
    python.chmod(0o755)
    site.env = {"DIME_PYTHON": str(python)}
    (site.folder / "my shards").mkdir()
    for shard in ALL:
        (site.folder / "my shards" / f"{shard}.tar").touch()


def embed(site: Any, *options: str) -> str:
    return str(site.sbatch("--time=20", "--cpus-per-task=1", *options, "slurm/embed.sh", *WORDS))


def written(site: Any) -> list[str]:
    """Shards that were embedded, once per time."""
    path = site.folder / "written"
    return sorted(path.read_text().split()) if path.exists() else []


def killed_and_submitted_again(site: Any) -> None:
    """Eight tasks, as the script has it; any array does what is left, here one of a single task, and nothing twice."""
    prepared(site)
    (site.folder / f"hold-{HELD}").touch()
    job = embed(site)
    for task in range(8):
        if task != HELD:
            assert site.wait(f"{job}_{task}")["JobState"] == "COMPLETED", site.log(f"{job}_{task}")
    site.until(lambda: len(written(site)) == 15, f"{job}_{HELD}")
    site.lab.run("scancel", f"{job}_{HELD}")
    assert site.wait(f"{job}_{HELD}")["JobState"] == "CANCELLED"
    (site.folder / f"hold-{HELD}").unlink()
    assert len(written(site)) == 15
    again = embed(site, f"--array={HELD}")
    assert site.wait(f"{again}_{HELD}")["JobState"] == "COMPLETED", site.log(f"{again}_{HELD}")
    assert written(site) == ALL
    assert f"part 0 of 1: ['-u', '-m', 'toolkit.cli', 'embed', {str(list(WORDS))[1:-1]}, " in site.log(
        f"{again}_{HELD}"
    )


def killed_and_requeued_by_hand(site: Any) -> None:
    """It keeps its number and the size of its array."""
    prepared(site)
    (site.folder / "hold-1").touch()
    job = embed(site, "--array=4-5")
    site.until(lambda: len(written(site)) == 9, f"{job}_5")
    site.lab.run("scancel", f"{job}_5")
    site.wait(f"{job}_5")
    (site.folder / "hold-1").unlink()
    site.lab.run("scontrol", "requeue", f"{job}_5")
    record = site.wait(f"{job}_5")
    assert (record["JobState"], record["Restarts"]) == ("COMPLETED", "1"), site.log(f"{job}_5")
    assert written(site) == ALL and site.log(f"{job}_5").count("part 1 of 2") == 2


def time_is_over(site: Any) -> None:
    """The array's last one: only it is put back. One that gained nothing in all its time is not."""
    prepared(site)
    (site.folder / "hold-1").touch()
    (site.folder / "hold-0-empty").touch()
    job = embed(site, "--array=0-1")
    site.until(lambda: len(written(site)) == 1, f"{job}_1")
    site.lab.run("scancel", "--batch", "--signal=USR1", f"{job}_1")
    site.until(lambda: "its time is over: back into the queue" in site.log(f"{job}_1"), f"{job}_1")
    (site.folder / "hold-1").unlink()
    assert site.wait(f"{job}_1")["Restarts"] == "1" and written(site) == ALL[1::2]
    (site.folder / "my store/image/00001.safetensors").touch()
    assert site.lab.job(f"{job}_0")["JobState"] == "RUNNING"


def time_is_over_and_nothing_gained(site: Any) -> None:
    """It would not end in all eternity."""
    prepared(site)
    (site.folder / "hold-0-empty").touch()
    job = embed(site, "--array=0-0")
    site.until(lambda: "part 0 of 1" in site.log(f"{job}_0"), f"{job}_0")
    site.lab.run("scancel", "--batch", "--signal=USR1", f"{job}_0")
    record = site.wait(f"{job}_0")
    assert (record["JobState"], record["Restarts"]) == ("FAILED", "0"), site.log(f"{job}_0")
    assert "is not run again by itself" in site.log(f"{job}_0")


def dies_each_time(site: Any) -> None:
    """Each time it gained a shard; what kills it every time is not waited for."""
    prepared(site)
    (site.folder / "die-0").touch()
    job = embed(site, "--array=0-0")
    for restart in (1, 2):
        site.until(
            lambda restart=restart: f"it died with 137: back into the queue, restart {restart}" in site.log(f"{job}_0"),
            f"{job}_0",
        )
    record = site.wait(f"{job}_0")
    assert (record["JobState"], record["ExitCode"], record["Restarts"]) == ("FAILED", "137:0", "2")
    assert written(site) == ALL[:3]


TOLD = (
    killed_and_submitted_again,
    killed_and_requeued_by_hand,
    time_is_over,
    time_is_over_and_nothing_gained,
    dies_each_time,
)
STORIES = {story.__name__: ("linuxproc", story) for story in TOLD}


@pytest.mark.parametrize("name", STORIES)
def test_tasks_of_an_array(stories: dict[str, Future[None]], name: str) -> None:
    """See the story."""
    stories[name].result()


@pytest.mark.parametrize(
    ("array", "more", "said"),
    [("0,2-3", (), "--array is no range"), ("0-1", ("--part=0/4",), "--part is what the array is for")],
)
def test_what_would_leave_shards_out_is_refused(site: Any, array: str, more: tuple[str, ...], said: str) -> None:
    """At once, by each task."""
    prepared(site)
    job = site.sbatch(f"--array={array}", "slurm/embed.sh", *WORDS, *more)
    last = f"{job}_{array[-1]}"
    assert site.wait(last)["ExitCode"] == "2:0" and said in site.log(last)
    assert written(site) == []


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


@pytest.mark.slow
def test_slurms_own_warning_before_the_time_limit(site: Any) -> None:
    """With two minutes in all the script's two minutes' warning comes at Slurm's next look at the clock."""
    prepared(site)
    (site.folder / "hold-0").touch()
    job = site.sbatch("--time=2", "--cpus-per-task=1", "--array=0-0", "slurm/embed.sh", *WORDS)
    site.until(lambda: "its time is over: back into the queue" in site.log(f"{job}_0"), f"{job}_0", seconds=150)
    (site.folder / "hold-0").unlink()
    record = site.wait(f"{job}_0")
    assert (record["JobState"], record["Restarts"]) == ("COMPLETED", "1") and written(site) == ALL

"""Which way a job of slurm/distill.sh ends and whether it is run again: signals, cancelling, dead ranks and nodes."""

from typing import Any

import pytest

COUNTED = list(range(1, 7))


def started_over(site: Any, job: str) -> None:
    """The job was put back into the queue once, both ranks went on where they had been, and it is done."""
    site.hurry(job)
    record = site.wait(job)
    assert (record["JobState"], record["Restarts"]) == ("COMPLETED", "1"), site.log(job)
    assert site.step(0) == site.step(1) == COUNTED
    log = site.log(job)
    assert log.count("restart 0, time left") == log.count("restart 1, time left") == 1  # appended to, not begun anew
    assert all(f"rank {rank} goes on after step 3" in log for rank in (0, 1))
    assert log.rstrip().endswith("done")
    assert not list(site.folder.glob(".dime-requeue-*"))


@pytest.mark.parametrize("whom", [[], ["--batch"], ["--full"]], ids=["tasks", "shell", "both"])
def test_usr1_checkpoints_and_requeues(tracked_site: Any, whom: list[str]) -> None:
    """Slurm's warning before the time limit goes to the tasks; a person may send it to the shell too."""
    site = tracked_site
    job = site.distill("steps=6", "first=hold")
    site.hold(job)
    site.lab.run("scancel", *whom, "--signal=USR1", job)
    site.until(lambda: "back into the queue, restart 1" in site.log(job), job)
    assert (site.folder / "checkpoint-0").read_text() == (site.folder / "checkpoint-1").read_text() == "3"
    started_over(site, job)


@pytest.mark.parametrize("how", [[], ["--batch", "--signal=TERM"]], ids=["job", "shell"])
def test_cancelled_checkpoints_and_is_not_run_again(tracked_site: Any, how: list[str]) -> None:
    """A whole checkpoint, though Slurm ends the tasks meanwhile."""
    site = tracked_site
    job = site.distill("steps=6", "first=hold")
    site.hold(job)
    site.lab.run("scancel", *how, job)
    record = site.wait(job)
    assert (record["JobState"], record["Restarts"]) == ("COMPLETED" if how else "CANCELLED", "0")
    site.until(lambda: "ended by scancel or by Slurm" in site.log(job), job)
    assert (site.folder / "checkpoint-0").read_text() == (site.folder / "checkpoint-1").read_text() == "3"
    assert site.step(0) == [1, 2, 3] and "back into the queue" not in site.log(job)


def test_dead_rank_is_run_again(tracked_site: Any) -> None:
    """The other rank, which would wait for it for ever, is ended; the marker says that running again helps."""
    site = tracked_site
    site.env = {"SLURM_WAIT": "1"}
    job = site.distill("steps=6", "first=die")
    site.until(lambda: "back into the queue, restart 1" in site.log(job), job)
    assert "tasks ended with 137" in site.log(job)
    started_over(site, job)


def test_requeued_from_outside(site: Any) -> None:
    """By a person: the tasks get TERM, checkpoint, and go on."""
    job = site.distill("steps=6", "first=hold")
    site.hold(job)
    site.lab.run("scontrol", "requeue", job)
    started_over(site, job)


def test_dead_node_is_slurms_matter(site: Any) -> None:
    """Slurm puts the job back by itself; this job does not a second time."""
    job = site.distill("steps=6", "first=hold")
    site.hold(job)
    node = site.lab.layout.names[1]
    site.lab.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    site.until(lambda: site.lab.job(job)["JobState"] != "RUNNING", job)
    site.lab.run("scontrol", "update", f"nodename={node}", "state=resume")
    started_over(site, job)


def test_a_job_that_may_not_be_requeued_says_so(site: Any) -> None:
    """Not done, so it does not end as if it were."""
    job = site.distill("steps=6", "first=hold", options=("--no-requeue",))
    site.hold(job)
    site.lab.run("scancel", "--signal=USR1", job)
    record = site.wait(job)
    assert (record["JobState"], record["ExitCode"]) == ("FAILED", "75:0"), site.log(job)
    assert "submit the same command again" in site.log(job)


def test_only_the_tasks_own_array_element_is_requeued(site: Any) -> None:
    """The last task's job id is the array's: requeueing that number would run all of them again."""
    (site.folder / "recipes/array.py").write_text(
        "import os, pathlib\n"
        "again = os.environ['SLURM_ARRAY_TASK_ID'] == '1' and 'SLURM_RESTART_COUNT' not in os.environ\n"
        "again and os.environ['SLURM_PROCID'] == '0' and pathlib.Path(os.environ['DIME_REQUEUE_FILE']).touch()\n"
    )
    job = site.distill("recipes/array.py", options=("--array=0-1",))
    ids = [f"{job}_{task}" for task in (0, 1)]
    assert [site.wait(one)["Restarts"] for one in ids] == ["0", "1"]


@pytest.mark.slow
def test_slurms_own_warning_before_the_time_limit(site: Any) -> None:
    """With five minutes in all the script's five minutes' warning comes at Slurm's next look at the clock."""
    job = site.distill("steps=6", "first=hold", options=("--time=5",))
    site.hold(job)
    site.until(lambda: "back into the queue, restart 1" in site.log(job), job, seconds=150)
    started_over(site, job)

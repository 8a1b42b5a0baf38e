"""Which way a job of slurm/distill.sh ends and whether it is run again: signals, cancelling, dead ranks and nodes.

Signals are sent on two trackers of processes: with pgid they reach only what srun itself started, as on clusters with cgroups.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest

COUNTED = list(range(1, 7))


def is_back(site: Any, job: str, why: str = "back into the queue, restart 1") -> bool:
    return why in site.log(job)


def started_over(site: Any, job: str) -> None:
    """The job was put back into the queue once, both ranks went on where they had been, and it is done."""
    record = site.wait(job)
    assert (record["JobState"], record["Restarts"]) == ("COMPLETED", "1"), site.log(job)
    assert site.step(0) == site.step(1) == COUNTED
    log = site.log(job)
    assert log.count("restart 0, time left") == log.count("restart 1, time left") == 1  # appended to, not begun anew
    assert all(f"rank {rank} goes on after step 3" in log for rank in (0, 1))
    assert log.rstrip().endswith("done")
    assert not list(site.folder.glob(".dime-requeue-*"))


def told_by_usr1(site: Any, whom: Sequence[str] = ()) -> None:
    """Slurm's warning before the time limit goes to the tasks; a person may send it to the shell, or to both."""
    job = site.distill("steps=6", "first=hold")
    site.hold(job)
    site.lab.run("scancel", *whom, "--signal=USR1", job)
    site.until(lambda: is_back(site, job), job)
    assert (site.folder / "checkpoint-0").read_text() == (site.folder / "checkpoint-1").read_text() == "3"
    started_over(site, job)


def cancelled(site: Any) -> None:
    """A whole checkpoint, though Slurm ends the tasks meanwhile; not run again."""
    job = site.distill("steps=6", "first=hold")
    site.hold(job)
    site.lab.run("scancel", job)
    record = site.wait(job)
    assert (record["JobState"], record["Restarts"]) == ("CANCELLED", "0")
    site.until(lambda: "ended as it was told" in site.log(job), job)
    assert (site.folder / "checkpoint-0").read_text() == (site.folder / "checkpoint-1").read_text() == "3"
    assert site.step(0) == [1, 2, 3] and not is_back(site, job)


def dead_rank(site: Any) -> None:
    """The other rank, which would wait for it for ever, is ended; the marker says that running again helps."""
    site.env = {"SLURM_WAIT": "1"}
    job = site.distill("steps=6", "first=die")
    site.until(lambda: is_back(site, job), job)
    assert "tasks ended with 137" in site.log(job)
    started_over(site, job)


def requeued_by_a_person(site: Any) -> None:
    """The tasks get TERM, checkpoint, and go on."""
    job = site.distill("steps=6", "first=hold")
    site.hold(job)
    site.lab.run("scontrol", "requeue", job)
    started_over(site, job)


def cancelled_without_a_word(site: Any) -> None:
    """The tasks die before they can take back that running again would help; a cancelled job stays cancelled."""
    job = site.distill("steps=6", "first=frail")
    site.hold(job)
    site.lab.run("scancel", job)
    site.until(lambda: "ended as it was told" in site.log(job), job)
    record = site.wait(job)
    assert (record["JobState"], record["Restarts"]) == ("CANCELLED", "0") and not is_back(site, job)
    assert not list(site.folder.glob(".dime-requeue-*"))


def crashed_at_once(site: Any) -> None:
    """Before it could say that running again helps; what an earlier try of this job had said does not count."""
    (site.folder / "recipes/crash.py").write_text("import os, time\ntime.sleep(0.2)\nos._exit(7)\n")
    job = site.distill("recipes/crash.py", options=("--hold",))
    (site.folder / f".dime-requeue-{job}").touch()
    site.lab.run("scontrol", "release", job)
    record = site.wait(job)
    assert (record["JobState"], record["ExitCode"], record["Restarts"]) == ("FAILED", "7:0", "0"), site.log(job)


def not_to_be_requeued(site: Any) -> None:
    """It is not done, so it does not end as if it were, and says what to do."""
    job = site.distill("steps=6", "first=hold", options=("--no-requeue",))
    site.hold(job)
    site.lab.run("scancel", "--signal=USR1", job)
    record = site.wait(job)
    assert (record["JobState"], record["ExitCode"]) == ("FAILED", "75:0"), site.log(job)
    assert "submit the same command again" in site.log(job)


def element_of_an_array(site: Any) -> None:
    """The last task's job id is the array's: requeueing that number would run all of them again."""
    (site.folder / "recipes/array.py").write_text(
        "import os, pathlib\n"
        "again = os.environ['SLURM_ARRAY_TASK_ID'] == '1' and 'SLURM_RESTART_COUNT' not in os.environ\n"
        "again and os.environ['SLURM_PROCID'] == '0' and pathlib.Path(os.environ['DIME_REQUEUE_FILE']).touch()\n"
    )
    job = site.distill("recipes/array.py", options=("--array=0-1",))
    site.until(lambda: site.lab.job(f"{job}_1")["Restarts"] == "1", job)
    assert [site.wait(f"{job}_{task}")["Restarts"] for task in (0, 1)] == ["0", "1"]
    assert site.lab.job(f"{job}_1")["JobState"] == "COMPLETED"


BY_SIGNAL: dict[str, Callable[[Any], None]] = {
    "usr1 to the tasks": told_by_usr1,
    "usr1 to the shell": partial(told_by_usr1, whom=["--batch"]),
    "usr1 to both": partial(told_by_usr1, whom=["--full"]),
    "scancel": cancelled,
    "dead rank": dead_rank,
}
OTHERS: dict[str, Callable[[Any], None]] = {
    "requeued by a person": requeued_by_a_person,
    "cancelled without a word": cancelled_without_a_word,
    "crashed at once": crashed_at_once,
    "not to be requeued": not_to_be_requeued,
    "element of an array": element_of_an_array,
}
STORIES = {
    f"{name}, {tracker}": (tracker, story) for name, story in BY_SIGNAL.items() for tracker in ("linuxproc", "pgid")
}
STORIES |= {name: ("linuxproc", story) for name, story in OTHERS.items()}


@pytest.mark.parametrize("name", STORIES)
def test_how_it_ends(stories: dict[str, Future[None]], name: str) -> None:
    """See the story."""
    stories[name].result()


@pytest.mark.slow
def test_preempted(site: Any) -> None:
    """USR1 at once where the site sends it, then TERM after the grace time: saved, and run again after the other job."""
    job = site.distill("steps=6", "first=hold", options=("--partition=low", "--exclusive"))
    site.hold(job)
    other = site.sbatch("--partition=high", "--exclusive", "--nodes=2", "--wrap=sleep 3")
    site.until(lambda: (site.folder / "checkpoint-0").exists() and (site.folder / "checkpoint-1").exists(), job)
    assert site.wait(other)["JobState"] == "COMPLETED"
    started_over(site, job)


@pytest.mark.slow
def test_dead_node_is_slurms_matter(site: Any) -> None:
    """Slurm puts the job back by itself; this job does not a second time."""
    job = site.distill("steps=6", "first=hold")
    site.hold(job)
    node = site.lab.layout.names[1]
    site.lab.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    site.until(lambda: site.lab.job(job)["JobState"] != "RUNNING", job)
    site.lab.run("scontrol", "update", f"nodename={node}", "state=resume")
    started_over(site, job)


@pytest.mark.slow
def test_slurms_own_warning_before_the_time_limit(site: Any) -> None:
    """With five minutes in all the script's five minutes' warning comes at Slurm's next look at the clock."""
    job = site.distill("steps=6", "first=hold", options=("--time=5",))
    site.hold(job)
    site.until(lambda: is_back(site, job), job, seconds=150)
    started_over(site, job)

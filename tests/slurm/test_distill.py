"""slurm/distill.sh on a private cluster of two nodes, with a stand-in for the training run: arguments, ranks, log, site.env."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]


def test_scripts_are_clean() -> None:
    """SC2016 flags single quotes that are meant, SC2317 functions that traps call, SC1091 files it does not follow."""
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed (apt-get install shellcheck)")
    files = sorted(str(path) for path in [*(REPO / "slurm").iterdir(), REPO / ".ci/run"])
    done = subprocess.run(
        ["shellcheck", "-S", "warning", "-e", "SC2016,SC2317,SC1091", *files], capture_output=True, text=True
    )
    assert done.returncode == 0 and len(files) == 6, done.stdout


def test_words_reach_every_rank_as_they_are(site: Any) -> None:
    """Spaces, quotes, patterns and dollars; the recipe is the one that was named; ranks meet over two hosts."""
    words = ["data.images=shards/{00000..00003}.tar::b c/*.tar", 'name=it\'s $HOME "q"', "--dry-run", "steps=2"]
    job = site.distill("recipes/other.py", *words)
    assert site.wait(job)["JobState"] == "COMPLETED", site.log(job)
    hosts = ["vm", "vm"] if site.lab.layout.mode == "loop" else ["node1", "node2"]
    for rank in (0, 1):
        seen = site.seen(rank=rank)
        assert seen["argv"] == ["recipes/other.py", *words]
        assert site.step(rank) == [1, 2]
        if site.lab.layout.mode == "netns":
            assert seen["ranks"] == [f"{number}@{host}" for number, host in enumerate(hosts)]
    assert not list(site.folder.glob(".dime-requeue-*"))


def test_environment_of_a_rank(site: Any) -> None:
    """Without words the default recipe; what Python and its libraries look for is set, also for a job that inherits nothing."""
    job = site.distill(options=("--export=NONE",))
    record = site.wait(job)
    assert record["JobState"] == "COMPLETED", site.log(job)
    seen = site.seen(rank=1)
    assert seen["argv"] == ["recipes/distill_vitb32.py"]
    env, first = seen["env"], site.lab.layout.names[0]
    assert env["MASTER_ADDR"] == first and 10_000 <= int(env["MASTER_PORT"]) < 30_000
    assert env["DIME_REQUEUE_FILE"] == f"{site.folder}/.dime-requeue-{job}"
    submitted = int(site.lab.run("date", "-d", record["SubmitTime"], "+%s"))
    assert 1140 < int(env["DIME_JOB_END"]) - submitted < 1260  # --time=20
    assert env["SRUN_CPUS_PER_TASK"] == "1" and env["OMP_NUM_THREADS"] == "1"
    assert job in env["TRITON_CACHE_DIR"] and job in env["TORCHINDUCTOR_CACHE_DIR"]
    assert env["TORCH_FR_DUMP_TEMP_FILE"].startswith(f"{site.folder}/dime-{job}-")


def test_log_says_what_the_job_is_and_how_it_ended(site: Any) -> None:
    """First lines and last line, for a person."""
    job = site.distill("steps=1", "a=b c")
    site.wait(job)
    names = " ".join(site.lab.layout.names)
    first, command, *_, last = site.log(job).splitlines()
    assert re.search(rf"job {job} \(dime\) on {names}, tasks per node 1\(x2\), restart 0, time left (20|19):", first)
    assert "command: srun" in command and r"-u recipes/distill_vitb32.py steps=1 a=b\ c" in command
    assert last.endswith("done")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["recipes/none.py"], "no recipe recipes/none.py in"),
        (["first=mistake"], "failed with exit code 2, and is not run again by itself"),
    ],
)
def test_a_mistake_is_told_and_not_run_again(site: Any, words: list[str], said: str) -> None:
    """Its exit code is the job's, though the other rank comes to its end later."""
    job = site.distill(*words)
    record = site.wait(job)
    assert (record["JobState"], record["ExitCode"], record["Restarts"]) == ("FAILED", "2:0", "0"), site.log(job)
    assert said in site.log(job)
    assert not list(site.folder.glob(".dime-requeue-*"))


def test_submitted_from_another_folder(site: Any) -> None:
    """Slurm runs a copy of the script, which cannot know where its neighbours lie."""
    job = site.lab.sbatch(
        "--nodes=1", "--ntasks-per-node=1", str(site.folder / "slurm/distill.sh"), cwd=site.folder / "recipes"
    )
    assert site.wait(job)["ExitCode"] == "2:0"
    log = (site.folder / "recipes" / f"dime-{job}.out").read_text()
    assert f"no slurm/job.sh in {site.folder}/recipes; submit from the folder that holds slurm/" in log


def test_site_env_is_the_users(site: Any) -> None:
    """Another Python, words for srun, a wrapper such as a container, and variables for every rank."""
    python = site.folder / "their own" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    (site.folder / "slurm/site.env").write_text(
        f"DIME_PYTHON='{python}'\nDIME_SRUN=(--comment='two words')\nDIME_WRAP=(env WRAPPED='a b')\n"
        "export NCCL_DEBUG=INFO FOR_ALL=1\nfalse\n"
    )
    job = site.distill("steps=1")
    assert site.wait(job)["JobState"] == "COMPLETED", site.log(job)
    seen = site.seen(rank=1)
    assert seen["python"] == str(python)
    assert {name: seen["env"][name] for name in ("WRAPPED", "NCCL_DEBUG", "FOR_ALL")} == {
        "WRAPPED": "a b", "NCCL_DEBUG": "INFO", "FOR_ALL": "1",
    }  # fmt: skip
    assert r"--comment=two\ words env WRAPPED=a\ b" in site.log(job)


def test_shipped_site_env_sets_nothing() -> None:
    """Whatever stands there would be right for one cluster only."""
    lines = (REPO / "slurm/site.env").read_text().splitlines()
    assert all(not line or line.startswith("#") for line in lines)


def test_the_scripts_own_shape_is_accepted(site: Any) -> None:
    """Three nodes of eight GPUs: the lab has two, so the job waits; nothing in it is refused."""
    for script in ("distill.sh", "embed.sh", "evaluate.sh"):
        site.lab.run("sbatch", "--test-only", "--nodes=2", f"slurm/{script}", "x", cwd=site.folder)


@pytest.mark.parametrize(
    ("left", "seconds"), [("5:03", 303), ("1:00:09", 3609), ("2-01:00:08", 176_408), ("08:09:08", 29_348)]
)
def test_time_left_is_read(left: str, seconds: int) -> None:
    """As squeue prints it."""
    done = subprocess.run(
        ["bash", "-c", f"source slurm/job.sh; seconds_in {left}"], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == seconds

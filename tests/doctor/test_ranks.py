"""Real ranks over gloo: well together, and with one of them ill in every way that can be injected."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from doctor.looking import WORKER, look, write_recipe
from launch_ranks import environment

MODELS = "models,limits"
LIGHT = "compute,allreduce,models,shards,evaluation,disk,shared,resume"


def test_two_healthy_ranks(kept_world: Path, tmp_path: Path) -> None:
    """All checks. How fast two ranks on a busy machine are is left aside: only they may differ."""
    seen = look(write_recipe(tmp_path, kept_world))
    said = [row for row in seen.found["rows"] if row["verdict"] != "good" and row["check"] not in ("compute", "limits")]
    assert said == []
    assert seen.found["ranks"] == 2 and set(seen.found["hosts"]) == {"0", "1"} and seen.found["left_out"] == []
    assert seen.codes == [int(bool(seen.bad()))] * 2
    assert {row["check"] for row in seen.found["rows"]} >= {"ranks", "versions", "allreduce", "batch", "room", "store"}
    exact = next(row for row in seen.found["rows"] if row["check"] == "allreduce")
    assert exact["where"] == "all 2 ranks" and exact["found"] == "exact"
    assert list((tmp_path / "run").iterdir()) == []
    assert "Traceback" not in "".join(seen.outputs)


@pytest.mark.slow
def test_a_rank_with_many_wounds(kept_world: Path, tmp_path: Path) -> None:
    """Each is found, named with its rank, and nothing else is."""
    seen = look(
        write_recipe(tmp_path, kept_world), "--skip", MODELS, wounds="other_version,slow,wrong_clock,wrong_sum",
        others=(f"out_dir={tmp_path / 'elsewhere'}",),
    )  # fmt: skip
    bad = seen.bad()
    assert set(bad) == {
        "versions: torch", "versions: recipe", "compute: matrix products", "clock: clock", "allreduce: sum over ranks",
        f"shared: out_dir={tmp_path / 'run'}",
    }  # fmt: skip
    assert all(row["where"].startswith("rank 1 (") for row in bad.values()) and seen.codes == [1, 1]
    assert bad["versions: torch"]["found"] == "2.99.0" and "ahead" in bad["clock: clock"]["found"]
    assert seen.found["left_out"] == ["models", "limits", "store", "batch", "room"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wound", "said", "code"),
    [
        ("hangs", "did not end within 6 s; it stands in hangs (worker.py:", 1),
        ("raises", "KeyError: 'nobody thought of this'", 1),
        ("stops", "no sign of life for 6 s", None),
        ("dies", "no sign of life for 6 s", 9),
    ],
)
def test_a_rank_that_does_not_answer(kept_world: Path, tmp_path: Path, wound: str, said: str, code: int | None) -> None:
    """It is named with where it stands, and the others end with their report."""
    seen = look(write_recipe(tmp_path, kept_world), "--skip", LIGHT, "--limit", "6", wounds=wound)
    bad = seen.bad()
    assert set(bad) == {"limits: the check itself"}
    assert bad["limits: the check itself"]["where"].startswith("rank 1 (")
    assert bad["limits: the check itself"]["found"].startswith(said)
    assert seen.codes == [1, code] and "Traceback" not in "".join(seen.outputs)


@pytest.mark.slow
def test_a_sum_that_never_comes(kept_world: Path, tmp_path: Path) -> None:
    """A rank that hangs in it hangs no other for good, and what would need the ranks together is left out."""
    skip = "compute,shards,evaluation,disk,shared,resume"
    seen = look(write_recipe(tmp_path, kept_world), "--skip", skip, "--limit", "15", wounds="hangs_in_sum")
    assert set(seen.bad()) == {"allreduce: the check itself"} and seen.codes == [1, 1]
    left_out = {row["check"]: row["found"] for row in seen.found["rows"] if row["what"] == "left out"}
    assert left_out == {"batch": "the ranks cannot reach each other"}


@pytest.mark.slow
def test_a_rank_that_never_comes(kept_world: Path, tmp_path: Path) -> None:
    """It is named; the others are looked at."""
    seen = look(write_recipe(tmp_path, kept_world), "--skip", LIGHT, "--wait", "5", start=1)
    row = seen.bad()["ranks: ranks by host"]
    assert (row["where"], row["found"]) == ("rank 1 (host unknown)", "did not come within 5 s") and seen.codes == [1]


@pytest.mark.slow
def test_a_rank_that_rank_0_never_answers(kept_world: Path, tmp_path: Path) -> None:
    """One line, exit code 1."""
    env = environment(
        RANK="1", LOCAL_RANK="1", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="9", WOUNDS="",
    )  # fmt: skip
    words = [sys.executable, str(WORKER), "doctor", str(write_recipe(tmp_path, kept_world)), "--wait", "3"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "cannot talk" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "srun", "own"])
def test_launchers(kept_world: Path, tmp_path: Path, launcher: str) -> None:
    """Ranks of torchrun, of srun's environment (its address from scontrol), and of --ranks."""
    recipe = write_recipe(tmp_path, kept_world)
    words = ["doctor", str(recipe), "--skip", "compute,models", "--json"]
    own = environment(PYTHONPATH=os.environ.get("PYTHONPATH", ""))
    if launcher == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
        done = [subprocess.Popen([*command, "toolkit.cli", *words], env=own, stdout=subprocess.PIPE, text=True)]
    elif launcher == "own":
        command = [sys.executable, "-m", "toolkit.cli", *words, "--ranks", "2"]
        done = [subprocess.Popen(command, env=own, stdout=subprocess.PIPE, text=True)]
    else:
        scontrol = tmp_path / "scontrol"
        scontrol.write_text("#!/bin/sh\ntest \"$*\" = 'show hostnames node[1-2]' && echo 127.0.0.1 && echo 127.0.0.2\n")
        scontrol.chmod(0o755)
        job = str(os.getpid() % 40_000)
        slurm = {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": job, "SLURM_STEP_NODELIST": "node[1-2]"}
        done = [
            subprocess.Popen(
                [sys.executable, "-m", "toolkit.cli", *words],
                env={
                    **own, **slurm, "SLURM_PROCID": str(rank), "SLURM_LOCALID": "0", "SLURMD_NODENAME": f"node{rank + 1}",
                    "PATH": f"{tmp_path}{os.pathsep}{own['PATH']}",
                },
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]  # fmt: skip
    outputs = [process.communicate(timeout=200)[0] for process in done]
    assert [process.returncode for process in done] == [0] * len(done), outputs
    assert '"verdict": "good"' in outputs[0].splitlines()[-1] or '"verdict": "warn"' in outputs[0].splitlines()[-1]
    assert '"ranks": 2' in outputs[0].splitlines()[-1]
    if launcher == "srun":
        assert '"hosts": {"0": "node1", "1": "node2"}' in outputs[0]

"""Signals, the time budget, and what is known of a run's launches; nothing here needs torch."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit import launches, signals
from toolkit.errors import ConfigError
from toolkit.signals import Asked


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No job around, no handler left behind."""
    for name in (
        "SLURM_JOB_ID",
        "SLURM_RESTART_COUNT",
        "TORCHELASTIC_RESTART_COUNT",
        "DIME_REQUEUE_FILE",
        "DIME_JOB_END",
    ):
        monkeypatch.delenv(name, raising=False)
    before = [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)]
    signals.forget()
    yield
    signals.forget()
    for number, handler in zip((signal.SIGUSR1, signal.SIGTERM), before, strict=True):
        signal.signal(number, handler)


def test_signals_are_noted_and_the_largest_counts() -> None:
    signals.install()
    assert signals.asked() is Asked.NOTHING
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.asked() is Asked.TERM and not signals.asked().again
    os.kill(os.getpid(), signal.SIGUSR1)
    assert signals.asked() is Asked.TERM
    with pytest.raises(signals.Interrupted, match="embedding stopped: signal TERM"):
        signals.stop_here("embedding")


def test_usr1_asks_for_another_launch() -> None:
    signals.install()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert signals.asked() is Asked.USR1 and signals.asked().again


def test_a_second_term_ends_the_process() -> None:
    """A hung process must not need KILL."""
    code = (
        "import os, signal, time; from toolkit import signals; signals.install()\n"
        "os.kill(os.getpid(), signal.SIGTERM); print('noted', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout == "noted\n" and done.returncode == -signal.SIGTERM


def test_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever comes first: hours of this launch, or the job's end less a margin."""
    signals.set_budget(None, 300.0)
    assert signals.asked() is Asked.NOTHING
    signals.set_budget(1e-9, 300.0)
    assert signals.asked() is Asked.BUDGET
    monkeypatch.setenv("DIME_JOB_END", str(int(time.time()) + 200))
    signals.set_budget(10.0, 100.0)
    assert signals.asked() is Asked.NOTHING
    signals.set_budget(10.0, 300.0)
    assert signals.asked() is Asked.BUDGET


def launched(folder: Path, monkeypatch: pytest.MonkeyPatch, restart: int, step: int, job: str = "7") -> None:
    """A launch that begins with a checkpoint at `step`."""
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
    (folder / "checkpoints" / f"step_{step:08d}").mkdir(parents=True, exist_ok=True)
    launches.begin(folder)


def test_crash_loop_ends_after_two_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = tmp_path / "again"
    monkeypatch.setenv("DIME_REQUEUE_FILE", str(again))
    run = tmp_path / "run"
    launched(run, monkeypatch, 0, 5)
    launched(run, monkeypatch, 1, 5)
    assert again.exists()
    with pytest.raises(ConfigError, match="gained no step beyond step 5: it is not tried again"):
        launched(run, monkeypatch, 2, 5)
    assert not again.exists()
    launched(run, monkeypatch, 0, 5, job="8")
    assert again.exists(), "a person submitted it anew"


def test_launches_that_gain_steps_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for restart in range(6):
        launched(tmp_path, monkeypatch, restart, 5 + restart // 2)
    for restart in range(6, 9):  # pre-empted before its first step, several times: nobody's fault
        launched(tmp_path, monkeypatch, restart, 9)
        launches.end(tmp_path, "TERM", 9, again=False)
    assert [line["step"] for line in launches.read(tmp_path)] == [5, 5, 6, 6, 7, 7, 9, 9, 9]


def test_end_says_how_and_takes_the_file_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = tmp_path / "again"
    monkeypatch.setenv("DIME_REQUEUE_FILE", str(again))
    launches.begin(tmp_path)
    launches.end(tmp_path, "USR1", 3, again=True)
    assert again.exists()
    launches.begin(tmp_path)
    launches.end(tmp_path, "DONE", 9, again=False)
    assert not again.exists()
    with open(tmp_path / launches.NAME, "a") as file:
        file.write('{"started": ')  # cut by a crash
    assert [(line["how"], line["last_step"]) for line in launches.read(tmp_path)] == [("USR1", 3), ("DONE", 9)]
    assert all(json.loads(line) for line in (tmp_path / launches.NAME).read_text().splitlines()[:-1])


def test_names_that_are_no_checkpoints_are_no_steps(tmp_path: Path) -> None:
    for name in ("step_00000004", ".step_00000009.ab.tmp", "step_old", "newest"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert launches.newest_step(tmp_path) == 4

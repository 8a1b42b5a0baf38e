"""What a run leaves behind for people: JSONL that survives kills, and a TensorBoard file that TensorBoard reads."""

import json
import math
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from toolkit.config import Logging, Run
from toolkit.errors import ConfigError
from toolkit.metrics import METRICS_NAME, Metrics, clock, keep_up_to


def run_in(folder: Path, **logging: object) -> Run:
    return Run(out_dir=str(folder), steps=100, logging=Logging(**{"tensorboard": False, **logging}))  # type: ignore[arg-type]


def log(folder: Path, first_step: int, steps: list[int], value: float, **logging: object) -> None:
    """A launch that logs `value` at some steps."""
    metrics = Metrics(run_in(folder, **logging), first_step)
    for step in steps:
        metrics.log(step, {"train/loss": value + step})
    metrics.close()


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / METRICS_NAME).read_text().splitlines()]


def test_steps_that_are_run_again_replace_the_old_lines(tmp_path: Path) -> None:
    """Killed at 30, resumed from the checkpoint of 20: 30 stands there once, with the new value."""
    log(tmp_path, 0, [10, 20, 30], 0.0)
    log(tmp_path, 20, [30, 40], 1000.0)
    assert [(line["step"], line["train/loss"]) for line in lines(tmp_path)] == [
        (10, 10.0), (20, 20.0), (30, 1030.0), (40, 1040.0)
    ]  # fmt: skip


@pytest.mark.parametrize("torn", ['{"step": 30, "train/lo', "{}", "3", '{"step": null}', "\x00\x00"])
def test_a_torn_line_is_dropped(torn: str, tmp_path: Path) -> None:
    """And the next one does not stick to it."""
    log(tmp_path, 0, [10, 20], 0.0)
    with open(tmp_path / METRICS_NAME, "a") as file:
        file.write(torn)
    log(tmp_path, 20, [30], 0.0)
    assert [line["step"] for line in lines(tmp_path)] == [10, 20, 30]


def test_each_line_is_there_at_once(tmp_path: Path) -> None:
    """A killed run keeps what it has logged."""
    metrics = Metrics(run_in(tmp_path), 0)
    metrics.log(10, {"train/loss": 1.0})
    assert lines(tmp_path) == [{"step": 10, "train/loss": 1.0}]
    metrics.close()


def test_killed_while_it_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old lines are there until the kept ones are written."""
    log(tmp_path, 0, [10, 20], 0.0)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        Metrics(run_in(tmp_path), 10)
    assert [line["step"] for line in lines(tmp_path)] == [10, 20]


def test_values_that_json_does_not_have(tmp_path: Path) -> None:
    """NaN is no JSON; other programs must be able to read the file."""
    metrics = Metrics(run_in(tmp_path), 0)
    metrics.log(1, {"a": math.nan, "b": math.inf, "c": 2.0})
    metrics.close()
    assert "NaN" not in (tmp_path / METRICS_NAME).read_text() and lines(tmp_path) == [
        {"step": 1, "a": None, "b": None, "c": 2.0}
    ]


def test_tensorboard_reads_it(tmp_path: Path) -> None:
    """Over a resume as well: steps of lost work are purged."""
    log(tmp_path, 0, [10, 20, 30], 0.0, tensorboard=True)
    log(tmp_path, 20, [30, 40], 1000.0, tensorboard=True)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert board.Tags()["scalars"] == ["train/loss"]
    found = {event.step: event.value for event in board.Scalars("train/loss")}
    assert found == {10: 10.0, 20: 20.0, 30: 1030.0, 40: 1040.0} and len(board.Scalars("train/loss")) == 4


def test_a_line_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no terminal: step of steps, loss, terms, rate, speed, wait, time left."""
    metrics = Metrics(run_in(tmp_path), 0)
    values = {"train/loss": 1.5, "train/loss_vl": 2.0, "optim/lr": 3e-4, "speed/images_per_second": 1234.0}
    metrics.show(50, {**values, "data/wait_fraction": 0.25})
    metrics.close()
    shown = capsys.readouterr().out
    assert "step 50/100 loss 1.5000 (vl 2.0000) lr 3.00e-04 1,234 images/s data wait 25% ETA 0:00:0" in shown


def test_wandb_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One message at the start, with the cure."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"logging\.wandb_project=mine needs the wandb package; pip install"):
        Metrics(run_in(tmp_path, wandb_project="mine"), 0)


def test_small_things(tmp_path: Path) -> None:
    """A clock, and a file that is not there."""
    assert (clock(0.0), clock(3723.9), clock(360_000.0)) == ("0:00:00", "1:02:03", "100:00:00")
    keep_up_to(tmp_path / "none.jsonl", 3)
    assert not (tmp_path / "none.jsonl").exists()

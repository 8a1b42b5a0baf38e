"""Checkpoints are written while training goes on, a save that fails loses nothing, and what to keep is kept."""

import errno
import os
import re
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from toolkit import checkpoint
from toolkit.checkpoint import files, host_copy, saver
from toolkit.config import Checkpoint, Run
from toolkit.errors import CheckpointError
from toolkit.playground.shards import write_world
from toolkit.step import Step
from toolkit.train import train

sys.path.insert(0, str(Path(__file__).parent))
from faults_worker import run_of  # the folder of a script is its import path; tests are no package

WORKER = Path(__file__).with_name("faults_worker.py")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("saving"), images=96, texts=96, test_images_per_class=1, test_pairs=20)


def run_with(world: Path, out_dir: Path, steps: int = 4, **chosen: Any) -> Run:
    """A checkpoint after every step."""
    run = run_of(world, out_dir)
    return replace(
        run, steps=steps, optim=replace(run.optim, warmup_steps=1), checkpoint=Checkpoint(every_steps=1, **chosen)
    )


def names(run: Run) -> list[int]:
    return [checkpoint.step_of(folder) for folder in checkpoint.steps_saved(Path(run.out_dir))]


def test_steps_go_on_while_a_checkpoint_is_written(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first checkpoint cannot be written before the second step has been computed."""
    second = threading.Event()
    plain_write, plain_step = host_copy.write_state, Step.forward_backward

    def late(state: Any, path: Path) -> None:
        assert second.wait(60), "the step waited for the disk"
        plain_write(state, path)

    def noted(self: Step, tensors: Any, number: int, **more: Any) -> Any:
        found = plain_step(self, tensors, number, **more)
        if number == 1:
            second.set()
        return found

    monkeypatch.setattr(saver, "write_state", late)
    monkeypatch.setattr(Step, "forward_backward", noted)
    run = run_with(world, tmp_path / "run", keep_last=9)
    train(run)
    assert names(run) == [1, 2, 3, 4]
    assert (tmp_path / "run" / "checkpoints" / "newest").read_text() == "step_00000004\n"
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_what_is_written_late_is_what_was_there(world: Path, tmp_path: Path) -> None:
    """A checkpoint written in the background holds the weights of its own step, not of the one that ran meanwhile."""
    for name, background in (("late", True), ("at_once", False)):
        train(run_with(world, tmp_path / name, keep_last=9, background=background))
    for step in range(1, 5):
        late, at_once = (checkpoint.folder_of(tmp_path / name, step) for name in ("late", "at_once"))
        found, wanted = (load_file(folder / "student.safetensors") for folder in (late, at_once))
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        states = [
            torch.load(folder / "deepspeed" / "mp_rank_00_model_states.pt", weights_only=False)
            for folder in (late, at_once)
        ]
        module = [state["module"] for state in states]
        assert all(torch.equal(module[0][name], module[1][name]) for name in module[1])
        assert all(
            torch.equal(module[0][f"student.{name}"], wanted[name]) for name in wanted if f"student.{name}" in module[0]
        )


def test_every_nth_is_kept_for_good(world: Path, tmp_path: Path) -> None:
    run = run_with(world, tmp_path / "run", steps=7, keep_last=2, keep_every_steps=3)
    train(run)
    assert names(run) == [3, 6, 7]


def full_disk(steps: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing DeepSpeed's files fails for these steps."""
    plain = host_copy.write_state

    def write(state: Any, path: Path) -> None:
        if any(f"step_{step:08d}" in str(path) for step in steps):
            path.write_bytes(b"half a fi")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        plain(state, path)

    monkeypatch.setattr(saver, "write_state", write)


def test_one_failed_save_is_said_and_the_run_goes_on(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full_disk((2,), monkeypatch)
    run = run_with(world, tmp_path / "run", keep_last=9)
    train(run)
    said = capsys.readouterr().out
    assert (
        "checkpoint step_00000002 was NOT saved: rank 0 on" in said
        and "No space left on device" in said
        and "MB free at" in said
    )
    assert names(run) == [1, 3, 4] and not list((tmp_path / "run" / "checkpoints").glob(".*"))
    assert not checkpoint.complaint(checkpoint.folder_of(tmp_path / "run", 1))


def test_two_failed_saves_in_a_row_stop_the_run(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk((2, 3), monkeypatch)
    run = run_with(world, tmp_path / "run", steps=9, keep_last=9)
    with pytest.raises(CheckpointError, match=r"2 checkpoints in a row could not be saved: rank 0 on .*Make room"):
        train(run)
    assert names(run)[0] == 1 and not {2, 3} & set(names(run))
    monkeypatch.undo()
    train(run)
    assert max(names(run)) == 9


def test_the_last_save_must_succeed(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk((4,), monkeypatch)
    run = run_with(world, tmp_path / "run", keep_last=9)
    with pytest.raises(CheckpointError, match="the last checkpoint could not be saved"):
        train(run)
    assert names(run) == [1, 2, 3]


def test_bytes_that_the_disk_changed_are_noticed(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between writing and reading back; such a checkpoint does not get its name."""
    plain = torch.save

    def save(state: Any, path: Path) -> None:
        plain(state, path)
        if "step_00000002" in str(path):
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)

    monkeypatch.setattr(host_copy.torch, "save", save)
    run = run_with(world, tmp_path / "run", keep_last=9)
    train(run)
    assert names(run) == [1, 3, 4]


def test_leavings_of_a_killed_launch_are_removed(world: Path, tmp_path: Path) -> None:
    left = tmp_path / "run" / "checkpoints" / ".step_00000002.deadbeef.tmp" / "deepspeed"
    left.mkdir(parents=True)
    (left / "mp_rank_00_model_states.pt").write_bytes(b"half")
    run = run_with(world, tmp_path / "run")
    train(run)
    assert not left.exists() and names(run) == [2, 3, 4]


def vouch_for(folder: Path) -> None:
    """A manifest that fits whatever lies there now."""
    (folder / "manifest.json").unlink()
    found = {str(path.relative_to(folder)): files.written(path) for path in folder.rglob("*") if path.is_file()}
    files.publish(folder.rename(folder.with_name("aside")), folder, found)


def test_weights_that_deepspeed_loads_otherwise_are_refused(world: Path, tmp_path: Path) -> None:
    """The consolidated student is the witness, whatever the manifest says."""
    run = run_with(world, tmp_path / "run", keep_last=1)
    train(run)
    folder = checkpoint.folder_of(tmp_path / "run", 4)
    student = load_file(folder / "student.safetensors")
    name = next(name for name, value in student.items() if value.is_floating_point())
    student[name] += 1e-6
    save_file(student, folder / "student.safetensors")
    vouch_for(folder)
    with pytest.raises(CheckpointError, match=rf"what DeepSpeed loaded is not the student .*rank 0: {re.escape(name)}"):
        train(replace(run, steps=5))


def test_a_listed_file_runs_no_code(world: Path, tmp_path: Path) -> None:
    """Somebody else's run folder, with a manifest that fits."""
    run = run_with(world, tmp_path / "run", keep_last=1)
    train(run)
    folder, marker = checkpoint.folder_of(tmp_path / "run", 4), tmp_path / "owned"
    torch.save({"module": Evil(str(marker))}, folder / "deepspeed" / "mp_rank_00_model_states.pt")
    vouch_for(folder)
    with pytest.raises(CheckpointError, match="it is not run"):
        train(replace(run, steps=5))
    assert not marker.exists()


class Evil:
    """Pickles into a call that leaves a mark."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.path}",))

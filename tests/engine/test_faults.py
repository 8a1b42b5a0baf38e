"""What must not be lost or passed over: torn checkpoints, other students, numbers that are none."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from toolkit import checkpoint, config
from toolkit.agreement import NonFiniteLoss
from toolkit.config import Checkpoint, Data, Logging, Optim, Run, Student, Teacher
from toolkit.config.losses import QueuePVL
from toolkit.errors import CheckpointError, ConfigError
from toolkit.playground.prepare import TEACHER
from toolkit.playground.shards import write_world
from toolkit.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """Four steps of one rank in this process, already trained, with a checkpoint after every step."""
    folder = tmp_path_factory.mktemp("faults")
    world = write_world(folder / "world", images=128, texts=128, test_images_per_class=1, test_pairs=20)
    run = Run(
        out_dir=str(folder / "run"),
        teacher=Teacher(name=str(TEACHER)),
        student=Student(name="toolkit.playground.towers:scene_student", kwargs={"width": 8}),
        losses=dict(config.FIELD_PRESETS["dimefm"]),
        data=Data(images=str(world / "train_images"), texts=str(world / "train_texts"), global_batch_size=16),
        optim=Optim(warmup_steps=1),
        steps=4,
        precision="fp32",
        workers=0,
        logging=Logging(every_steps=1, tensorboard=False),
        checkpoint=Checkpoint(every_steps=1, keep_last=2),
    )
    train(run)
    return run


def copied(run: Run, tmp_path: Path) -> Run:
    """The same run in a folder that a test may damage."""
    shutil.copytree(run.out_dir, tmp_path / "run")
    return replace(run, out_dir=str(tmp_path / "run"))


def test_keeps_the_last_checkpoints(run):
    assert [p.name for p in checkpoint.steps_saved(Path(run.out_dir))] == ["step_00000003", "step_00000004"]


def test_checkpoint_holds_nothing_of_the_teacher(run):
    folder = checkpoint.newest(Path(run.out_dir))
    assert not [key for key in load_file(folder / "student.safetensors") if key.startswith("text")]
    states = torch.load(folder / "deepspeed" / "mp_rank_00_model_states.pt", weights_only=False)["module"]
    assert {key.split(".")[0] for key in states} == {"student"}


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "manifest"])
def test_torn_checkpoint_is_passed_over_and_named(run, tmp_path, capsys, damage):
    run = copied(run, tmp_path)
    folder = checkpoint.folder_of(Path(run.out_dir), 4)
    victim = folder / "deepspeed" / "mp_rank_00_model_states.pt"
    if damage == "truncate":
        os.truncate(victim, victim.stat().st_size // 2)
    elif damage == "flip":
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    elif damage == "remove":
        victim.unlink()
    else:
        (folder / "manifest.json").unlink()
    assert checkpoint.newest(Path(run.out_dir)) == checkpoint.folder_of(Path(run.out_dir), 3)
    assert "step_00000004 is torn" in capsys.readouterr().out


def test_tampered_pickle_is_never_loaded(run, tmp_path):
    """A checkpoint whose hashes do not match runs no code, because it is not unpickled."""
    run = copied(run, tmp_path)
    marker = tmp_path / "owned"
    for folder in checkpoint.steps_saved(Path(run.out_dir)):
        torch.save(Evil(str(marker)), folder / "deepspeed" / "mp_rank_00_model_states.pt")
    train(replace(run, stop_at_step=1))
    assert not marker.exists()


class Evil:
    """Pickles into a call that leaves a mark."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


def test_checkpoint_of_another_student_is_refused(run, tmp_path):
    run = copied(run, tmp_path)
    other = replace(run, student=replace(run.student, kwargs={"width": 12}))
    with pytest.raises(ConfigError, match=r"student\.kwargs\.width: 8 -> 12"):
        train(other)
    (Path(run.out_dir) / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match="is of another student: "):
        train(other)


def test_checkpoint_of_other_losses_is_refused(run, tmp_path):
    """Also where the optimizer's state is converted; other settings are refused before (`config.yaml`)."""
    run = copied(run, tmp_path)
    (Path(run.out_dir) / "config.yaml").unlink()
    other = replace(run, losses={**run.losses, "queue_pvl": QueuePVL(size=32)}, deepspeed="ds_configs/zero0.json")
    with pytest.raises(CheckpointError, match=r"is of other losses: losses\.terms\.queue_pvl\.queue is None there"):
        train(other)


def test_steps_may_grow_and_other_settings_may_not(run, tmp_path):
    run = copied(run, tmp_path)
    with pytest.raises(ConfigError, match=r"optim\.lr: 0\.0008 -> 0\.1"):
        train(replace(run, optim=replace(run.optim, lr=0.1)))
    train(replace(run, steps=5))
    lines = [json.loads(line) for line in (Path(run.out_dir) / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]


def test_non_finite_loss_stops_before_the_update(run, tmp_path):
    broken = tmp_path / "broken.safetensors"
    state = load_file(checkpoint.newest(Path(run.out_dir)) / "student.safetensors")
    name = next(iter(state))
    state[name] = torch.full_like(state[name], float("nan"))
    from safetensors.torch import save_file

    save_file(state, broken)
    with pytest.raises(NonFiniteLoss, match=r"step 0: the loss is not finite \(rank 0: vl, pvl\)"):
        train(replace(run, out_dir=str(tmp_path / "nan"), student=replace(run.student, pretrained=str(broken))))
    assert not list((tmp_path / "nan").glob("checkpoints/*"))

"""Checkpoints: written aside, hashed, renamed; the newest complete one is found by itself."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from toolkit import distributed
from toolkit.config import Run
from toolkit.engine import gathered_state
from toolkit.errors import CheckpointError
from toolkit.models import Model
from toolkit.models.build import WEIGHTS_NAME, write_card

TAG = "deepspeed"
MANIFEST = "manifest.json"
STATE = "state.json"


@dataclass
class Progress:
    """Where a run stands: everything of a checkpoint that is not a tensor."""

    step: int = 0
    """Updates done; every stream stands at step * its global batch."""
    best: float | None = None
    """Best value so far of `evaluation.best`."""
    best_step: int | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    """Replaced samples over all ranks, by reason."""
    seconds: float = 0.0
    """Training time of all launches together."""


def folder_of(out_dir: Path, step: int) -> Path:
    """Folder of the checkpoint after `step` updates."""
    return out_dir / "checkpoints" / f"step_{step:08d}"


def save(engine: Any, model: Model, run: Run, progress: Progress) -> Path:
    """Write a complete checkpoint from all ranks; a collective. The folder appears by one rename, or not at all."""
    target = folder_of(Path(run.out_dir), progress.step)
    aside = target.with_name(f".{target.name}.tmp")
    if distributed.is_main():
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    distributed.barrier()
    engine.save_checkpoint(str(aside), tag=TAG, save_latest=False)
    save_file(rng_state(), aside / f"rng_{distributed.rank():05d}.safetensors")
    distributed.average_buffers(model.module)
    student = gathered_state(engine, model.module)
    if distributed.is_main():
        save_file({name: value.contiguous() for name, value in student.items()}, aside / WEIGHTS_NAME)
        teacher = {"name": run.teacher.name, "pretrained": run.teacher.pretrained, "kwargs": run.teacher.kwargs}
        write_card(model, run.student.kwargs, run.student.text_tower, aside, teacher=teacher)
        state = {"world_size": distributed.world(), "deepspeed": run.deepspeed, **vars(progress)}
        (aside / STATE).write_text(json.dumps(state, indent=1) + "\n")
    distributed.barrier()
    if distributed.is_main():
        publish(aside, target)
    distributed.barrier()
    return target


def publish(aside: Path, target: Path) -> None:
    """Hash every file into the manifest, flush, and rename the folder into place."""
    files = sorted(path for path in aside.rglob("*") if path.is_file())
    manifest = {str(path.relative_to(aside)): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files}
    with open(aside / MANIFEST, "w") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    if target.exists():
        shutil.rmtree(target)
    aside.rename(target)


def sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def complaint(folder: Path) -> str:
    """Why a checkpoint folder is not complete, or an empty string when every file has its size and hash."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        return f"no readable {MANIFEST} ({error})"
    for name, wanted in manifest.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != wanted["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {wanted['bytes']}"
        if sha256(path) != wanted["sha256"]:
            return f"{name} is not what was saved (hash differs)"
    return ""


def steps_saved(out_dir: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest first; folders that are being written are not among them."""
    return sorted((out_dir / "checkpoints").glob("step_*"))


def newest(out_dir: Path) -> Path | None:
    """The newest complete checkpoint; torn ones are passed over and named. None if there is none."""
    for folder in reversed(steps_saved(out_dir)):
        why = complaint(folder)
        if not why:
            return folder
        distributed.say(f"checkpoint {folder} is torn and passed over: {why}")
    return None


def resume(engine: Any, model: Model, run: Run) -> Progress:
    """Load the newest complete checkpoint of `out_dir` into the engine; a fresh Progress when there is none.

    Raises CheckpointError for a checkpoint of another student or another number of ranks.
    """
    found = distributed.broadcast_object(newest(Path(run.out_dir)) if distributed.is_main() else None)
    if found is None:
        return Progress()
    state = json.loads((found / STATE).read_text())
    if state["world_size"] != distributed.world():
        raise CheckpointError(
            f"{found} was written by {state['world_size']} ranks and this run has {distributed.world()}; "
            f"launch {state['world_size']} ranks, or start anew with another out_dir and student.pretrained={found}"
        )
    if state["deepspeed"] != run.deepspeed:
        raise CheckpointError(
            f"{found} was written with deepspeed={state['deepspeed']} and this run says {run.deepspeed}; ZeRO stages do not "
            f"read each other's optimizer files: keep {state['deepspeed']}, or start anew with another out_dir"
        )
    check_same_student(found, model)
    loaded, _ = engine.load_checkpoint(str(found), tag=TAG)
    if loaded is None:
        raise CheckpointError(
            f"{found}: DeepSpeed found nothing to load; remove this folder to go on from an older one"
        )
    restore_rng(load_file(found / f"rng_{distributed.rank():05d}.safetensors"))
    distributed.say(f"resumed {found} at step {state['step']}")
    return Progress(**{name: state[name] for name in vars(Progress())})


def check_same_student(folder: Path, model: Model) -> None:
    """Raise CheckpointError when the weights in `folder` are of another student."""
    saved = {name: list(value.shape) for name, value in load_file(folder / WEIGHTS_NAME).items()}
    own = {
        name: list(getattr(value, "ds_shape", value.shape))
        for name, value in model.module.state_dict(keep_vars=True).items()
    }
    if saved != own:
        wrong = [name for name in {**saved, **own} if saved.get(name) != own.get(name)]
        raise CheckpointError(
            f"{folder} is of another student: {wrong[0]} is {saved.get(wrong[0])} there and {own.get(wrong[0])} in {model.name} "
            f"({len(wrong)} such differences); use another out_dir, or the student it was made with"
        )


def prune(out_dir: Path, keep_last: int, best_step: int | None) -> None:
    """Remove all but the last `keep_last` checkpoints and the best one."""
    kept = {folder_of(out_dir, best_step)} if best_step is not None else set()
    for folder in steps_saved(out_dir)[:-keep_last]:
        if folder not in kept:
            shutil.rmtree(folder)


def rng_state() -> dict[str, torch.Tensor]:
    """State of this rank's generators (dropout and drop-path; data has its own, made from positions)."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_rng(state: dict[str, torch.Tensor]) -> None:
    """Undo of `rng_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])

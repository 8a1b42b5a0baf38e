"""Checkpoints: written aside, hashed, renamed; the newest complete one is found by itself."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils import fragment_address
from safetensors.torch import load_file, save_file

from toolkit import distributed
from toolkit.config import Run
from toolkit.engine import first_difference, gathered_state, load_whole, trained_names
from toolkit.errors import CheckpointError
from toolkit.models import Model
from toolkit.models.build import WEIGHTS_NAME, write_card
from toolkit.reshape import Whole, read_whole

TAG = "deepspeed"
MANIFEST = "manifest.json"
STATE = "state.json"
CLASSES = [LossScaler, ZeroStageEnum, fragment_address]
"""All classes in DeepSpeed's files beside tensors and plain values."""


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
        state = {**layout(engine, run), **vars(progress)}
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


def layout(engine: Any, run: Run) -> dict[str, Any]:
    """What decides how DeepSpeed cuts the optimizer's state into pieces."""
    return {
        "world_size": distributed.world(),
        "zero_stage": int(engine.zero_optimization_stage()),
        "deepspeed": run.deepspeed,
    }


def resume(engine: Any, model: Model, run: Run) -> Progress:
    """Load the newest complete checkpoint of `out_dir` into the engine; a fresh Progress when there is none.

    Bit for bit what was saved on the same number of ranks and ds_config; on others the same weights, optimizer state and
    samples, with sums over ranks in another order from there on. Raises CheckpointError for a checkpoint of another student.
    """
    found = distributed.broadcast_object(newest(Path(run.out_dir)) if distributed.is_main() else None)
    if found is None:
        return Progress()
    state = json.loads((found / STATE).read_text())
    here = layout(engine, run)
    there = {name: state.get(name) for name in here}
    check_same_student(found, model)
    if there == here:
        loaded, _ = engine.load_checkpoint(str(found), tag=TAG)
        if loaded is None:
            raise CheckpointError(
                f"{found}: DeepSpeed found nothing to load; remove this folder to go on from an older one"
            )
    else:
        changed = ", ".join(f"{name} {there[name]}, now {here[name]}" for name in here if there[name] != here[name])
        distributed.say(f"{found} was written with {changed}: its optimizer state is converted")
        load_elsewhere(engine, found)
    # On more ranks some share a generator, which harms nothing: each micro-batch seeds its own numbers (toolkit/step.py).
    restore_rng(load_file(found / f"rng_{distributed.rank() % state['world_size']:05d}.safetensors"))
    distributed.say(f"resumed {found} at step {state['step']}")
    return Progress(**{name: state[name] for name in vars(Progress())})


def load_elsewhere(engine: Any, folder: Path) -> None:
    """Load a checkpoint that other ranks or another ZeRO stage wrote; a collective.

    Raises CheckpointError unless the student put together from DeepSpeed's files is `student.safetensors` to the last bit,
    and the engine then holds every weight and moment to the last bit.
    """
    hashed = [name for name in json.loads((folder / MANIFEST).read_text()) if name.startswith(f"{TAG}/")]
    with torch.serialization.safe_globals(CLASSES):
        whole = read_whole(folder, hashed, trained_names(engine))
    check_whole(engine, folder, whole)
    load_whole(engine, whole)
    different = first_difference(engine, whole)
    if different:
        raise CheckpointError(
            f"{folder}: {different} is not what was saved after its conversion; go on with the number of ranks and the "
            "ds_config that wrote it, and report this"
        )


def check_whole(engine: Any, folder: Path, whole: Whole) -> None:
    """Compare with `student.safetensors`, which also gives the buffers (DeepSpeed saves rank 0's, not their mean)."""
    own = engine.module.state_dict(keep_vars=True)
    first = {id(parameter): name for name, parameter in engine.module.named_parameters()}
    for name in own.keys() & whole.weights.keys():  # a parameter of two names: ZeRO-3 keeps it under its first
        whole.weights[name] = whole.weights.get(first.get(id(own[name]), name), whole.weights[name])
    there, here = shapes_of(whole.weights), shapes_of(own)
    if there != here:
        wrong = [name for name in {**there, **here} if there.get(name) != here.get(name)]
        raise CheckpointError(
            f"{folder} is of other losses: {wrong[0]} is {there.get(wrong[0])} there and {here.get(wrong[0])} here; "
            "use another out_dir, or the losses it was made with"
        )
    for name, value in load_file(folder / WEIGHTS_NAME).items():
        full = f"student.{name}"
        if isinstance(own[full], torch.nn.Parameter) and not torch.equal(whole.weights[full].float(), value):
            raise CheckpointError(
                f"{folder}: {name} in {WEIGHTS_NAME} is not what DeepSpeed's files hold; remove this folder to go on from "
                "an older one, or go on with the number of ranks and the ds_config that wrote it"
            )
        whole.weights[full] = value


def check_same_student(folder: Path, model: Model) -> None:
    """Raise CheckpointError when the weights in `folder` are of another student."""
    saved = shapes_of(load_file(folder / WEIGHTS_NAME))
    own = shapes_of(model.module.state_dict(keep_vars=True))
    if saved != own:
        wrong = [name for name in {**saved, **own} if saved.get(name) != own.get(name)]
        raise CheckpointError(
            f"{folder} is of another student: {wrong[0]} is {saved.get(wrong[0])} there and {own.get(wrong[0])} in {model.name} "
            f"({len(wrong)} such differences); use another out_dir, or the student it was made with"
        )


def shapes_of(state: dict[str, Any]) -> dict[str, list[int]]:
    """Shapes by name, whole ones where ZeRO-3 has spread a parameter."""
    return {name: list(getattr(value, "ds_shape", value.shape)) for name, value in state.items()}


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

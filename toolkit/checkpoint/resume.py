"""Goes on from the newest complete checkpoint: as it was saved, or on other ranks and in another ZeRO stage."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from toolkit import distributed
from toolkit.checkpoint.files import MANIFEST, STATE, newest
from toolkit.checkpoint.host_copy import CLASSES, plainly_read
from toolkit.checkpoint.progress import Progress, layout, restore_rng
from toolkit.checkpoint.saver import TAG
from toolkit.config import Run
from toolkit.engine import first_difference, gathered_state, load_whole, trained_names
from toolkit.errors import CheckpointError
from toolkit.models import Model
from toolkit.models.build import WEIGHTS_NAME
from toolkit.reshape import Whole, read_whole


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
        with plainly_read(engine):
            loaded, _ = engine.load_checkpoint(str(found), tag=TAG)
        if loaded is None:
            raise CheckpointError(
                f"{found}: DeepSpeed found nothing to load; remove this folder to go on from an older one"
            )
        check_loaded(engine, found, model)
    else:
        changed = ", ".join(f"{name} {there[name]}, now {here[name]}" for name in here if there[name] != here[name])
        distributed.say(f"{found} was written with {changed}: its optimizer state is converted")
        load_elsewhere(engine, found)
    # On more ranks some share a generator, which harms nothing: each micro-batch seeds its own numbers (toolkit/step.py).
    restore_rng(load_file(found / f"rng_{distributed.rank() % state['world_size']:05d}.safetensors"))
    distributed.say(f"resumed {found} at step {state['step']}")
    return Progress(**{name: state[name] for name in vars(Progress()) if name in state})


def check_loaded(engine: Any, folder: Path, model: Model) -> None:
    """Raise CheckpointError unless the engine now holds `student.safetensors` to the last bit; a collective in ZeRO-3."""
    saved = load_file(folder / WEIGHTS_NAME)
    loaded = gathered_state(engine, model.module)
    wrong = [name for name, value in saved.items() if not torch.equal(loaded[name], value)]
    if not distributed.all_true(not wrong):
        ranks = distributed.gather_strings([f"rank {distributed.rank()}: {wrong[0]}"] if wrong else [])
        raise CheckpointError(
            f"{folder}: what DeepSpeed loaded is not the student in {WEIGHTS_NAME} ({'; '.join(ranks)}); remove this folder to go on "
            "from an older one"
        )


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
    """Compare with `student.safetensors`, to the last bit."""
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

"""Teacher and student of a run without their weights, and what one micro-batch costs in each."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from toolkit import config
from toolkit.config import Batch, Preprocess, Run
from toolkit.errors import ConfigError
from toolkit.estimate.network import PERSISTENT
from toolkit.estimate.towers import Pass, run_frozen, run_trained
from toolkit.models.build import CARD_NAME, build_model, read_card
from toolkit.models.contract import Model, count_parameters, normalise
from toolkit.models.student import build_student
from toolkit.models.teacher import Teacher
from toolkit.registry import load_callable

META = torch.device("meta")
HUB = ("hf-hub:", "local-dir:")
WAY_OUT = "measure a minute on one GPU and give --images-per-second X instead (memory and network are then left out)"


@dataclass(frozen=True)
class Frozen:
    """A teacher."""

    name: str
    embed_dim: int
    parameters: int
    weight_bytes: int
    images: Pass
    """Of one micro-batch."""
    texts: Pass | None
    """None where nobody asks for sentences."""
    image_size: int


@dataclass(frozen=True)
class Trained:
    """The student."""

    name: str
    embed_dim: int
    parameters: int
    trainable: int
    persistent: int
    """Numbers in trained parameters of fewer than 100,000 each, which ZeRO-3 keeps whole."""
    large_tensors: int
    """Parameters that ZeRO-3 takes to pieces."""
    plain: Pass
    checkpointed: Pass | None
    """With student.grad_checkpointing; None where the model has no such switch."""
    image_size: int


def empty_teacher(cfg: config.Teacher, precision: str) -> Teacher:
    """The architecture of a teacher on the meta device: nothing is allocated, nothing downloaded."""
    folder, size = Path(cfg.name), None
    with building("teacher.name", cfg.name):
        if (folder / CARD_NAME).is_file():
            card = read_card(folder)
            shown: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in card["preprocess"].items()}
            size = Preprocess(**shown).image_size
            model = build_model(
                card["name"], card["kwargs"], embed_dim=card["embed_dim"], text_tower=card["text_tower"],
                image_size=size, asked_by="teacher.name",
            )  # fmt: skip
            model = replace(model, context_length=card["context_length"], name=cfg.name)
        else:
            model = build_model(cfg.name, cfg.kwargs, embed_dim=None, text_tower=True, asked_by="teacher.name")
    if cfg.image_size is not None:
        model.preprocess = replace(model.preprocess, image_size=cfg.image_size)
    wanted = cfg.dtype if cfg.dtype != "auto" else precision
    return Teacher(model, torch.bfloat16 if wanted == "bf16" else torch.float32, META)


def empty_student(cfg: config.Student, teacher: Teacher | None) -> Model:
    """The student on the meta device."""
    bare = replace(cfg, pretrained=None, grad_checkpointing=False)
    with building("student.name", cfg.name):
        model = build_student(bare, teacher)
    model.module.to(META)
    return model


@contextlib.contextmanager
def building(asked_by: str, name: str) -> Iterator[None]:
    """Empty initialisation while a model is built; says what failed and what to do instead.

    `asked_by` is the setting, `name` its value.
    """
    if name.startswith(HUB):
        raise ConfigError(f"{asked_by}={name}: its architecture is known only with its files; {WAY_OUT}")
    is_function = ":" in name
    if is_function:
        load_callable(name, asked_by=asked_by)  # a wrong name is told as everywhere
    try:
        with init_empty_weights():
            yield
    except Exception as error:
        if not is_function:
            raise
        raise ConfigError(
            f"{asked_by}={name} does not build without memory for its weights (accelerate's empty initialisation): "
            f"{first_line(error)}. Let it look at shapes only, not at values, while it is built; or {WAY_OUT}"
        ) from error


def measure_teacher(
    cfg: config.Teacher, run: Run, batch: Batch, *, reads_text: bool, teacher: Teacher | None = None
) -> Frozen:
    """Parameters, FLOPs and memory of a teacher at the run's micro-batch."""
    teacher = teacher or empty_teacher(cfg, run.precision)
    parameters = count_parameters(teacher.module)
    weight_bytes = sum(p.numel() * p.element_size() for p in teacher.module.parameters())
    fake = filled(teacher.module)
    teacher.device = torch.device("cpu")
    side, length = teacher.preprocess.image_size, teacher.context_length

    def images() -> Any:
        return teacher.encode_image(torch.zeros(batch.batch_size_per_gpu, 3, side, side, dtype=torch.uint8))

    def texts() -> Any:
        return teacher.encode_text(torch.ones(batch.text_batch_size_per_gpu, length, dtype=torch.int64))

    with measuring("teacher.name", cfg.name):
        seen = run_frozen(images, fake)
        read = run_frozen(texts, fake) if reads_text else None
    return Frozen(cfg.name, teacher.embed_dim, parameters, weight_bytes, seen, read, side)


def measure_student(model: Model, run: Run, batch: Batch, *, masked_view: bool) -> Trained:
    """Parameters, FLOPs and memory of the student at the run's micro-batch, with and without checkpointing."""
    module = model.module
    trainable = [p for p in module.parameters() if p.requires_grad]
    small = [p.numel() for p in trainable if p.numel() < PERSISTENT]
    counted = count_parameters(module), sum(p.numel() for p in trainable), sum(small), len(trainable) - len(small)
    module.train()
    fake = filled(module)
    side, autocast = model.preprocess.image_size, run.precision == "bf16"

    def calls() -> list[Tensor]:
        pictures = normalise(torch.zeros(batch.batch_size_per_gpu, 3, side, side, dtype=torch.uint8), model.preprocess)
        found = [module.encode_image(pictures)]  # type: ignore[operator]
        if masked_view:
            found.append(module.encode_image(pictures * 1))  # type: ignore[operator]
        if run.student.text_tower:
            tokens = torch.ones(batch.text_batch_size_per_gpu, model.context_length, dtype=torch.int64)
            found.append(module.encode_text(tokens))  # type: ignore[operator]
        return found

    with measuring("student.name", run.student.name):
        plain = run_trained(module, calls, fake, autocast=autocast)
        checkpointed = None
        if switch := checkpoint_switch(module):
            switch(True)
            checkpointed = run_trained(module, calls, fake, autocast=autocast)
    if run.student.grad_checkpointing and checkpointed is None:
        raise ConfigError(
            f"student.grad_checkpointing=true: {run.student.name} has no method set_grad_checkpointing; add one or switch it off"
        )
    return Trained(model.name, model.embed_dim, *counted, plain, checkpointed, side)


def checkpoint_switch(module: nn.Module) -> Callable[[bool], Any] | None:
    """The model's own, if it has one that works."""
    switch = getattr(module, "set_grad_checkpointing", None)
    if switch is None:
        return None
    try:
        switch(False)
    except Exception:  # timm: some architectures have the method and no checkpointing
        return None
    return switch


def filled(module: nn.Module) -> FakeTensorMode:
    """Give a model on the meta device tensors that say they are on the CPU and hold nothing; returns their mode."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    made: dict[int, Tensor] = {}

    def hollow(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            made[id(tensor)] = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        return made[id(tensor)]

    with fake:
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    part._parameters[name] = nn.Parameter(hollow(parameter), requires_grad=parameter.requires_grad)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = hollow(buffer)
    return fake


@contextlib.contextmanager
def measuring(asked_by: str, name: str) -> Iterator[None]:
    """Say which model could not be run on tensors without contents, and what to do instead."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{asked_by}={name} cannot be run on tensors without contents ({type(error).__name__}: {first_line(error)}), so its "
            f"FLOPs are not known; {WAY_OUT}"
        ) from error


def first_line(error: BaseException) -> str:
    """Of what it says."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]

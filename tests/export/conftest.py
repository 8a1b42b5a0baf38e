"""Runs with one checkpoint, of students small enough to be exported in every test."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from toolkit import config
from toolkit.checkpoint.files import STATE, folder_of, publish, written
from toolkit.config import Run
from toolkit.config.resolve import merge, parse_overrides
from toolkit.models import Model
from toolkit.models.build import WEIGHTS_NAME, build_model, from_folder, write_card
from toolkit.playground.prepare import TEACHER

CLIP = "tiny-clip-for-export"
TINY = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
RESNET = {**TINY, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}}
POOLED = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "pool_type": "avg"}}  # type: ignore[dict-item]
VARIANTS = {
    CLIP: TINY,
    f"{CLIP}-gelu": {**TINY, "quick_gelu": False},
    f"{CLIP}-resnet": RESNET,
    f"{CLIP}-pooled": POOLED,
    f"{CLIP}-bias": {**TINY, "init_logit_bias": -10.0, "custom_text": True},
    f"{CLIP}-custom": {**TINY, "custom_text": True},
}
PAIRED = ("losses.contrastive.weight=1", "data.pairs=unread")
UNPAIRED = ("losses.feature.weight=1", "data.images=unread")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a CLIP of width 16 at 32 pixels; with `-gelu`, `-resnet`, `-pooled`, `-bias` and `-custom` beside it."""
    folder = tmp_path_factory.mktemp("open_clip_configs")
    for name, content in VARIANTS.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    open_clip.add_model_config(folder)
    return CLIP


def shaken(model: Model, seed: int = 0) -> Model:
    """Every weight moved at random: fresh norms and biases are ones and zeros, which any mistake would leave alone."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def save_model(model: Model, kwargs: dict[str, Any], text_tower: bool, folder: Path) -> Path:
    """Card and weights, as a checkpoint has them."""
    folder.mkdir(parents=True)
    write_card(model, kwargs, text_tower, folder)
    save_file({key: value.contiguous() for key, value in model.module.state_dict().items()}, folder / WEIGHTS_NAME)
    return folder


def save_run(folder: Path, model: Model, overrides: Sequence[str]) -> Path:
    """A run with one complete checkpoint, after step 3."""
    run = merge(Run(), parse_overrides([f"out_dir={folder}", f"student.name={model.name}", *overrides]))
    aside = save_model(model, run.student.kwargs, run.student.text_tower, folder / "checkpoints" / "aside")
    config.save(run, folder / "config.yaml")
    (aside / STATE).write_text(json.dumps({"step": 3, "best_step": None}))
    publish(aside, folder_of(folder, 3), {path.name: written(path) for path in aside.iterdir()})
    return folder


@pytest.fixture(scope="session")
def own_text_run(clip: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`own_text_run(name=CLIP)`: a run whose student has a text tower of its own; made once, nobody writes into it."""
    made: dict[str, Path] = {}

    def make(name: str = clip) -> Path:
        if name not in made:
            model = build_model(name, {}, embed_dim=None, text_tower=True, asked_by="test")
            folder = tmp_path_factory.mktemp("own_text") / "run"
            made[name] = save_run(folder, shaken(model), ["student.text_tower=true", *PAIRED])
        return made[name]

    return make


@pytest.fixture
def image_run(clip: str, tmp_path: Path) -> Callable[..., Path]:
    """`image_run(name=CLIP, teacher=CLIP)`: a run whose student has an image tower alone, and the teacher's folder."""

    def make(name: str = clip, teacher: str = clip) -> Path:
        imitated = build_model(teacher, {}, embed_dim=None, text_tower=True, asked_by="test")
        folder = save_model(shaken(imitated, 1), {}, True, tmp_path / "teacher")
        student = build_model(name, {}, embed_dim=16, text_tower=False, asked_by="test")
        return save_run(tmp_path / "run", shaken(student), [f"teacher.name={folder}", *UNPAIRED])

    return make


@pytest.fixture(scope="session")
def scene_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose student knows the playground: it is the embedded teacher, text tower and all."""
    card = json.loads((TEACHER / "student.json").read_text())
    kwargs = [f"student.kwargs.{key}={value}" for key, value in card["kwargs"].items()]
    folder = tmp_path_factory.mktemp("scenes") / "run"
    return save_run(folder, from_folder(TEACHER, asked_by="test"), ["student.text_tower=true", *kwargs, *PAIRED])


@pytest.fixture
def small_scene_run(tmp_path: Path) -> Path:
    """A convolutional image tower of the playground, untrained, and the embedded teacher for its sentences."""
    name = "toolkit.playground.towers:scene_student"
    model = build_model(name, {"width": 8}, embed_dim=128, text_tower=False, asked_by="test")
    return save_run(tmp_path / "run", shaken(model), [f"teacher.name={TEACHER}", "student.kwargs.width=8", *UNPAIRED])

"""`dime profile data`: every stage of a run's streams has a time, cores follow from the whole, mistakes are one line."""

import json
import math
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from toolkit import config
from toolkit.cli import dispatch
from toolkit.config import FIELD_PRESETS, Augmentation, Data, Run, Student, Teacher
from toolkit.config.losses import Contrastive, Feature
from toolkit.embed import prepare_stores
from toolkit.errors import ConfigError, DataError
from toolkit.models import build_student, build_teacher
from toolkit.models.outline import student_outline, teacher_outline
from toolkit.playground.prepare import TEACHER
from toolkit.playground.shards import write_world
from toolkit.profile import profile_data
from toolkit.profile.command import cores_for
from toolkit.profile.stages import Timed

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(
        tmp_path_factory.mktemp("profile") / "world", images=40, texts=30, test_images_per_class=1, test_pairs=20
    )


@pytest.fixture
def run(world: Path, tmp_path: Path) -> Run:
    """The embedded teacher on 40 pictures and 30 sentences."""
    return Run(
        out_dir=str(tmp_path / "run"),
        teacher=Teacher(name=str(TEACHER)),
        student=Student(name="toolkit.playground.towers:scene_student"),
        losses={**FIELD_PRESETS["dimefm"]},
        data=Data(images=str(world / "train_images"), texts=str(world / "train_texts"), global_batch_size=20),
        precision="fp32",
        workers=0,
    )


def test_every_stage_is_timed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """With a live teacher: two views of a picture, one tokenizer."""
    threads = torch.get_num_threads()
    found = profile_data(run, samples=8)
    images, texts = found["streams"]["images"], found["streams"]["texts"]
    assert list(images["stages"]) == [
        "read from the shard", "decode", "crop and resize for student_images", "crop and resize for teacher_images",
        "collate",
    ]  # fmt: skip
    assert list(texts["stages"]) == ["read from the shard", "tokenise for teacher_tokens", "collate"]
    for stream in (images, texts):
        assert stream["samples"] == 8 and stream["per_second_per_core"] == pytest.approx(
            1e6 / stream["stream_microseconds"]
        )
        assert all(stage["microseconds"] > 0 for stage in stream["stages"].values())
        parts = sum(stage["microseconds"] for stage in stream["stages"].values())
        assert 0.2 * parts < stream["stream_microseconds"] < 20 * parts
    assert torch.get_num_threads() == threads and not (Path(run.out_dir)).exists()
    assert "images/s and" in capsys.readouterr().out


def test_a_full_store_is_read_instead(run: Run, tmp_path: Path) -> None:
    """No plain view, no tokenizer; a store that is not full yet is said to be so."""
    stored = replace(run, teacher=replace(run.teacher, store=str(tmp_path / "store")))
    empty = profile_data(stored, samples=8)
    assert len(empty["notes"]) == 2 and "does not hold all shards yet" in empty["notes"][0]
    assert "crop and resize for teacher_images" in empty["streams"]["images"]["stages"]
    prepare_stores(stored, {"teacher": build_teacher(run.teacher, "fp32", CPU)}, reads_text=True)
    full = profile_data(stored, samples=8)
    assert full["notes"] == []
    assert list(full["streams"]["images"]["stages"]) == [
        "read from the shard", "decode", "crop and resize for student_images", "read of the store", "collate",
    ]  # fmt: skip
    assert list(full["streams"]["texts"]["stages"]) == ["read from the shard", "read of the store", "collate"]


def test_other_views_and_losses(run: Run, world: Path) -> None:
    """The teacher's look at the student's crop; nothing random; no sentences; pairs without a teacher."""
    same = profile_data(replace(run, data=replace(run.data, teacher_view="same")), samples=4)
    assert "resize for teacher_images" in same["streams"]["images"]["stages"]
    plain = replace(run.data, augmentation=Augmentation((1.0, 1.0), (1.0, 1.0), 0.0))
    assert "decode" in profile_data(replace(run, data=plain), samples=4)["streams"]["images"]["stages"]
    assert set(profile_data(replace(run, losses={"feature": Feature()}), samples=4)["streams"]) == {"images"}
    pairs = replace(
        run, teacher=Teacher(), losses={"contrastive": Contrastive()}, data=Data(pairs=str(world / "test_pairs")),
        student=Student(name="toolkit.playground.towers:scene_clip", text_tower=True, tokenizer=str(TEACHER / "tokenizer.model")),
    )  # fmt: skip
    stages = profile_data(pairs, samples=4)["streams"]["pairs"]["stages"]
    assert {"crop and resize for student_images", "tokenise for student_tokens"} <= set(stages)


def test_cores_follow_from_the_whole() -> None:
    """Cores of both streams together; workers are processes per stream, so the slower one decides."""
    timed = {"images": Timed({}, 1000.0, 8, 1.0), "texts": Timed({}, 250.0, 8, 1.0)}
    found = cores_for(timed, 2.0, "a GPU", 2500.0)
    assert (found["cores"], found["workers"]) == (math.ceil(2.5 + 1.25), 3)


def test_the_command(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table, a sentence, one object."""
    path = tmp_path / "mine.py"
    text = f"""
    from toolkit.config import *
    from toolkit.config.losses import PVL, VL, UDist

    DEFAULTS = {run!r}


    def main(overrides):
        raise SystemExit("a recipe is not run")
    """
    path.write_text(textwrap.dedent(text))
    words = ["profile", "data", str(path), "--samples", "8", "--json", "--gpu-images-per-second", "1000", "seed=3"]
    dispatch(words)
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    (gpu,) = found["gpus"]
    assert gpu["images_per_second"] == 1000 and gpu["workers"] >= 1
    assert lines[-2].startswith("One core gives ") and lines[-2].endswith(f"workers={gpu['workers']}.")
    assert any("the stream as a whole" in line for line in lines)


def test_mistakes(run: Run, tmp_path: Path) -> None:
    """What a user can get wrong."""
    with pytest.raises(ConfigError, match=r"--samples \(1\) must be at least 2"):
        profile_data(run, samples=1)
    with pytest.raises(ConfigError, match=r"--gpu-images-per-second \(0\) must be above 0"):
        profile_data(run, gpu_images_per_second=0.0)
    missing = replace(run, data=replace(run.data, images=str(tmp_path / "a.tar")))
    with pytest.raises(DataError, match=r"a\.tar.*must have run first"):
        profile_data(missing)


@pytest.mark.parametrize(
    "cfg",
    [
        Teacher(name=str(TEACHER)),
        Teacher(name="ViT-B-32", pretrained="random", image_size=64),
        Teacher(name="toolkit.playground.towers:scene_clip", pretrained="random", tokenizer="ViT-B-32"),
    ],
)
def test_a_teachers_outline_is_the_teachers(cfg: Teacher) -> None:
    """Without its weights: of a folder, an open_clip name, and a function, which has to be built."""
    outline, teacher = teacher_outline(cfg), build_teacher(cfg, "fp32", CPU)
    assert outline.preprocess == teacher.preprocess
    assert (outline.tokenizer, outline.context_length) == (teacher.tokenizer_name, teacher.context_length)
    assert outline.built == (":" in cfg.name)


@pytest.mark.parametrize("name", ["ViT-S-16-alt", "timm/resnet18", "toolkit.playground.towers:scene_student"])
def test_a_students_outline_is_the_students(name: str) -> None:
    """The same for what is trained."""
    cfg = config.Student(name=name, embed_dim=32)
    assert student_outline(cfg, None).preprocess.image_size == build_student(cfg, None).preprocess.image_size
    assert student_outline(replace(cfg, image_size=96), None).preprocess.image_size == 96

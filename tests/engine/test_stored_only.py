"""Training from a store that `dime embed` made: without the teacher in memory, through recorded crops, with an ensemble."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from toolkit import config
from toolkit.cli import dispatch
from toolkit.config import Augmentation, Checkpoint, Data, EvalSet, Evaluation, Logging, Optim, Run, Student, Teacher
from toolkit.data.build import build_sources
from toolkit.data.images import crop_of, cropped, decode_image, shrunk
from toolkit.data.shards import scan_shard
from toolkit.data.store_file import StoredRows, read_entry, write_rows
from toolkit.embed import prepare_stores
from toolkit.errors import DataError
from toolkit.models import build_teacher
from toolkit.playground.prepare import TEACHER
from toolkit.playground.shards import write_world
from toolkit.train import train

CROPS = Augmentation(crop_scale=(0.4, 1.0))
VIEWS = ["--views", "2", "--crop-scale", "0.4", "1"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_world(
        tmp_path_factory.mktemp("stored") / "world", images=96, texts=96, test_images_per_class=1, test_pairs=20
    )


def embed(world: Path, out: Path, *image_options: str, teachers: tuple[str, ...] = ()) -> None:
    """fp32, so that live and stored agree to rounding."""
    words = [
        "--teacher",
        str(TEACHER),
        "--out",
        str(out),
        "--workers",
        "0",
        "--precision",
        "fp32",
        "--store-as",
        "fp32",
    ]
    words += [word for teacher in teachers for word in ("--teacher", teacher)]
    dispatch(["embed", "images", str(world / "train_images"), *words, *image_options])
    dispatch(["embed", "texts", str(world / "train_texts"), *words])


@pytest.fixture
def run(world, tmp_path) -> Run:
    """Four steps over 96 pictures, 32 at a time: the last is in the second pass."""
    return Run(
        out_dir=str(tmp_path / "run"),
        teacher=Teacher(name=str(TEACHER), store=str(tmp_path / "store")),
        student=Student(name="toolkit.playground.towers:scene_student", kwargs={"width": 8}),
        losses=dict(config.FIELD_PRESETS["dimefm"]),
        data=Data(
            images=str(world / "train_images"),
            texts=str(world / "train_texts"),
            global_batch_size=32,
            augmentation=CROPS,
        ),
        optim=Optim(warmup_steps=1),
        steps=4,
        precision="fp32",
        workers=0,
        logging=Logging(every_steps=1, tensorboard=False),
        checkpoint=Checkpoint(every_steps=0),
        evaluation=Evaluation(
            sets={"scenes": EvalSet(shards=str(world / "test_classes"), classes=str(world / "classes.json"))}
        ),
    )


def curve(run: Run) -> list[float]:
    return [json.loads(line)["train/loss"] for line in (Path(run.out_dir) / "metrics.jsonl").read_text().splitlines()]


def test_without_the_teacher_in_memory(run, world, tmp_path, monkeypatch):
    """The same curve, bit for bit, and the same judgement; the teacher is loaded after the last step, not before."""
    embed(world, tmp_path / "store")
    here = replace(run, out_dir=str(tmp_path / "here"))
    judged = train(here)
    loaded = []
    from toolkit.models import stored_teacher

    def noted(*args):
        loaded.append(len(curve(run)))
        return build_teacher(*args)

    monkeypatch.setattr(stored_teacher, "build_teacher", noted)
    monkeypatch.setattr("toolkit.train.build_teacher", lambda *_: pytest.fail("the teacher was built"))
    away = replace(run, teacher=replace(run.teacher, in_memory=False, dtype="fp32"))
    found = train(away)
    assert curve(away) == curve(here) and found["sets"] == judged["sets"]
    assert loaded == [4]


def test_an_incomplete_store_is_no_teacher(run, world, tmp_path):
    away = replace(run, teacher=replace(run.teacher, in_memory=False))
    with pytest.raises(DataError, match=r"store/image/manifest.json is no manifest of a store"):
        train(away)
    embed(world, tmp_path / "store")
    next((tmp_path / "store/text").glob("*.safetensors")).unlink()
    with pytest.raises(DataError, match=r"lacks 1 of the 1 shards of data.texts.*embed them with `dime embed texts`"):
        train(away)


def test_the_student_sees_the_recorded_crops(run, world, tmp_path):
    """Pixel for pixel; every pass takes another view, and over as many passes as views each is seen once."""
    embed(world, tmp_path / "store", *VIEWS)
    run = replace(run, data=replace(run.data, teacher_view="same"))
    teacher = build_teacher(run.teacher, "fp32", torch.device("cpu"))
    stores = prepare_stores(run, {"teacher": teacher}, reads_text=True)
    batch = config.batch_arithmetic(run, 1)
    preprocess = teacher.preprocess
    stream = build_sources(
        run.data, batch, student=preprocess, teachers={"teacher": preprocess}, tokenizers={}, seed=0, stores=stores
    )["images"].stream
    stored = StoredRows(next((tmp_path / "store/image").glob("*.safetensors")))
    shard = scan_shard(stream.paths[0])
    seen = set()
    for position in range(2 * 96):
        tensors, name, _ = stream[position]
        row = shard.keys.index(name.rpartition(":")[2])
        (view,) = (v for v in range(2) if torch.equal(stored.floats(row, v), tensors["teacher_image_features"]))
        seen.add((row, view))
        crop = crop_of(stored.crop(row, view))
        picture = shrunk(decode_image(shard.read(row, "png"), 10**7), preprocess.image_size)
        assert torch.equal(tensors["student_images"], cropped(picture, crop, preprocess.image_size))
        if position % 17 == 0:
            live = teacher.encode_image(tensors["student_images"][None])[0]
            assert float(live @ tensors["teacher_image_features"]) > 0.9999
    assert len(seen) == 2 * 96


def test_crops_train_and_are_checked(run, world, tmp_path):
    """A run replays them; other rules, plain pictures and a mirrored record are refused."""
    embed(world, tmp_path / "store", *VIEWS)
    with pytest.raises(DataError, match=r"embeddings of crops and data.teacher_view=plain; set data.teacher_view=same"):
        train(run)
    same = replace(run, data=replace(run.data, teacher_view="same"))
    other = replace(same, data=replace(same.data, augmentation=Augmentation()))
    with pytest.raises(DataError, match=r"other rules than data.augmentation \(crop_scale: \[0.4, 1.0\] there"):
        train(other)
    train(same)
    file = next((tmp_path / "store/image").glob("*.safetensors"))
    stored, entry = StoredRows(file), read_entry(file)
    crops = stored.tensors["crops"].clone()
    crops[..., 4] = 1 - crops[..., 4]
    write_rows(file, entry.shard, entry.path, stored.keys, stored.rows.clone(), "fp32", crops)
    with pytest.raises(DataError, match="has cosine"):
        train(replace(same, out_dir=str(tmp_path / "mirrored")))


def test_a_stored_ensemble(run, world, tmp_path):
    """Two teachers from their stores give the curve of the two live ones, plain or through crops."""
    other = f"toolkit.playground.towers:scene_clip:{TEACHER / 'student.safetensors'}"
    live = {
        "two": Teacher(name="toolkit.playground.towers:scene_clip", pretrained=str(TEACHER / "student.safetensors"))
    }
    run = replace(run, losses={"ensemble_kl": config.FIELD_PRESETS["mobileclip"]["ensemble_kl"]}, extra_teachers=live)
    embed(world, tmp_path / "store", teachers=(f"two={other}",))
    train(replace(run, out_dir=str(tmp_path / "live"), teacher=replace(run.teacher, store="")))
    stored = replace(live["two"], store=str(tmp_path / "store/two"), in_memory=False)
    train(replace(run, teacher=replace(run.teacher, in_memory=False), extra_teachers={"two": stored}))
    both = zip(curve(run), curve(replace(run, out_dir=str(tmp_path / "live"))), strict=True)
    assert max(abs(a - b) for a, b in both) < 1e-4

"""Stored teacher embeddings: the same training as with the live teacher, restartable, and never somebody else's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit import config
from toolkit.config import Augmentation, Checkpoint, Data, Logging, Optim, Run, Student, Teacher
from toolkit.data.shards import write_shards
from toolkit.data.store_file import StoredRows, read_entry, write_rows
from toolkit.errors import DataError
from toolkit.playground.prepare import TEACHER
from toolkit.playground.shards import write_world
from toolkit.train import train


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_world(
        tmp_path_factory.mktemp("store") / "world", images=96, texts=96, test_images_per_class=1, test_pairs=20
    )


@pytest.fixture
def run(world, tmp_path) -> Run:
    """Three steps of one rank; the student sees crops, the teacher the plain picture."""
    return Run(
        out_dir=str(tmp_path / "run"),
        teacher=Teacher(name=str(TEACHER), store=str(tmp_path / "store")),
        student=Student(name="toolkit.playground.towers:scene_student", kwargs={"width": 8}),
        losses=dict(config.FIELD_PRESETS["dimefm"]),
        data=Data(
            images=str(world / "train_images"),
            texts=str(world / "train_texts"),
            global_batch_size=32,
            augmentation=Augmentation(crop_scale=(0.5, 1.0)),
        ),
        optim=Optim(warmup_steps=1),
        steps=3,
        precision="fp32",
        workers=0,
        logging=Logging(every_steps=1, tensorboard=False),
        checkpoint=Checkpoint(every_steps=0),
    )


def curve(run: Run) -> list[float]:
    return [json.loads(line)["train/loss"] for line in (Path(run.out_dir) / "metrics.jsonl").read_text().splitlines()]


def test_stored_equals_live(run, tmp_path):
    train(run)
    live = replace(run, out_dir=str(tmp_path / "live"), teacher=replace(run.teacher, store=""))
    train(live)
    assert max(abs(a - b) for a, b in zip(curve(run), curve(live), strict=True)) < 1e-4
    manifest = json.loads((tmp_path / "store/image/manifest.json").read_text())
    assert manifest["teacher"] == "toolkit.playground.towers:scene_clip" and len(manifest["weights_sha256"]) == 64


def test_filled_shards_are_not_embedded_again(run, tmp_path, capsys):
    train(run)
    capsys.readouterr()
    train(replace(run, out_dir=str(tmp_path / "again")))
    assert "embedding" not in capsys.readouterr().out
    next((tmp_path / "store/text").glob("*.safetensors")).unlink()
    train(replace(run, out_dir=str(tmp_path / "third")))
    assert "embedding 1 of 1 shards" in capsys.readouterr().out


def test_store_of_another_teacher_is_refused(run, tmp_path):
    train(run)
    random = Teacher(name="toolkit.playground.towers:scene_clip", pretrained="random", store=run.teacher.store)
    with pytest.raises(DataError, match=r"weights_sha256: .* use another folder"):
        train(replace(run, out_dir=str(tmp_path / "other"), teacher=random))


def test_exchanged_embeddings_are_caught(run, tmp_path):
    """Rows in another order than the shard's: every embedding is real, and of the wrong picture."""
    train(run)
    file = next((tmp_path / "store/image").glob("*.safetensors"))
    stored, entry = StoredRows(file), read_entry(file)
    write_rows(file, entry.shard, entry.path, stored.keys, stored.rows.flip(0), "fp32")
    with pytest.raises(DataError, match="has cosine"):
        train(replace(run, out_dir=str(tmp_path / "other")))


def test_shard_with_other_samples_is_refused(run, world, tmp_path):
    """Same name and number of samples, other keys."""
    samples = [{"__key__": f"other{k:03d}", "txt": f"sentence {k}"} for k in range(96)]
    texts = write_shards(tmp_path / "texts", samples)
    run = replace(run, data=replace(run.data, texts=str(texts)))
    train(run)
    write_shards(texts, [{**sample, "__key__": f"new{k:03d}"} for k, sample in enumerate(samples)])
    with pytest.raises(DataError, match=r"was made from other samples .*keys differ"):
        train(replace(run, out_dir=str(tmp_path / "other")))


def test_unreadable_samples_are_skipped_and_counted(run, tmp_path):
    samples = [{"__key__": f"{k:03d}", "txt": f"sentence {k}".encode() if k % 40 else b"\xff\xfe"} for k in range(96)]
    run = replace(run, data=replace(run.data, texts=str(write_shards(tmp_path / "texts", samples))))
    train(run)
    last = json.loads((Path(run.out_dir) / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["data/skipped_not_embedded"] >= 3


def test_crops_that_were_not_recorded_are_refused(run, tmp_path):
    same = replace(run, data=replace(run.data, teacher_view="same"), out_dir=str(tmp_path / "other"))
    with pytest.raises(DataError, match="holds none yet; make it with `dime embed images"):
        train(same)
    train(run)
    with pytest.raises(DataError, match=r"holds embeddings of plain pictures .*set data.teacher_view=plain"):
        train(same)

"""The world on disk: the same bytes each time, balanced classes, captions that differ."""

import hashlib
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.errors import DataError
from toolkit.playground.scenes import CLASSNAMES, UNSEEN
from toolkit.playground.shards import write_world

SMALL = {"seed": 5, "images": 30, "texts": 40, "pairs": 10, "test_images_per_class": 2, "test_pairs": 25}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("world") / "a", **SMALL)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _samples(folder: Path) -> dict[str, dict[str, bytes]]:
    samples: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, field = member.name.split(".", 1)
                samples.setdefault(key, {})[field] = tar.extractfile(member).read()
    return samples


def test_the_same_arguments_give_the_same_bytes(world, tmp_path):
    assert _digests(write_world(tmp_path / "b", **SMALL)) == _digests(world)
    other_seed = _digests(write_world(tmp_path / "c", **SMALL | {"seed": 6}))
    assert other_seed["train_texts/00000.tar"] != _digests(world)["train_texts/00000.tar"]


def test_a_longer_pool_begins_like_a_shorter_one(world, tmp_path):
    longer = _samples(write_world(tmp_path / "d", **SMALL | {"images": 35}) / "train_images")
    assert {key: longer[key] for key in _samples(world / "train_images")} == _samples(world / "train_images")


def test_writing_again_touches_nothing_and_leaves_nothing_beside(world):
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*")}
    assert write_world(world, **SMALL) == world
    assert {path: path.stat().st_mtime_ns for path in world.rglob("*")} == before
    assert [path.name for path in world.parent.iterdir()] == [world.name]


def test_another_world_or_foreign_files_are_refused(world, tmp_path):
    with pytest.raises(DataError, match="choose another"):
        write_world(world, **SMALL | {"texts": 41})
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="not a playground world"):
        write_world(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_each_folder_holds_its_fields(world):
    counts = {"train_images": 30, "train_texts": 40, "train_pairs": 10, "test_classes": 240, "test_pairs": 25}
    fields = {"train_images": {"png"}, "train_texts": {"txt"}, "test_classes": {"png", "cls"}}
    for name, count in counts.items():
        samples = _samples(world / name)
        assert len(samples) == count
        for sample in samples.values():
            assert set(sample) == fields.get(name, {"png", "txt"})
            if "png" in sample:
                assert np.asarray(Image.open(io.BytesIO(sample["png"]))).shape == (32, 32, 3)


def test_classes_are_balanced_and_captions_distinct(world):
    labels = Counter(int(sample["cls"]) for sample in _samples(world / "test_classes").values())
    assert labels == {label: 2 for label in range(len(CLASSNAMES))}
    captions = [sample["txt"].decode() for sample in _samples(world / "test_pairs").values()]
    assert len(set(captions)) == len(captions)
    texts = captions + [sample["txt"].decode() for sample in _samples(world / "train_texts").values()]
    assert not any(f"{colour} {shape}" in text for text in texts for colour, shape in UNSEEN)


def test_classes_json_names_both_groups(world):
    classes = json.loads((world / "classes.json").read_text())
    assert classes["classnames"] == list(CLASSNAMES) and all("{}" in template for template in classes["templates"])
    groups = classes["groups"]
    assert sorted(groups["seen"] + groups["unseen"]) == list(range(120)) and len(groups["unseen"]) == 20

"""Anybody's own set: folders or shards, with names and prompts beside them."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from set_copies import class_in, png

from toolkit.data.benchmarks.own import TEMPLATES, own_set
from toolkit.errors import DataError


def write_shard(path: Path, labels: list[int]) -> None:
    """A picture of the class's colour and its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for row, label in enumerate(labels):
            for extension, content in (("png", png(label)), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{row:04d}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_folder(folder: Path, names: list[str]) -> None:
    """One picture per class; its colour is the number of the sorted name."""
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "x.png").write_bytes(png(sorted(names).index(name)))


def test_folders_with_names_for_some(tmp_path: Path) -> None:
    """A folder's name with `_` as a space, unless the card has another."""
    write_folder(tmp_path / "pets/train", ["b_cat", "a"])
    write_folder(tmp_path / "pets/validation", ["b_cat", "a"])
    write_folder(tmp_path / "pets/test", ["b_cat", "a"])
    (tmp_path / "pets/classes.json").write_text(json.dumps({"classnames": {"a": "an ant"}, "metric": "mean-per-class"}))
    found = own_set(tmp_path / "pets")
    assert found is not None
    assert (found.classnames, found.templates, found.metric) == (["an ant", "b cat"], list(TEMPLATES), "mean-per-class")
    assert list(found.splits) == ["train", "val", "test"]
    split = found.open("val")
    assert [class_in(split.picture(row)) for row in range(2)] == split.labels.tolist() == [0, 1]
    assert split.classnames == found.classnames


def test_one_folder_is_the_test_split(tmp_path: Path) -> None:
    """Classes at once below the set's folder; a list of names goes by their sorted order."""
    write_folder(tmp_path / "pets", ["dog", "cat"])
    (tmp_path / "pets/classes.json").write_text(json.dumps({"classnames": ["Felis", "Canis"], "templates": ["{}!"]}))
    found = own_set(tmp_path / "pets")
    assert found is not None
    assert (list(found.splits), found.classnames, found.templates) == (["test"], ["Felis", "Canis"], ["{}!"])
    with pytest.raises(DataError, match="pets has test and no train split"):
        found.open("train")


def test_a_class_called_train(tmp_path: Path) -> None:
    """Below a folder that is a split it is a class; beside the splits it is one of them."""
    write_folder(tmp_path / "traffic/test", ["bus", "train"])
    found = own_set(tmp_path / "traffic")
    assert found is not None and found.classnames == ["bus", "train"]
    assert list(found.splits) == ["test"] and found.open("test").labels.tolist() == [0, 1]
    write_folder(tmp_path / "other", ["bus", "train"])
    assert own_set(tmp_path / "other") is None


def test_shards(tmp_path: Path) -> None:
    """Splits in folders, numbers as the card has them."""
    write_shard(tmp_path / "pets/train/0.tar", [1, 0, 2])
    write_shard(tmp_path / "pets/test/0.tar", [2, 2])
    (tmp_path / "pets/classes.json").write_text(json.dumps({"classnames": ["a", "b", "c"]}))
    found = own_set(tmp_path / "pets")
    assert found is not None
    assert (found.layout, list(found.splits)) == ("webdataset", ["train", "test"])
    split = found.open("train")
    assert split.labels.tolist() == [1, 0, 2] and class_in(split.picture(2)) == 2


def test_nothing_there(tmp_path: Path) -> None:
    """Neither pictures by class nor shards."""
    (tmp_path / "pets/train").mkdir(parents=True)
    assert own_set(tmp_path / "pets") is None


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("{", "is not JSON"),
        ([], "'no object' is not understood"),
        ({"names": []}, "'names' is not understood"),
        ({"classnames": ["a"]}, "1 classnames for 2 folders"),
        ({"classnames": {"zebra": "a"}}, "no folder is called 'zebra'; found cat, dog"),
        ({"classnames": [1, 2]}, "must be a list of names"),
        ({"templates": ["a photo"]}, "with one {} each"),
        ({"templates": []}, "with one {} each"),
        ({"metric": "roc_auc"}, "metric='roc_auc'"),
    ],
)
def test_wrong_cards(card: Any, words: str, tmp_path: Path) -> None:
    """The file, what was found, what to write."""
    write_folder(tmp_path / "pets", ["dog", "cat"])
    (tmp_path / "pets/classes.json").write_text(card if isinstance(card, str) else json.dumps(card))
    with pytest.raises(DataError, match=words.replace("{", r"\{")) as error:
        own_set(tmp_path / "pets")
    assert str(tmp_path / "pets/classes.json") in str(error.value)


def test_one_class_is_no_set(tmp_path: Path) -> None:
    """Every answer would be right."""
    write_folder(tmp_path / "pets/test", ["dog"])
    with pytest.raises(DataError, match=r"pictures of one class alone \('dog'\)"):
        own_set(tmp_path / "pets")


def test_shards_without_names(tmp_path: Path) -> None:
    """A number says nothing."""
    write_shard(tmp_path / "pets/0.tar", [0])
    with pytest.raises(DataError, match=r"holds shards and no class names; write .*classes.json"):
        own_set(tmp_path / "pets")

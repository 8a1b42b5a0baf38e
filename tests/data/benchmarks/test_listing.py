"""`dime evaluate --list`: what is there, counted, and how to get the rest."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from set_copies import ELEVATER, OTHERS, write_coco, write_folders, write_iris

from toolkit.cli import dispatch
from toolkit.data.benchmarks.entry import entries
from toolkit.data.benchmarks.listing import row_of
from toolkit.errors import ConfigError, DataError


@pytest.mark.parametrize("there", [True, False])
def test_nothing_found_is_no_crash(there: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All 26, and the five of captions, are missing, each with source, licence and files; also where the folder itself is."""
    dispatch(["evaluate", "--list", "--json", "--data", str(tmp_path if there else tmp_path / "nowhere")])
    printed = capsys.readouterr().out
    rows = json.loads(printed.splitlines()[-1])
    assert len(rows) == 31 and {row["state"] for row in rows} == {"missing"}
    assert all("Source: http" in row["get"] and "licence: " in row["get"] and row["files"] for row in rows)
    assert "0 sets found" in printed and "31 missing" in printed
    assert "classification/mnist_20211008/val.zip" in printed and "(10,000)" in printed


def test_what_is_found_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong count, a torn copy, a set of the user's: each in its line, none ends the listing."""
    write_iris(tmp_path / "classification/mnist_20211008", ELEVATER["mnist"], [[label] for label in range(10)])
    write_coco(tmp_path / "kitti_distance_20210923", ELEVATER["kitti-distance"], [0, 1, 3])
    write_iris(tmp_path / "classification/dtd_20211007", ELEVATER["dtd"], [[0]])
    (tmp_path / "classification/dtd_20211007/test.zip").write_bytes(b"torn")
    write_folders(tmp_path / "clothing/train", ["hat", "shirt"])
    write_folders(tmp_path / "clothing/test", ["hat", "shirt"])
    write_folders(tmp_path / "no set at all", [])
    dispatch(["evaluate", "--list", "--json", "--data", str(tmp_path)])
    printed = capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads(printed.splitlines()[-1])}
    assert len(rows) == 32 and sum(row["state"] == "missing" for row in rows.values()) == 28
    assert rows["mnist"]["problems"] == ["test: 10 pictures, the protocol has 10000"]
    assert rows["kitti-distance"]["problems"] == [
        "test: 3 pictures, the protocol has 711",
        "test: pictures of 3 classes, the protocol has 4",
    ]
    assert rows["dtd"]["state"] == "wrong" and "no readable zip" in rows["dtd"]["problems"][0]
    assert rows["clothing"]["state"] == "found" and rows["clothing"]["counts"] == {"train": 2, "test": 2}
    assert "mnist in " in printed and "1 sets found" in printed


def test_the_right_count_is_found_right(tmp_path: Path) -> None:
    """An entry of as many pictures as the copy has; a split outside the protocol is not judged by it."""
    known = ELEVATER["mnist"]
    write_iris(tmp_path / "mnist_20211008", known, [[label] for label in range(10)])
    entry = replace(entries()["mnist"], counts={"test": 10})
    row = row_of(entry, tmp_path)
    assert (row.state, row.layout, row.counts, row.classes) == ("found", "elevater", {"test": 10}, 10)
    (tmp_path / "mnist_20211008/train.txt").write_text("val.zip@some dir/0.png 0\n")
    row = row_of(entry, tmp_path)
    assert row.counts == {"train": 1, "test": 10} and row.problems == [
        "train: pictures of 1 classes, the protocol has 10"
    ]


def test_a_copy_without_its_test_split(tmp_path: Path) -> None:
    """Told, with how to get it."""
    write_folders(tmp_path / "food-101/train", ["waffles"])
    row = row_of(entries()["food-101"], tmp_path)
    assert row.layout == "folders" and row.counts == {"train": 1}
    assert row.problems[0] == "train: 1 pictures, the protocol has 75750"
    assert row.problems[-1].startswith("test: missing, 25250 pictures. ELEVATER's copy")


def test_the_validation_pictures_of_imagenet_are_its_test_split(tmp_path: Path) -> None:
    """Counted once, though their folder is called val; training pictures beside them are another split."""
    write_folders(tmp_path / "imagenet/val", ["n01440764", "n01443537"])
    write_folders(tmp_path / "imagenet/train", ["n01440764"])
    assert row_of(entries()["imagenet-1k"], tmp_path).counts == {"train": 1, "test": 2}


def test_words_that_do_not_go_together(tmp_path: Path) -> None:
    """Nothing asked for is passed over."""
    with pytest.raises(ConfigError, match="--list does not go with runs/x"):
        dispatch(["evaluate", "runs/x", "--list"])
    with pytest.raises(DataError, match="--data nowhere is not a folder"):
        dispatch(["evaluate", "runs/x", "--data", "nowhere"])
    with pytest.raises(ConfigError, match="--two-lr, --shots: for evaluation sets alone"):
        dispatch(["evaluate", "runs/x", "--two-lr", "--shots", "3"])
    with pytest.raises(ConfigError, match=r"open_clip:x/y has no sets of its own; say which: --data DIR"):
        dispatch(["evaluate", "open_clip:x/y"])
    with pytest.raises(SystemExit):
        dispatch(["evaluate"])
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        dispatch(["evaluate", "--list", "--data", str(tmp_path / "file")])
    with pytest.raises(ConfigError, match="runs/x is no run"):
        dispatch(["evaluate", "--json", "runs/x"])
    assert len(OTHERS) == 6


def test_a_list_waits_for_no_torch() -> None:
    """It is asked for on login nodes."""
    code = (
        "import sys, toolkit.data.benchmarks.listing; sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

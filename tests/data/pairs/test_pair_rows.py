"""Sets of captions in `dime evaluate --list`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from caption_copies import write_coco, write_flickr, write_sugar
from set_copies import png, write_folders

from toolkit.cli import dispatch
from toolkit.data.pairs.find import pair_rows

MakeShards = Callable[..., Path]


def test_what_is_found_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str], make_shards: MakeShards) -> None:
    """Known sets, a table and shards of ones own, a torn one; none of them is taken for pictures by class as well."""
    write_flickr(tmp_path)
    write_coco(tmp_path).write_text("{")
    write_sugar(tmp_path, pictures="")
    write_folders(tmp_path / "mine", ["a", "b"])
    (tmp_path / "mine/captions.tsv").write_text("a/picture.JPEG\tone\nb/picture.JPEG\ttwo\n")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/captions.tsv").write_text("a.png")
    (tmp_path / "torn/a.png").write_bytes(png(0))
    make_shards("cc", 5)
    make_shards("classes", 3, fields=("png", "cls"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/0.tar").write_bytes(b"torn")
    dispatch(["evaluate", "--list", "--json", "--data", str(tmp_path)])
    printed = capsys.readouterr().out
    listed = json.loads(printed.splitlines()[-1])
    rows = {row["name"]: row for row in listed}
    assert len(rows) == len(listed)
    there = {name: row for name, row in rows.items() if row["state"] != "missing"}
    of_classes = {"classes", "broken"}  # shards that are not of captions; whatever the list of classes says of them
    assert set(there) - of_classes == {"flickr30k", "coco", "sugar-crepe", "mine", "torn", "cc"}
    assert all(rows[name]["metric"] == "accuracy" for name in of_classes & set(rows))
    assert there["flickr30k"]["counts"] == {"test": 3} and "the protocol has 1000" in there["flickr30k"]["problems"][0]
    assert there["coco"]["state"] == "wrong" and "dataset_coco.json is not" in there["coco"]["problems"][0]
    assert there["sugar-crepe"]["counts"] == {"test": 14} and "no pictures" in there["sugar-crepe"]["problems"][-1]
    assert (there["mine"]["state"], there["mine"]["layout"], there["mine"]["counts"]) == (
        "found",
        "captions",
        {"test": 2},
    )
    assert "is not `file<TAB>caption`" in there["torn"]["problems"][0]
    assert (there["cc"]["layout"], there["cc"]["counts"]) == ("webdataset", {"test": 5})
    assert rows["aro-relation"]["files"] and "Source: https" in rows["aro-relation"]["get"] and "(23,937)" in printed


def test_shards_without_an_index_are_not_read(tmp_path: Path, make_shards: MakeShards) -> None:
    """There may be terabytes of them: found, not counted."""
    (make_shards("cc", 5) / "index.json").unlink()
    row = next(row for row in pair_rows(tmp_path) if row.name == "cc")
    assert (row.state, row.counts) == ("found", {})


def test_a_list_waits_for_no_torch() -> None:
    """It is asked for on login nodes."""
    code = "import sys, toolkit.data.pairs.find; sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

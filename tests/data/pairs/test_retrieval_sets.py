"""Sets of pictures with several captions, on small copies in their real layout, whole, torn and hostile."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from caption_copies import image, write_coco, write_flickr
from set_copies import class_in, png

from toolkit.data.pairs import KNOWN, PairedSet, open_pairs
from toolkit.data.pairs.karpathy import read_karpathy
from toolkit.data.shards import write_shards
from toolkit.errors import ConfigError, DataError

MakeShards = Callable[..., Path]


def numbers(found: PairedSet) -> list[int]:
    """What each picture shows."""
    return [class_in(found.picture(row)) for row in range(len(found))]


def spoken(found: PairedSet) -> list[tuple[int, str]]:
    """The number that each caption's picture shows, and the caption."""
    shown = numbers(found)
    return [(shown[owner], caption) for owner, caption in zip(found.picture_of.tolist(), found.captions, strict=True)]


@pytest.mark.parametrize("folder", ["flickr30k/flickr30k-images", "flickr30k/images", "flickr30k-images", "flickr30k"])
def test_flickr30k(folder: str, tmp_path: Path) -> None:
    """The test split in its order, five captions each, wherever the pictures lie; what is fewer than 1,000 is said."""
    write_flickr(tmp_path, folder)
    found = pickle.loads(pickle.dumps(open_pairs("Flickr30k", tmp_path)))  # noqa: S301
    assert numbers(found) == [1, 2, 3] and found.picture_of.dtype == np.int64
    assert spoken(found) == [(number, f"{number} says {k}.") for number in (1, 2, 3) for k in range(5)]
    assert found.problems == [
        "test: 3 pictures, the protocol has 1000",
        "test: 15 captions (the first five of each picture), the protocol has 5000",
    ]
    assert read_karpathy(replace(KNOWN["flickr30k"], samples=3), tmp_path).problems == []


@pytest.mark.parametrize("packed", [False, True])
def test_coco(packed: bool, tmp_path: Path) -> None:
    """Pictures of either folder, plain or in COCO's own zips; of six captions the first five."""
    write_coco(tmp_path, packed)
    found = open_pairs("coco", tmp_path)
    assert spoken(found) == [(number, f"{number} says {k}.") for number in (5, 4, 9) for k in range(5)]
    assert [found.pictures.key(0), found.pictures.key(1)] == (
        ["coco/val2014.zip@val2014/5.jpg", "coco/train2014.zip@train2014/4.jpg"]
        if packed
        else ["coco/val2014/5.jpg", "coco/train2014/4.jpg"]
    )
    assert read_karpathy(replace(KNOWN["coco"], samples=3), tmp_path).problems == []


def test_fewer_captions_than_the_protocol(tmp_path: Path) -> None:
    """Counted, and told."""
    index = write_flickr(tmp_path)
    index.write_text(json.dumps({"images": [image(1, "test", 4), image(2, "test")]}))
    assert open_pairs("flickr30k", tmp_path).problems[1].startswith("test: 9 captions")


def test_nothing_there(tmp_path: Path) -> None:
    """How to get it; no traceback for names that are none."""
    with pytest.raises(DataError, match=r"no dataset_coco.json. Fetch val2014.zip .* Source: https://coco.*licence: "):
        open_pairs("coco", tmp_path)
    with pytest.raises(ConfigError, match="did you mean flickr30k"):
        open_pairs("flickr20k", tmp_path)
    with pytest.raises(ConfigError, match="give --tasks compositionality"):
        open_pairs("sugarcrepe", tmp_path)


def test_pictures_that_are_not_there(tmp_path: Path) -> None:
    """None at all, one of them, a torn zip, and one that is no picture."""
    write_flickr(tmp_path)
    pictures = tmp_path / "flickr30k/flickr30k-images"
    (pictures / "3.jpg").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"flickr30k: flickr30k/flickr30k-images/3.jpg in .* cannot be judged"):
        open_pairs("flickr30k", tmp_path).picture(2)
    (pictures / "2.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 3 pictures are not there, the first is .*/2.jpg.*Ask its authors"):
        open_pairs("flickr30k", tmp_path)
    for path in pictures.iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"dataset_flickr30k.json is there, its pictures are not .*Ask its authors"):
        open_pairs("flickr30k", tmp_path)
    write_coco(tmp_path, packed=True)
    (tmp_path / "coco/val2014.zip").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"val2014.zip is no readable zip"):
        open_pairs("coco", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not Karpathy's index"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[" * 100_000, "is not Karpathy's index"),
        (b"[]", "is not Karpathy's index"),
        (b'{"images": [{"split": "test"}]}', "is not Karpathy's index"),
        (b'{"images": []}', "no pictures of the test split"),
        (json.dumps({"images": [image(1, "test", 0)]}).encode(), "'1.jpg' has no captions"),
        (json.dumps({"images": [image(1, "test"), image(1, "test")]}).encode(), "lists a picture twice"),
        (json.dumps({"images": [image(1, "test") | {"filename": "../../1.jpg"}]}).encode(), "leads out of the set's folder"),
        (json.dumps({"images": [image(1, "test") | {"filename": "a\0b"}]}).encode(), "leads out of the set's folder"),
        (json.dumps({"images": [image(1, "test") | {"sentences": [{"raw": 3}]}]}).encode(), "is no caption .a int instead"),
        (json.dumps({"images": [image(1, "test") | {"sentences": [{"raw": " "}]}]}).encode(), "empty_text"),
        (b'{"images": [{"split": "test", "filename": "1.jpg", "sentences": [{"raw": "\\ud800"}]}]}', "is no caption"),
    ],
)  # fmt: skip
def test_an_index_that_is_something_else(content: bytes, message: str, tmp_path: Path) -> None:
    """One error that names the file."""
    write_flickr(tmp_path).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        open_pairs("flickr30k", tmp_path)
    assert "dataset_flickr30k.json" in str(error.value) and "\n" not in str(error.value)


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    """Any number of captions per picture, in any order; a header, a byte order mark and Windows' line ends do no harm."""
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "deep/b c.png", "z.png")):
        (folder / name).write_bytes(png(number))
    (folder / "captions.tsv").write_text(
        "\ufefffile\tcaption\r\ndeep/b c.png\tone\ttwo\r\n\r\na.png\tthree\r\n./deep/b c.png\tfour\r\n"
    )
    found = open_pairs("mine", tmp_path)
    assert spoken(found) == [(1, "one\ttwo"), (0, "three"), (1, "four")] and len(found) == 2
    (folder / "captions.tsv").unlink()
    lines = [{"file_name": "z.png", "text": "five"}, {"file": "a.png", "captions": ["six", "seven"]}]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert spoken(open_pairs("mine", tmp_path)) == [(2, "five"), (0, "six"), (0, "seven")]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("captions.tsv", "a.png", "line 1: 'a.png' is not `file<TAB>caption`"),
        ("captions.tsv", "", "holds no captions"),
        ("captions.tsv", "../a.png\tout", "leads out of the set's folder"),
        ("captions.tsv", "b.png\tnot there", "1 of 1 pictures are not there, the first is b.png"),
        ("captions.jsonl", "[1]", "line 1: .* is not {'file'"),
        ("captions.jsonl", '{"file": "a.png"}', "line 1: .* is not {'file'"),
        ("captions.jsonl", '{"file": "a.png", "captions": []}', "needs the path of a picture and a caption"),
        ("captions.jsonl", '{"file": 1, "caption": "x"}', "needs the path of a picture and a caption"),
        ("captions.jsonl", '{"file": "a.png", "caption": null}', "is no caption .a NoneType"),
    ],
)
def test_a_table_that_is_none(name: str, line: str, message: str, tmp_path: Path) -> None:
    """The line is named."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a.png").write_bytes(png(0))
    (tmp_path / "mine" / name).write_text(line)
    with pytest.raises(DataError, match=message):
        open_pairs("mine", tmp_path)


def test_a_folder_without_captions(tmp_path: Path) -> None:
    """It is told how captions are given."""
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match=r"lay captions.tsv or captions.jsonl beside its pictures"):
        open_pairs("mine", tmp_path)


def test_paired_shards(tmp_path: Path) -> None:
    """A folder, its `test` folder, or a pattern below the data or wherever; lines of txt are captions of one picture."""
    samples = [{"__key__": f"{k:04d}", "png": png(k), "txt": f"one {k}\n two {k}\n" if k else "only"} for k in range(3)]
    write_shards(tmp_path / "cc/test", samples, 2)
    said = [(0, "only"), (1, "one 1"), (1, "two 1"), (2, "one 2"), (2, "two 2")]
    for name in ("cc", "cc/test", "cc/test/{00000..00001}.tar", f"{tmp_path}/cc/test/{{00000..00001}}.tar"):
        found = pickle.loads(pickle.dumps(open_pairs(name, tmp_path)))  # noqa: S301
        assert spoken(found) == said
    assert len(open_pairs("cc/test/00001.tar", tmp_path)) == 1
    with pytest.raises(DataError, match="shards do not exist"):
        open_pairs("cc/test/{00000..00007}.tar", tmp_path)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"txt": None}, "sample 0001 has .* and needs a picture and 'txt'"),
        ({"png": None}, "sample 0001 has .* and needs a picture and 'txt'"),
        ({"txt": b" \n"}, "sample 0001 has an empty txt"),
        ({"txt": b"\xff"}, "sample 0001: its txt cannot be read"),
        ({"txt": b"a\0b"}, "sample 0001: its txt is no caption .nul_in_text"),
    ],
)
def test_shards_that_cannot_be_judged(
    broken: dict[str, bytes], message: str, tmp_path: Path, make_shards: MakeShards
) -> None:
    """Nothing is passed over."""
    make_shards("cc", 3, broken={1: broken})
    with pytest.raises(DataError, match=message):
        open_pairs("cc", tmp_path)

"""SugarCrepe and ARO on small copies in their real layout, whole, torn and hostile."""

import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caption_copies import PARTS, case, write_sugar
from PIL import Image
from set_copies import class_in, png

from toolkit.data.pairs import KNOWN, known_of, open_compositions
from toolkit.data.pairs.compositions import in_mean, symmetric_relations
from toolkit.errors import ConfigError, DataError


@pytest.mark.parametrize("pictures", ["coco/val2017", "val2017", "sugar-crepe/images"])
def test_sugar_crepe(pictures: str, tmp_path: Path) -> None:
    """Seven parts in their order; a picture that several cases are about is there once."""
    write_sugar(tmp_path, pictures=pictures)
    found = pickle.loads(pickle.dumps(open_compositions("SugarCrepe", tmp_path)))  # noqa: S301
    assert found.parts == list(PARTS) and all(found.in_mean) and len(found) == 14
    assert found.part_of.tolist() == [part for part in range(7) for _ in range(2)]
    assert found.captions[3] == "A add_obj dog 1 bites a man." and found.negatives[3] == "A add_obj man 1 bites a dog."
    assert found.pictures is not None and len(found.pictures) == 2
    assert [class_in(found.picture(row)) for row in found.picture_of.tolist()] == [0, 1] * 7
    assert found.problems[0] == "test: 2 cases of add_att, the protocol has 692" and len(found.problems) == 7


def test_sugar_crepe_without_pictures(tmp_path: Path) -> None:
    """Texts alone can be judged, and it is said that there will be no accuracy; a few pictures are an error."""
    write_sugar(tmp_path, pictures="")
    found = open_compositions("sugar-crepe", tmp_path)
    assert found.pictures is None and found.picture_of.tolist() == [0, 1] * 7
    assert "no pictures, so there will be no accuracy" in found.problems[-1] and "val2017.zip" in found.problems[-1]
    with pytest.raises(DataError, match="no pictures in its copy"):
        found.picture(0)
    (tmp_path / "val2017").mkdir()
    assert open_compositions("sugar-crepe", tmp_path).pictures is None
    (tmp_path / "val2017/000000000001.jpg").write_bytes(png(1))
    with pytest.raises(DataError, match=r"1 of 2 pictures are not there, the first is val2017/000000000000.jpg"):
        open_compositions("sugar-crepe", tmp_path)


def test_the_counts_of_the_protocol() -> None:
    """7,511 cases, as the released files have them, and ARO's."""
    known = KNOWN["sugar-crepe"]
    assert sum(known.parts.values()) == known.samples == 7511
    assert known.parts == dict(zip(PARTS, (692, 2062, 788, 1652, 1406, 666, 245), strict=True))
    assert (KNOWN["aro-relation"].samples, KNOWN["aro-attribution"].samples) == (23937, 28748)
    assert known_of("VG-Relation") is KNOWN["aro-relation"] and known_of("vg") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a part of SugarCrepe"),
        ("[]", "is not a part of SugarCrepe"),
        ('{"0": {"filename": "x.jpg", "caption": "a"}}', "is not a part of SugarCrepe"),
        (
            '{"0": {"filename": "x.jpg", "caption": "a", "negative_caption": null}}',
            "the negative of case 0 is no caption",
        ),
        ('{"0": {"filename": "../x.jpg", "caption": "a", "negative_caption": "b"}}', "leads out of the set's folder"),
        (None, "cannot be read .No such file"),
    ],
)
def test_files_that_are_something_else(content: str | None, message: str, tmp_path: Path) -> None:
    """One error that names the file, or the folder for a picture's path."""
    folder = write_sugar(tmp_path)
    path = folder / "swap_att.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        open_compositions("sugar-crepe", tmp_path)
    assert "sugar-crepe" in str(error.value) and "\n" not in str(error.value)


def write_aro(data: Path, what: str, cases: list[dict[str, Any]]) -> np.ndarray:
    """The cases and one picture of 8 x 6 pixels, whose pixels say where they lie."""
    (data / "aro/images").mkdir(parents=True, exist_ok=True)
    (data / f"aro/visual_genome_{what}.json").write_text(json.dumps(cases))
    pixels = np.stack([*np.meshgrid(np.arange(8), np.arange(6)), np.full((6, 8), 9)], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    (data / "aro/images/1.jpg").write_bytes(buffer.getvalue())
    return pixels


def test_aro_relations(tmp_path: Path) -> None:
    """Each box of a picture is a picture; relations are parts, and the symmetric ones are not in the mean."""
    cases = [
        case("1.jpg", (2, 1, 4, 3), relation_name="on"),
        case("1.jpg", (0, 0, 8, 6), relation_name="near"),
        case("1.jpg", (2, 1, 4, 3), relation_name="on"),
        case("1.jpg", (6, 4, 4, 4), relation_name="behind"),
    ]
    pixels = write_aro(tmp_path, "relation", cases)
    found = pickle.loads(pickle.dumps(open_compositions("vg-relation", tmp_path)))  # noqa: S301
    assert found.parts == ["on", "near", "behind"] and found.in_mean == [True, False, True]
    assert found.picture_of.tolist() == [0, 1, 0, 2] and found.pictures is not None and len(found.pictures) == 3
    assert (np.asarray(found.picture(0)) == pixels[1:4, 2:6]).all() and found.picture(0).size == (4, 3)
    assert (np.asarray(found.picture(1)) == pixels).all()
    outside = np.zeros((4, 4, 3), np.uint8)
    outside[:2, :2] = pixels[4:, 6:]
    assert (np.asarray(found.picture(2)) == outside).all()
    assert found.problems == ["test: 4 cases, the protocol has 23937"] and found.pictures.key(0).endswith(
        "[2, 1, 4, 3]"
    )


def test_aro_attributes(tmp_path: Path) -> None:
    """Pairs of attributes are parts; those of fewer than 25 cases are not in the mean."""
    cases = [case("1.jpg", (0, 0, 2, 2), attributes=["white", "tall"])] * 25
    cases += [case("1.jpg", (0, 0, 2, 2), attributes=["tall", "white"])] * 24
    write_aro(tmp_path, "attribution", cases)
    found = open_compositions("aro-attribution", tmp_path)
    assert found.parts == ["white_tall", "tall_white"] and found.in_mean == [True, False]
    assert found.pictures is not None and len(found.pictures) == 1


def test_relations_that_are_left_out() -> None:
    """Spot checks against ARO's list, and that it is of relations alone."""
    assert {"near", "next to", "hugging", "wrapped in"} <= symmetric_relations() and len(symmetric_relations()) > 150
    assert not {"on", "under", "to the left of", "holding", "riding"} & symmetric_relations()
    assert in_mean(replace(KNOWN["sugar-crepe"]), ["near"], [1]) == [True]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"bbox_w": 0}, "the box .* is none of a picture"),
        ({"bbox_w": 10**6, "bbox_h": 10**6}, "the box .* is none of a picture"),
        ({"bbox_x": -(10**9)}, "the box .* is none of a picture"),
        ({"bbox_x": float("inf")}, "is not a file of ARO's"),
        ({"bbox_x": "left"}, "is not a file of ARO's"),
        ({"relation_name": ["on"]}, "is not a file of ARO's"),
        ({"true_caption": 1}, "the caption of case 0 is no caption"),
        ({"image_path": "/etc/passwd\0"}, "leads out of the set's folder"),
    ],
)
def test_cases_that_are_none(broken: dict[str, Any], message: str, tmp_path: Path) -> None:
    """One error that names the file."""
    write_aro(tmp_path, "relation", [case("1.jpg", (0, 0, 2, 2), relation_name="on") | broken])
    with pytest.raises(DataError, match=message) as error:
        open_compositions("aro-relation", tmp_path)
    assert "visual_genome_relation.json" in str(error.value)


def test_a_picture_that_cannot_be_cropped(tmp_path: Path) -> None:
    """Named, with its box."""
    write_aro(tmp_path, "relation", [case("1.jpg", (0, 0, 2, 2), relation_name="on")])
    (tmp_path / "aro/images/1.jpg").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"1.jpg \[0, 0, 2, 2\] cannot be judged"):
        open_compositions("aro-relation", tmp_path).picture(0)


def test_nothing_there(tmp_path: Path) -> None:
    """How to get it; no traceback for names that are none."""
    with pytest.raises(DataError, match=r"aro-relation is not in .*no aro/visual_genome_relation.json.*Source: https"):
        open_compositions("aro-relation", tmp_path)
    with pytest.raises(ConfigError, match="did you mean sugar-crepe"):
        open_compositions("sugar-crape", tmp_path)
    with pytest.raises(ConfigError, match="no set for compositionality is called 'coco'"):
        open_compositions("coco", tmp_path)

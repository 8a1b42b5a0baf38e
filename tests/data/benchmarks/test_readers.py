"""Each set from a small copy in its real layout: the label is the colour of the picture, in the protocol's numbers."""

import pickle
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from guard import Guard
from PIL import Image
from set_copies import ELEVATER, OTHERS, PROTOCOL, class_in, png, write_coco, write_folders, write_iris, write_zip

from toolkit.data.benchmarks import Split, entry_of, open_folder, open_set
from toolkit.data.benchmarks.entry import entries
from toolkit.data.shards import write_shards
from toolkit.errors import DataError

GUARD = Guard()


def folder_names(name: str) -> list[str]:
    """Of the robustness sets, in the order of the protocol, from elsewhere than the entry."""
    if name == "objectnet":
        return sorted(entry_of(name).own_names)
    if name == "imagenetv2":
        return [str(number) for number in range(1000)]
    listed = {"imagenet-r": "imagenet_r", "imagenet-a": "imagenet_a"}.get(name, "imagenet")
    return sorted(files("timm").joinpath(f"data/_info/{listed}_synsets.txt").read_text().split())


@pytest.fixture(scope="session")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 26, a picture per class; every second class has two."""
    data = tmp_path_factory.mktemp("data")
    for name, known in PROTOCOL.items():
        folder = data / "classification" / known.folder
        labels = [*range(known.classes), *range(0, known.classes, 2)][:300]
        if known.index.endswith(".json"):
            write_coco(folder, known, labels)
        elif name == "voc-2007-classification":
            write_iris(folder, known, [[label, (label + 7) % 20] for label in range(20)])
        elif known.index:
            write_iris(folder, known, [[label] for label in labels])
        else:
            write_folders(folder, folder_names(name))
    (data / "classification/objectnet-1.0/images_in1k/air_freshener").mkdir()  # one of the 200 outside the protocol
    (data / "classification/objectnet-1.0/images_in1k/air_freshener/a.png").write_bytes(png(0))
    return data


@pytest.mark.parametrize("name", PROTOCOL)
def test_a_copy_gives_pictures_and_labels(name: str, copies: Path) -> None:
    """All of them, in order, with the class that the picture shows; VOC's as zeros and ones."""
    with GUARD.watching(copies):
        found = open_set(name, copies)
        known = PROTOCOL[name]
        assert found.classnames == entries()[name].names and len(found.classnames) == known.classes
        assert found.layout == ("elevater" if known.index else "folders")
        if name == "voc-2007-classification":
            assert found.labels.shape == (20, 20) and (found.labels.sum(axis=1) == 2).all()
            assert all(found.labels[row, row] == found.labels[row, (row + 7) % 20] == 1 for row in range(20))
        else:
            rows = range(0, len(found), 1 + len(found) // 60)  # a few dozen of each
            assert [class_in(found.picture(row)) for row in rows] == [found.label(row) for row in rows]
            assert (
                found.labels.tolist()[:20]
                == (
                    list(range(min(20, known.classes))) + list(range(0, known.classes, 2))
                    if known.index
                    else sorted_by_folder(name)
                )[:20]
            )
        data, label = next(iter(found))
        assert data == png(0) and np.array_equal(label, found.label(0))


def sorted_by_folder(name: str) -> list[int]:
    """Class numbers in the order of the folders' names: 0, 1, 10, 100, ... where folders are numbers."""
    return sorted(range(PROTOCOL[name].classes), key=str) if name == "imagenetv2" else list(range(20))


def test_objectnet_without_the_other_folders(copies: Path) -> None:
    """Its download has 313 classes; the 113 are picked."""
    found = open_set("objectnet", copies)
    assert len(found) == 113 and "air_freshener" not in {found.pictures.key(row).split("/")[0] for row in range(113)}


def test_a_split_travels_to_worker_processes(copies: Path) -> None:
    """A pickled copy reads the same bytes."""
    found = open_set("dtd", copies)
    again: Split = pickle.loads(pickle.dumps(found))  # noqa: S301
    assert again.pictures[3] == found.pictures[3] and again.label(3) == 3


def test_turned_and_grey_pictures(tmp_path: Path) -> None:
    """EXIF orientation is applied, grey becomes RGB: as ELEVATER's loader."""
    import io

    image = Image.new("L", (4, 2), 0)
    image.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    folder = tmp_path / "classification/cifar_10_20211007"
    write_iris(folder, ELEVATER["cifar-10"], [[0]])
    write_zip(folder / "val.zip", [("some dir/0.png", buffer.getvalue())])
    picture = open_set("cifar10", tmp_path).picture(0)
    assert picture.size == (2, 4) and picture.mode == "RGB"
    assert picture.getpixel((1, 0)) == (255, 255, 255) and picture.getpixel((0, 0)) == (0, 0, 0)


def one_iris(tmp_path: Path, name: str = "cifar-10") -> Path:
    """A copy with one picture."""
    folder = tmp_path / "classification" / ELEVATER[name].folder
    write_iris(folder, ELEVATER[name], [[1]])
    return folder


LINES = {
    "val.zip@some dir/0.png ten": "is not `path label",
    "val.zip@some dir/0.png 10": r"label \[10\], classes are 0..9",
    "val.zip@some dir/0.png -1": "classes are 0..9",
    "val.zip@some dir/0.png 1,2": "has 2 labels and must have one",
    "val.zip@x.png 1": "1 of 1 pictures are not there, the first is val.zip@x.png",
    "other.zip@x.png 1": "other.zip is missing",
    "pictures/x.png 1": "1 of 1 pictures are not there",
    "../x.zip@x.png 1": "leads out of the set",
    "/etc/passwd 1": "leads out of the set",
    "val.zip@../x.png 1": "leads out of the set",
    "..\\x.png 1": "leads out of the set",
    "": "lists no pictures",
}


@pytest.mark.parametrize("line", LINES)
def test_a_wrong_index_is_refused(line: str, tmp_path: Path) -> None:
    """Before a picture is read."""
    (one_iris(tmp_path) / "test.txt").write_text(line + "\n")
    with pytest.raises(DataError, match=LINES[line]):
        open_set("cifar-10", tmp_path)


def test_more_labels_than_classes(tmp_path: Path) -> None:
    """Another version of a set."""
    with open(one_iris(tmp_path) / "labels.txt", "a") as file:
        file.write("background\n")
    with pytest.raises(DataError, match=r"labels.txt has 11 classes, the protocol 10"):
        open_set("cifar-10", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"images": [], "annotations": []}',
        '{"images": [{"id": 1}], "annotations": [], "categories": []}',
    ],
)
def test_a_wrong_coco_index_is_refused(text: str, tmp_path: Path) -> None:
    """Whatever is missing."""
    folder = tmp_path / "classification" / ELEVATER["kitti-distance"].folder
    write_coco(folder, ELEVATER["kitti-distance"], [0, 1])
    (folder / "test_meta.json").write_text(text)
    with pytest.raises(DataError, match=r"test_meta\.json"):
        open_set("kitti-distance", tmp_path)


def test_torn_and_swollen_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No zip, a member that inflates beyond the limit, one whose checksum is wrong: each a sentence with its name."""
    folder = one_iris(tmp_path)
    with zipfile.ZipFile(folder / "val.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("some dir/0.png", bytes(1 << 20))
    assert (folder / "val.zip").stat().st_size < 5000
    found = open_set("cifar-10", tmp_path)
    with pytest.raises(DataError, match=r"val.zip@some dir/0.png in .* cannot be judged: undecodable"):
        found.picture(0)
    monkeypatch.setattr("toolkit.data.benchmarks.archives.MAX_BYTES", 1 << 19)
    with pytest.raises(DataError, match=r"val.zip@some dir/0.png is larger than 524288 bytes"):
        found.pictures[0]
    whole = bytearray((one_iris(tmp_path) / "val.zip").read_bytes())
    whole[60] ^= 255
    (folder / "val.zip").write_bytes(whole)
    with pytest.raises(DataError, match="cannot be read"):
        open_set("cifar-10", tmp_path).pictures[0]
    (folder / "val.zip").write_bytes(b"PK torn")
    with pytest.raises(DataError, match="no readable zip"):
        open_set("cifar-10", tmp_path)


def test_a_picture_too_large_is_not_decoded(tmp_path: Path) -> None:
    """Its header is enough."""
    found = open_set("cifar-10", one_iris(tmp_path).parents[1])
    with pytest.raises(DataError, match="too_many_pixels"):
        found.picture(0, max_pixels=3)


def test_folders_of_no_class(tmp_path: Path) -> None:
    """Refused by name, and so are two folders of one class; another spelling is understood."""
    write_folders(tmp_path / "dtd/test", ["Banded", "polka_dotted", "smooth"])
    with pytest.raises(DataError, match="1 of 3 classes are none of dtd's, the first is 'smooth'"):
        open_set("dtd", tmp_path)
    (tmp_path / "dtd/test/smooth").rename(tmp_path / "dtd/test/polka-dotted")
    with pytest.raises(DataError, match="polka-dotted and polka_dotted are one class"):
        open_set("dtd", tmp_path)
    (tmp_path / "dtd/test/polka-dotted/picture.JPEG").unlink()
    names = entry_of("dtd").names
    assert open_set("dtd", tmp_path).labels.tolist() == [names.index("banded"), names.index("polka-dotted")]


NATIVE = {
    "eurosat": ("eurosat/2750", {"AnnualCrop": 0, "Forest": 1, "HerbaceousVegetation": 2, "SeaLake": 9}),
    "caltech101": ("caltech101/101_ObjectCategories", {"accordion": 0, "yin_yang": 101}),
    "country211": ("country211/test", {"AD": 0, "AE": 1, "ZW": 210}),
    "rendered-sst2": ("rendered-sst2/test", {"negative": 0, "positive": 1}),
    "imagenet-1k": ("imagenet/val", {"n01440764": 0, "n15075141": 999}),
}


@pytest.mark.parametrize("name", NATIVE)
def test_folders_called_as_the_set_calls_them(name: str, tmp_path: Path) -> None:
    """The download's own names, numbered as the protocol does."""
    place, numbers = NATIVE[name]
    write_folders(tmp_path / place, numbers)
    assert open_set(name, tmp_path).labels.tolist() == list(numbers.values())


def test_shards(tmp_path: Path) -> None:
    """Class numbers in `cls`; several for VOC; names beside the shards say what they mean."""
    samples = [{"__key__": f"{k}", "png": png(k), "cls": str(k)} for k in range(10)]
    write_shards(tmp_path / "eurosat/test", samples, 4)
    found = open_set("eurosat_clip", tmp_path)
    assert (found.layout, found.labels.tolist()) == ("webdataset", list(range(10)))
    assert [class_in(found.picture(row)) for row in range(10)] == list(range(10))
    (tmp_path / "eurosat/classnames.txt").write_text("\n".join(entry_of("eurosat").names[::-1]))
    assert open_set("eurosat_clip", tmp_path).labels.tolist() == list(range(9, -1, -1))
    again = pickle.loads(pickle.dumps(open_set("eurosat_clip", tmp_path)))  # noqa: S301
    assert again.pictures[5] == png(5)

    write_shards(tmp_path / "voc2007", [{"__key__": "a", "png": png(0), "cls": "3,7"}])
    assert np.flatnonzero(open_set("voc2007", tmp_path).labels[0]).tolist() == [3, 7]
    write_shards(tmp_path / "mnist", [{"__key__": "a", "png": png(0), "cls": "ten"}])
    with pytest.raises(DataError, match="class of sample a is no class number"):
        open_set("mnist", tmp_path)
    write_shards(tmp_path / "gtsrb", [{"__key__": "a", "png": png(0)}])
    with pytest.raises(DataError, match="needs a picture and 'cls'"):
        open_set("gtsrb", tmp_path)


def test_anybodys_folder(tmp_path: Path) -> None:
    """Classes are the folders of all splits; `_` is a space; a folder that is no set of pictures is refused."""
    write_folders(tmp_path / "mine/train", ["long_sleeve", "t-shirt", "hat"])
    write_folders(tmp_path / "mine/validation", ["t-shirt"])
    found = open_set("mine", tmp_path, "train")
    assert found.classnames == ["hat", "long sleeve", "t-shirt"] and found.labels.tolist() == [0, 1, 2]
    assert open_set("mine", tmp_path, "val").labels.tolist() == [2]
    with pytest.raises(DataError, match=r"no test split \(it has train, val\)"):
        open_folder(tmp_path / "mine")
    with pytest.raises(DataError, match="holds no pictures in folders of two classes"):
        open_folder(tmp_path)


def test_what_is_missing_says_how_to_get_it(tmp_path: Path) -> None:
    """Source and licence in the message."""
    with pytest.raises(DataError, match=r"patch-camelyon is not in .*github.com/basveeling/pcam \(licence: CC0 1.0\)"):
        open_set("pcam", tmp_path)
    one_iris(tmp_path)
    with pytest.raises(DataError, match="elevater layout has test and no train split"):
        open_set("cifar-10", tmp_path, "train")
    assert set(OTHERS) < set(entries())

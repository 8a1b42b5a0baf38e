"""Copies as torchvision's downloads lie on a disk, written here file by file."""

import csv
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from set_copies import class_in, png

from toolkit.data.benchmarks import Split, entry_of, open_set
from toolkit.errors import DataError


def touch(path: Path, label: int = 0) -> Path:
    """A picture whose colour is its class, whatever its name ends with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(label))
    return path


def text(path: Path, *lines: str) -> None:
    """A small file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def check(found: Split, labels: list[int]) -> None:
    """The protocol's numbers, and pictures that show them."""
    assert found.layout == "torchvision" and found.labels.tolist() == labels
    assert [class_in(found.picture(row)) for row in range(len(found))] == labels


def test_food(tmp_path: Path) -> None:
    """JSON of paths per class."""
    names = entry_of("food-101").names
    wanted = [names.index("waffles"), names.index("apple pie")]
    text(tmp_path / "food-101/meta/test.json", json.dumps({"waffles": ["waffles/1"], "apple_pie": ["apple_pie/2"]}))
    touch(tmp_path / "food-101/images/waffles/1.jpg", wanted[0])
    touch(tmp_path / "food-101/images/apple_pie/2.jpg", wanted[1])
    check(open_set("food-101", tmp_path), wanted)
    (tmp_path / "food-101/images/apple_pie/2.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 2 pictures are not there, the first is food-101/images/apple_pie/2.jpg"):
        open_set("food-101", tmp_path)


def test_textures(tmp_path: Path) -> None:
    """Lists of the first partition; the folder of pictures by class beside them is not taken for a split."""
    names = entry_of("dtd").names
    wanted = [names.index("zigzagged"), names.index("banded")]
    text(tmp_path / "dtd/dtd/labels/test1.txt", "zigzagged/a.jpg", "banded/b.jpg")
    touch(tmp_path / "dtd/dtd/images/zigzagged/a.jpg", wanted[0])
    touch(tmp_path / "dtd/dtd/images/banded/b.jpg", wanted[1])
    touch(tmp_path / "dtd/dtd/images/banded/of_train.jpg", wanted[1])
    check(open_set("dtd", tmp_path), wanted)


def test_aircraft(tmp_path: Path) -> None:
    """Variants have slashes where the protocol has dashes, and another order."""
    names = entry_of("aircraft").names
    data = tmp_path / "fgvc-aircraft-2013b/data"
    text(data / "variants.txt", "A300B4", "F-16A/B", "An-12")
    text(data / "images_variant_test.txt", "0000001 F-16A/B", "0000002 An-12")
    wanted = [names.index("F-16A-B"), names.index("An-12")]
    touch(data / "images/0000001.jpg", wanted[0])
    touch(data / "images/0000002.jpg", wanted[1])
    check(open_set("aircraft", tmp_path), wanted)


def test_pets(tmp_path: Path) -> None:
    """Numbers of its own, names from the pictures'."""
    names = entry_of("pets").names
    folder = tmp_path / "oxford-iiit-pet"
    text(folder / "annotations/test.txt", "Abyssinian_1 1 1 1", "american_bulldog_7 2 2 1")
    wanted = [names.index("Abyssinian"), names.index("american bulldog")]
    touch(folder / "images/Abyssinian_1.jpg", wanted[0])
    touch(folder / "images/american_bulldog_7.jpg", wanted[1])
    check(open_set("pets", tmp_path), wanted)


def test_traffic_signs(tmp_path: Path) -> None:
    """PPM files and a table with semicolons."""
    folder = tmp_path / "gtsrb/GTSRB"
    (folder.parent).mkdir()
    images = folder / "Final_Test/Images"
    images.mkdir(parents=True)
    Image.new("RGB", (2, 2), (42, 0, 7)).save(images / "00000.ppm")
    text(folder.parent / "GT-final_test.csv", "Filename;Width;Height;ClassId", "00000.ppm;2;2;42")
    check(open_set("gtsrb", tmp_path), [42])


def test_mnist(tmp_path: Path) -> None:
    """IDX files."""
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    pixels = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8)
    for split, labels in {"t10k": [9, 4], "train": [1, 2]}.items():
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, 2, 28, 28) + pixels.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 2) + bytes(labels))
    found = open_set("mnist", tmp_path)
    assert found.labels.tolist() == [9, 4] and open_set("mnist", tmp_path, "train").labels.tolist() == [1, 2]
    assert np.array_equal(np.asarray(found.picture(1))[..., 0], pixels.reshape(2, 28, 28)[1])


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar(classes: int, tmp_path: Path) -> None:
    """Bytes plane by plane behind one label, or two of which the second counts; pickles are refused by name."""
    names = sorted(entry_of(f"cifar{classes}").names)  # CIFAR's order; ELEVATER's of CIFAR-100 is another
    wanted = [entry_of(f"cifar{classes}").names.index(names[own]) for own in (3, 8)]
    pixels = np.zeros((2, 3, 32, 32), np.uint8)
    pixels[:, 0], pixels[:, 2], labels = np.array(wanted)[:, None, None], 7, [3, 8]
    coarse = [] if classes == 10 else [19]
    rows = b"".join(bytes([*coarse, label]) + one.tobytes() for label, one in zip(labels, pixels, strict=True))
    pickles = tmp_path / ("cifar-10-batches-py" if classes == 10 else "cifar-100-python")
    pickles.mkdir()
    with pytest.raises(DataError, match=f"{pickles.name} is pickles, which are never loaded"):
        open_set(f"cifar{classes}", tmp_path)
    folder = tmp_path / ("cifar-10-batches-bin" if classes == 10 else "cifar-100-binary")
    text(
        folder / ("batches.meta.txt" if classes == 10 else "fine_label_names.txt"),
        *[n.replace(" ", "_") for n in names],
    )
    (folder / ("test_batch.bin" if classes == 10 else "test.bin")).write_bytes(rows)
    check(open_set(f"cifar{classes}", tmp_path), wanted)
    assert (wanted == labels) == (classes == 10)
    (folder / ("test_batch.bin" if classes == 10 else "test.bin")).write_bytes(rows[:-1])
    with pytest.raises(DataError, match="is cut short"):
        open_set(f"cifar{classes}", tmp_path)


def test_voc(tmp_path: Path) -> None:
    """A list per class with 1, -1 and 0 for what is only hard to see."""
    folder = tmp_path / "VOCdevkit/VOC2007"
    text(folder / "ImageSets/Main/test.txt", "000001", "000002")
    for name in entry_of("voc2007").names:
        flags = {"cat": (" 1", "-1"), "train": (" 1", " 0")}.get(name, ("-1", "-1"))
        text(folder / f"ImageSets/Main/{name}_test.txt", f"000001 {flags[0]}", f"000002 {flags[1]}")
    touch(folder / "JPEGImages/000001.jpg")
    touch(folder / "JPEGImages/000002.jpg")
    found = open_set("voc2007", tmp_path)
    present = [[found.classnames[number] for number in np.flatnonzero(row)] for row in found.labels]
    assert present == [["cat", "train"], []]


def test_cars(tmp_path: Path) -> None:
    """MATLAB tables, numbers from one, names in another order than the protocol's."""
    io = pytest.importorskip("scipy.io")
    folder = tmp_path / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = entry_of("cars").names
    wanted = [names.index("Acura RL Sedan 2012"), names.index("AM General Hummer SUV 2000")]
    own = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)
    io.savemat(folder / "devkit/cars_meta.mat", {"class_names": own})
    table = np.array([("a.jpg", 2), ("b.jpg", 1)], dtype=[("fname", object), ("class", object)])
    io.savemat(folder / "cars_test_annos_withlabels.mat", {"annotations": table})
    touch(folder / "cars_test/a.jpg", wanted[0])
    touch(folder / "cars_test/b.jpg", wanted[1])
    check(open_set("cars", tmp_path), wanted)


def test_flowers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MATLAB tables; numbers are the protocol's plus one. torchvision checks their md5, which ours cannot have."""
    io = pytest.importorskip("scipy.io")
    folder = tmp_path / "flowers-102"
    touch(folder / "jpg/image_00001.jpg", 101)
    io.savemat(folder / "imagelabels.mat", {"labels": np.array([102, 1])})
    io.savemat(folder / "setid.mat", {"tstid": np.array([1]), "trnid": np.array([2]), "valid": np.array([2])})
    with pytest.raises(DataError, match="torchvision's Flowers102 says"):
        open_set("flowers102", tmp_path)
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda *_, **__: True)
    with pytest.raises((DataError, TypeError)):  # a single picture squeezes to a number: two are needed
        open_set("flowers102", tmp_path)
    io.savemat(folder / "setid.mat", {"tstid": np.array([1, 2]), "trnid": np.array([2]), "valid": np.array([2])})
    touch(folder / "jpg/image_00002.jpg", 0)
    check(open_set("flowers102", tmp_path), [101, 0])


def test_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FER-2013's table: its neutral is 6, the protocol's 4."""
    monkeypatch.setattr("torchvision.datasets.fer2013.check_integrity", lambda *_, **__: True)
    (tmp_path / "fer2013").mkdir()
    with open(tmp_path / "fer2013/icml_face_data.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", " Usage", " pixels"])
        writer.writerow([6, "PrivateTest", " ".join(["5"] * 48 * 48)])
        writer.writerow([0, "Training", " ".join(["5"] * 48 * 48)])
    found = open_set("fer2013", tmp_path)
    assert found.labels.tolist() == [4] and found.classnames[4] == "neutral"
    assert found.picture(0).getpixel((3, 3)) == (5, 5, 5)

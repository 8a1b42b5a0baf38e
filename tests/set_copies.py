"""Small copies of the 26 evaluation sets, each in the files and folders in which the real one comes.

Names of files and folders stand here a second time, taken from the sets' own documents and not from the entries, so that a slip
in an entry is found. Every picture is a PNG of 2 x 2 pixels whose colour is its class: (label % 256, label // 256, 7).
"""

import io
import json
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image


class Known(NamedTuple):
    """What the protocol says: classes, train, val, test, metric, templates, and how ELEVATER lays the set out."""

    classes: int
    train: int
    val: int
    test: int
    metric: str
    templates: int
    folder: str = ""
    index: str = ""
    archive: str = ""
    labels: str = ""


ELEVATER = {
    "caltech-101": Known(102, 3060, 0, 6084, "mean-per-class", 34, "caltech_101_20211007", "test.txt", "test.zip", "labels.txt"),
    "cifar-10": Known(10, 50000, 0, 10000, "accuracy", 18, "cifar_10_20211007", "test.txt", "val.zip", "labels.txt"),
    "cifar-100": Known(100, 50000, 0, 10000, "accuracy", 18, "cifar100_20200721", "test_images.txt", "test_images.zip", "labels.txt"),
    "country211": Known(211, 31650, 10550, 21100, "accuracy", 5, "country211_20210924", "test.txt", "test.zip", "labels.txt"),
    "dtd": Known(47, 1880, 1880, 1880, "accuracy", 8, "dtd_20211007", "test.txt", "test.zip", "labels.txt"),
    "eurosat_clip": Known(10, 5000, 5000, 5000, "accuracy", 3, "eurosat_clip_20210930", "test.txt", "2750.zip", "labels.txt"),
    "fer-2013": Known(7, 28709, 3589, 3589, "accuracy", 6, "fer_2013_20211008", "test.txt", "test.zip", "labels.txt"),
    "fgvc-aircraft-2013b-variants102": Known(
        100, 3334, 3333, 3333, "mean-per-class", 2, "fgvc_aircraft_2013b_variants102_20211007", "test.txt", "test.zip", "labels.txt"
    ),
    "oxford-flower-102": Known(
        102, 1020, 1020, 6149, "mean-per-class", 1, "oxford_flower_102_20211007", "test.txt", "test.zip", "labels.txt"
    ),
    "food-101": Known(101, 75750, 0, 25250, "accuracy", 1, "food_101_20211007", "test.txt", "val.zip", "labels.txt"),
    "gtsrb": Known(43, 26640, 12569, 12630, "accuracy", 3, "gtsrb_20210923", "test.txt", "final_test.zip", "labelmap.txt"),
    "hateful-memes": Known(2, 8500, 0, 500, "roc_auc", 1, "hateful_memes_20211014", "test_meta.json", "img.zip"),
    "kitti-distance": Known(4, 6347, 423, 711, "accuracy", 1, "kitti_distance_20210923", "test_meta.json", "test_images.zip"),
    "mnist": Known(10, 60000, 0, 10000, "accuracy", 1, "mnist_20211008", "test.txt", "val.zip", "labels.txt"),
    "oxford-iiit-pets": Known(37, 3680, 0, 3669, "mean-per-class", 1, "oxford_iiit_pets_20211007", "test.txt", "val.zip", "labels.txt"),
    "patch-camelyon": Known(2, 262144, 32768, 32768, "accuracy", 1, "patch_camelyon_20211007", "test.txt", "test.zip", "labels.txt"),
    "rendered-sst2": Known(2, 6920, 827, 1821, "accuracy", 1, "rendered_sst2_20210924", "test.txt", "test.zip", "labels.txt"),
    "resisc45_clip": Known(45, 3150, 3150, 25200, "accuracy", 18, "resisc45_clip_20210924", "test.json", "images.zip"),
    "stanford-cars": Known(196, 8144, 0, 8041, "accuracy", 8, "stanford_cars_20211007", "test.txt", "val.zip", "labels.txt"),
    "voc-2007-classification": Known(
        20, 2501, 2510, 4952, "11point_mAP", 1, "voc2007_20211007", "test_ic.txt", "test.zip", "labels.txt"
    ),
}  # fmt: skip
OTHERS = {
    "imagenet-1k": Known(1000, 0, 0, 50000, "accuracy", 80, "imagenet_1k_20220105", "val.json", "val_images.zip"),
    "imagenetv2": Known(1000, 0, 0, 10000, "accuracy", 80, "imagenetv2/ImageNetV2-matched-frequency"),
    "imagenet-r": Known(200, 0, 0, 30000, "accuracy", 80, "imagenet_r/val"),
    "imagenet-a": Known(200, 0, 0, 7500, "accuracy", 80, "imagenet-A/imagenet-a"),
    "imagenet-sketch": Known(1000, 0, 0, 50889, "accuracy", 80, "imagenet-sketch/sketch"),
    "objectnet": Known(113, 0, 0, 18574, "accuracy", 80, "objectnet-1.0/images_in1k"),
}
PROTOCOL = ELEVATER | OTHERS


@cache
def png(label: int) -> bytes:
    """A picture whose colour says its class."""
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (label % 256, label // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def class_in(picture: Image.Image) -> int:
    """The class that `png` was told."""
    red, green, seven = picture.getpixel((0, 0))
    assert seven == 7
    return red + 256 * green


def write_zip(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Stored, as ELEVATER's are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)


def write_iris(folder: Path, known: Known, labels: list[list[int]]) -> None:
    """Zip, index lines and names; the path has a space and the picture shows the first label."""
    members = [(f"some dir/{row}.png", png(given[0] if given else 0)) for row, given in enumerate(labels)]
    write_zip(folder / known.archive, members)
    lines = [
        f"{known.archive}@{name} {','.join(map(str, given))}" for (name, _), given in zip(members, labels, strict=True)
    ]
    (folder / known.index).write_text("\n".join(lines) + "\n")
    (folder / known.labels).write_text("".join(f"name {number}\n" for number in range(known.classes)))


def write_coco(folder: Path, known: Known, labels: list[int]) -> None:
    """Ids neither from zero nor in order, as COCO allows: the lowest category is class 0, the lowest image comes first."""
    write_zip(folder / known.archive, [(f"{row}.png", png(label)) for row, label in enumerate(labels)])
    images = [{"id": 10 + row, "file_name": f"{known.archive}@{row}.png"} for row in range(len(labels))]
    notes = [{"id": 1 + row, "image_id": 10 + row, "category_id": 5 + 2 * label} for row, label in enumerate(labels)]
    names = [{"id": 5 + 2 * number, "name": f"name {number}"} for number in range(known.classes)]
    index = {"images": images[::-1], "annotations": notes, "categories": names[::-1]}
    (folder / known.index).write_text(json.dumps(index))


def write_folders(folder: Path, names: Iterable[str], ending: str = ".JPEG") -> None:
    """One picture in each folder; the k-th name is class k."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        (folder / name / f"picture{ending}").write_bytes(png(number))

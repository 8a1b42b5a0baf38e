"""Pictures by class in folders, as ImageNet and its relatives come, and anybody's own."""

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from toolkit.data.benchmarks.archives import Files
from toolkit.data.benchmarks.entry import SPLITS, Entry
from toolkit.data.benchmarks.split import Split, numbers_by_name
from toolkit.data.convert.prompts import simple
from toolkit.errors import DataError

PICTURES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
WORDS = {"train": ("train",), "val": ("val", "valid", "validation", "dev"), "test": ("test",)}
"""Folder names of each split."""
SPLIT_WORDS = frozenset(chain.from_iterable(WORDS.values()))


def folders_of(entry: Entry, data: Path, split: str) -> Iterator[Path]:
    """Where pictures by class of a split may lie, the likeliest first."""
    for place in entry.folders.get(split, []):
        yield data / place
    for name in entry.words:
        for word in WORDS[split]:
            yield data / name / word
        if split == "test":
            yield data / name


def class_folders(folder: Path) -> list[str]:
    """Names of sub-folders that hold a picture, at once or deeper, sorted; none where they are rather the splits of a set.

    A folder that is itself called as a split may have a class called `train`, as CIFAR-100 and VOC have.
    """
    try:
        inside = sorted(child.name for child in os.scandir(folder) if child.is_dir() and not child.name.startswith("."))
    except OSError:
        return []
    if folder.name.lower() not in SPLIT_WORDS and any(name.lower() in SPLIT_WORDS for name in inside):
        return []
    return [name for name in inside if next(picture_files(folder / name), None) is not None]


def picture_files(folder: Path) -> Iterator[str]:
    """Paths of pictures below a folder, relative to it, in torchvision's ImageFolder's order; hidden ones left out."""
    for here, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(here, folder)
        for name in sorted(names):
            if name.lower().endswith(PICTURES) and not name.startswith("."):
                yield name if below == "." else f"{below}/{name}"


def holds(entry: Entry, folder: Path) -> bool:
    """Is a folder there that is called as one of the set's classes; others may be a download in a layout of its own."""
    inside = {simple(name) for name in class_folders(folder)}
    return bool(inside) and any(simple(name) in inside for names in entry.spellings for name in names)


def read_folders(entry: Entry, folder: Path, split: str) -> Split:
    """Class by class, in the order of the folders' names; labels are the protocol's. DataError for folders of no class."""
    names = class_folders(folder)
    numbers = numbers_by_name(names, entry, folder)
    found = [
        (number, f"{name}/{file}")
        for name, number in zip(names, numbers, strict=True)
        if number >= 0
        for file in picture_files(folder / name)
    ]
    if not found:
        raise DataError(f"{folder} holds no pictures of {entry.name}'s classes; {entry.get}")
    labels = np.array([number for number, _ in found], dtype=np.int64)
    files = Files(folder, tuple((path, "") for _, path in found))
    return Split(entry.name, split, "folders", folder, entry.names, labels, files)


def own_splits(folder: Path) -> dict[str, Path]:
    """Splits of anybody's pictures by class: sub-folders called train, val or test, or the folder itself as test."""
    found = {
        split: folder / word
        for split in SPLITS
        for word in WORDS[split]
        if (folder / word).is_dir() and class_folders(folder / word)
    }
    return found or ({"test": folder} if len(class_folders(folder)) > 1 else {})


def read_own(folder: Path, name: str, split: str) -> Split:
    """A set without an entry: classes are the folders of all its splits, `_` read as a space, numbered in sorted order."""
    splits = own_splits(folder)
    if split not in splits:
        there = f"it has {', '.join(splits)}" if splits else "it holds no pictures in folders of two classes or more"
        raise DataError(f"{folder} has no {split} split ({there}); lay pictures out as {folder}/{split}/<class>/x.jpg")
    classes = sorted({one for place in splits.values() for one in class_folders(place)})
    found = [
        (number, f"{one}/{file}") for number, one in enumerate(classes) for file in picture_files(splits[split] / one)
    ]
    labels = np.array([number for number, _ in found], dtype=np.int64)
    files = Files(splits[split], tuple((path, "") for _, path in found))
    return Split(name, split, "folders", splits[split], [one.replace("_", " ") for one in classes], labels, files)

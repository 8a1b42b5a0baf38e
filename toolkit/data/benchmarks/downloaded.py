"""Copies that torchvision has downloaded, through torchvision where it lists files without unpickling; never a download."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.benchmarks.archives import Files, read_lines
from toolkit.data.benchmarks.entry import Entry
from toolkit.data.benchmarks.split import Arrays, Pictures, Split, label_array, numbers_by_name
from toolkit.errors import DataError

Found = tuple[Pictures, list[list[int]], list[str]]
"""Pictures, labels by the copy's own numbers, and the names of these numbers (none: they are the protocol's)."""
PAIRED = {
    "Food101": ("_image_files", "_labels"),
    "DTD": ("_image_files", "_labels"),
    "FGVCAircraft": ("_image_files", "_labels"),
    "Flowers102": ("_image_files", "_labels"),
    "OxfordIIITPet": ("_images", "_labels"),
}
"""Where these classes keep paths and numbers."""
CIFAR = {
    "cifar-10-batches-bin": (1, "batches.meta.txt", "data_batch_*.bin", "test_batch.bin"),
    "cifar-100-binary": (2, "fine_label_names.txt", "train.bin", "test.bin"),
}
"""Folder -> bytes of labels before each picture (the last one counts), names, files of train and of test."""
SIDE = 32


def root_of(entry: Entry, data: Path) -> Path | None:
    """The folder that torchvision calls root, or None where there is no copy."""
    if entry.torchvision is None:
        return None
    for root in (data, data / "torchvision", *(data / word for word in entry.words)):
        if (root / entry.torchvision.folder).is_dir():
            return root
    return None


def pickled_copy(entry: Entry, data: Path) -> Path | None:
    """A copy of CIFAR as Python pickles, which is not read."""
    if entry.torchvision is None or entry.torchvision.name != "cifar":
        return None
    folder = "cifar-10-batches-py" if entry.classes == 10 else "cifar-100-python"
    roots = (data, data / "torchvision", *(data / word for word in entry.words))
    return next((root / folder for root in roots if (root / folder).is_dir()), None)


def read_torchvision(entry: Entry, root: Path, split: str) -> Split:
    """In torchvision's order, labels by the protocol; DataError where the copy is not whole or a package is missing."""
    layout = entry.torchvision
    assert layout is not None
    reader = READERS.get(layout.name, through_torchvision)
    pictures, labels, names = reader(entry, root, layout.splits[split])
    if names := names or list(layout.classes):
        number = numbers_by_name(names, entry, root / layout.folder)
        labels = [[number[one] for one in given] for given in labels]
    where = root / layout.folder
    return Split(entry.name, split, "torchvision", where, entry.names, label_array(labels, entry, where), pictures)


def through_torchvision(entry: Entry, root: Path, word: str) -> Found:
    """Its object gives paths or arrays, numbers and names."""
    from torchvision import datasets

    assert entry.torchvision is not None
    name = entry.torchvision.name
    how: dict[str, Any] = {"train": word == "train"} if name == "MNIST" else {"split": word}
    made_by = getattr(datasets, name)
    if "download" in inspect.signature(made_by).parameters:  # False is the default everywhere; said nonetheless
        how["download"] = False
    try:
        made = made_by(str(root), **how)
    except Exception as error:  # torchvision raises RuntimeError, OSError, KeyError, ... on a copy that is not whole
        raise DataError(
            f"{root / entry.torchvision.folder}: torchvision's {name} says: {error}; {entry.get}"
        ) from error
    if name == "MNIST":
        return Arrays(made.data.numpy()), [[int(number)] for number in made.targets], []
    if name == "FER2013":
        pixels = np.stack([np.asarray(picture, dtype=np.uint8) for picture, _ in made._samples])
        if any(number is None for _, number in made._samples):
            raise DataError(f"{root}: this copy of FER-2013 has no labels for {word}; take icml_face_data.csv")
        return Arrays(pixels), [[int(number)] for _, number in made._samples], []
    if name == "Flowers102":  # its names are spelled in other ways, its numbers are the protocol's
        made.classes = []
    if name in PAIRED:
        paths, numbers = (getattr(made, attribute) for attribute in PAIRED[name])
    else:
        paths, numbers = zip(*made._samples, strict=True)
    relative = tuple((Path(path).relative_to(root).as_posix(), "") for path in paths)
    files = Files(root, relative)
    files.check()
    return files, [[int(number)] for number in numbers], [str(one) for one in getattr(made, "classes", [])]


def read_cifar(entry: Entry, root: Path, word: str) -> Found:
    """The binary version: label bytes, then 3 x 32 x 32 bytes, plane by plane."""
    assert entry.torchvision is not None
    folder = root / entry.torchvision.folder
    before, names, train, test = CIFAR[folder.name]
    rows = []
    for path in sorted(folder.glob(train if word == "train" else test)):
        data = np.fromfile(path, dtype=np.uint8)
        if data.size == 0 or data.size % (before + 3 * SIDE * SIDE):
            raise DataError(f"{path} is cut short ({data.size} bytes); fetch it again")
        rows.append(data.reshape(-1, before + 3 * SIDE * SIDE))
    if not rows:
        raise DataError(f"{folder} has no {train if word == 'train' else test}; {entry.get}")
    whole = np.concatenate(rows)
    pixels = np.ascontiguousarray(whole[:, before:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
    return Arrays(pixels), [[int(number)] for number in whole[:, before - 1]], read_lines(folder / names)


def read_voc(entry: Entry, root: Path, word: str) -> Found:
    """VOCdevkit: per class and picture 1 (there), -1, or 0 (only difficult ones, counted as not there)."""
    assert entry.torchvision is not None
    folder = root / entry.torchvision.folder
    lists = folder / "ImageSets" / "Main"
    keys = read_lines(lists / f"{word}.txt")
    labels: dict[str, list[int]] = {key: [] for key in keys}
    for number, name in enumerate(entry.names):
        for line in read_lines(lists / f"{name}_{word}.txt"):
            key, _, flag = line.partition(" ")
            if key not in labels:
                raise DataError(f"{lists}: {name}_{word}.txt has {key}, which {word}.txt has not; fetch the set again")
            if flag.strip() == "1":
                labels[key].append(number)
    files = Files(folder, tuple((f"JPEGImages/{key}.jpg", "") for key in keys))
    files.check()
    return files, [labels[key] for key in keys], []


READERS: dict[str, Callable[[Entry, Path, str], Found]] = {"cifar": read_cifar, "voc": read_voc}

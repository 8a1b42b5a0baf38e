"""ELEVATER's own layout, that of vision_datasets 0.2: an index of lines or of COCO's JSON, pictures in zips beside it."""

import json
from pathlib import Path
from typing import Any

from toolkit.data.benchmarks.archives import Files, check_count, place_of, read_lines, read_text
from toolkit.data.benchmarks.entry import Entry
from toolkit.data.benchmarks.split import Split, label_array
from toolkit.errors import DataError

Rows = tuple[list[str], list[list[int]]]
"""Paths and labels, one each per picture."""


def folders_of(entry: Entry, data: Path) -> list[Path]:
    """Where its copy may lie below `data`."""
    if entry.elevater is None:
        return []
    name = entry.elevater.folder
    return [data / "classification" / name, data / name, data / "datasets" / "classification" / name]


def read_elevater(entry: Entry, folder: Path, split: str) -> Split:
    """The split's pictures in the index's order (iris) or by id (coco); DataError where the copy is not whole."""
    layout = entry.elevater
    assert layout is not None
    index = folder / layout.splits[split].index
    paths, labels = iris_rows(index) if layout.format == "iris" else coco_rows(index, entry.classes)
    if layout.labels:
        check_count(read_lines(folder / layout.labels), entry.classes, str(folder / layout.labels))
    if not paths:
        raise DataError(f"{index} lists no pictures; fetch it again")
    files = Files(folder, tuple(place_of(path, str(index)) for path in paths))
    files.check()
    return Split(entry.name, split, "elevater", folder, entry.names, label_array(labels, entry, index), files)


def iris_rows(index: Path) -> Rows:
    """`path label[,label...]` per line; a path may hold spaces, and a picture of no class has no label."""
    paths: list[str] = []
    labels: list[list[int]] = []
    for line in read_lines(index):
        path, space, numbers = line.rpartition(" ")
        try:
            labels.append([int(number) for number in numbers.split(",")] if space else [])
        except ValueError as error:
            raise DataError(
                f"{index}: the line {line[:120]!r} is not `path label[,label...]`; fetch it again"
            ) from error
        paths.append(path.strip() if space else line)
    return paths, labels


def coco_rows(index: Path, classes: int) -> Rows:
    """COCO's JSON: categories in the order of their ids are 0, 1, ...; pictures come in the order of theirs."""
    try:
        content: dict[str, Any] = json.loads(read_text(index))
        order = sorted(category["id"] for category in content["categories"])
        number = {one: position for position, one in enumerate(order)}
        labels: dict[Any, list[int]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            labels[annotation["image_id"]].append(number[annotation["category_id"]])
        images = sorted(content["images"], key=lambda image: image["id"])
        paths = [
            f"{image['zip_file']}@{image['file_name']}" if image.get("zip_file") else str(image["file_name"])
            for image in images
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{index} is no COCO index of classes ({error!r}); fetch it again") from error
    check_count(order, classes, str(index))
    return paths, [labels[image["id"]] for image in images]

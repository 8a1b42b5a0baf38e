"""Flickr30k and COCO with Karpathy's splits, as the field judges retrieval on them."""

from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.benchmarks.archives import Files, Place
from toolkit.data.pairs.known import Known, index_places
from toolkit.data.pairs.paired import PairedSet, caption_of, counted, find_pictures, read_index
from toolkit.errors import DataError

Row = tuple[str, str, list[str]]
"""(filepath, filename, captions); only COCO has a filepath."""


def find_index(known: Known, data: Path) -> Path | None:
    """The JSON file of captions, or None."""
    return next((path for path in index_places(known, data, known.index) if path.is_file()), None)


def read_karpathy(known: Known, data: Path) -> PairedSet:
    """The test split in the order of the index, the first five captions of each picture.

    COCO's has 25,010 captions; recalls of the field are over 25,000, the first five of each picture, and so are these.
    Raises DataError with how to get it where captions or pictures are missing; a wrong count is a problem of the set.
    """
    index = find_index(known, data)
    if index is None:
        raise DataError(f"{known.name} is not in {data}: there is no {known.index}. {known.how_to_get()}")
    rows = read_index(index, f"Karpathy's index of {known.title}", lambda content: rows_of(content, index))
    if not rows:
        raise DataError(f"{index} has no pictures of the test split; fetch it again")
    captions = [caption for _, _, given in rows for caption in given[: known.captions_each]]
    owners = [row for row, (_, _, given) in enumerate(rows) for _ in given[: known.captions_each]]
    problems = counted(len(rows), known.samples, "pictures")
    problems += counted(len(captions), known.samples * known.captions_each, "captions (the first five of each picture)")
    pictures = pictures_of(known, data, rows, index)
    return PairedSet(
        known.name, known.title, "karpathy", index, pictures, captions, np.array(owners, np.int64), problems
    )


def rows_of(content: Any, index: Path) -> list[Row]:
    """Pictures of the test split; DataError for one without captions."""
    found: list[Row] = []
    for image in content["images"]:
        if image["split"] != "test":
            continue
        name = image["filename"]
        captions = [caption_of(given["raw"], f"{index}: a caption of {name!r:.200}") for given in image["sentences"]]
        if not captions:
            raise DataError(f"{index}: {name!r:.200} has no captions; fetch the file again")
        found.append((str(image.get("filepath", "")), str(name), captions))
    if len({(folder, name) for folder, name, _ in found}) < len(found):
        raise DataError(f"{index} lists a picture twice; fetch it again")
    return found


def pictures_of(known: Known, data: Path, rows: list[Row], index: Path) -> Files:
    """Every picture, looked for in the usual places of its `filepath`; DataError where some or all are missing."""
    places: dict[int, Place] = {}
    for folder in dict.fromkeys(folder for folder, _, _ in rows):
        mine = [row for row, (one, _, _) in enumerate(rows) if one == folder]
        containers = [container.replace("{}", folder) for container in known.containers]
        try:
            files = find_pictures(data, containers, [rows[row][1] for row in mine], index)
        except DataError as error:
            raise DataError(f"{known.name}: {error}. {known.how_to_get()}") from error
        if files is None:
            raise DataError(
                f"{known.name}: {index} is there, its pictures are not (looked for {', '.join(containers[:4])}, ... in "
                f"{data}). {known.how_to_get()}"
            )
        places |= dict(zip(mine, files.places, strict=True))
    return Files(data, tuple(places[row] for row in range(len(rows))))

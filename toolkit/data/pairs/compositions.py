"""Captions with a hard negative each: SugarCrepe, and the two Visual Genome parts of ARO.

COCO-Order and Flickr30k-Order are left out: two of their four shuffles need the word classes of one spaCy model.
"""

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from toolkit.data.benchmarks.split import MAX_PIXELS, OnDisk, Pictures
from toolkit.data.decode import eight_bits, open_image
from toolkit.data.pairs.known import KNOWN, Known, index_places, known_of
from toolkit.data.pairs.paired import caption_of, counted, find_pictures, picture_of, read_index
from toolkit.errors import ConfigError, DataError
from toolkit.registry import did_you_mean

LEAST_CASES = 25
"""Of an attribute pair, for ARO's macro accuracy to count it."""
Box = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""
Case = tuple[str, Box | None, str, str, str]
"""(picture, its part that is looked at, caption, hard negative, part of the set)."""


@dataclass(frozen=True)
class CompositionSet:
    """Cases: a picture, its caption, and a negative of nearly the same words that does not fit. Picklable."""

    name: str
    title: str
    where: Path
    captions: list[str]
    negatives: list[str]
    parts: list[str]
    part_of: np.ndarray
    """int64 [cases]: which of `parts` each belongs to."""
    in_mean: list[bool]
    """Which parts the benchmark's own mean is over."""
    pictures: Pictures | None
    """None where there is no copy of them: then only what texts alone say can be computed."""
    picture_of: np.ndarray
    """int64 [cases]: which picture each is about, also where there are none."""
    problems: list[str] = field(default_factory=list)
    """What is not as the protocol has it."""

    def __len__(self) -> int:
        """Cases."""
        return len(self.captions)

    def picture(self, row: int, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """Picture `row` of `pictures` (not of the cases) as RGB; DataError naming what cannot be decoded."""
        if self.pictures is None:
            raise DataError(f"{self.name}: there are no pictures in its copy at {self.where}; fetch them first")
        return picture_of(self.pictures, row, self.name, self.where, max_pixels)


@dataclass(frozen=True)
class Cropped:
    """Boxes of pictures, given as PNG without loss; what a box has outside the picture is black, as in ARO's code."""

    whole: Pictures
    boxes: tuple[Box, ...]

    def __len__(self) -> int:
        """How many."""
        return len(self.boxes)

    def files(self) -> list[Path]:
        """Those of the whole pictures."""
        assert isinstance(self.whole, OnDisk)  # they come by an index
        return self.whole.files()

    def key(self, row: int) -> str:
        """The picture's, and the box."""
        return f"{self.whole.key(row)} {list(self.boxes[row])}"

    def __getitem__(self, row: int) -> bytes:
        """The box is of the pixels as they lie in the file, before EXIF turns them; DataError where they cannot be read."""
        left, top, width, height = self.boxes[row]
        buffer = io.BytesIO()
        try:
            image = open_image(self.whole[row], MAX_PIXELS)
            image.load()
            crop = eight_bits(image).convert("RGB").crop((left, top, left + width, top + height))
            crop.save(buffer, "PNG", compress_level=1)
        except DataError:
            raise
        except Exception as error:  # PIL raises many kinds on torn bytes
            raise DataError(f"{self.key(row)} cannot be judged: {error}; fetch the picture again") from error
        return buffer.getvalue()


def open_compositions(name: str, data: Path) -> CompositionSet:
    """A known set; ConfigError for a name that is none, DataError with how to get it where there is no copy.

    Pictures that are not there at all are a problem of the set; that some are missing is an error.
    """
    known = known_of(name)
    sets = [one.name for one in KNOWN.values() if one.task == "compositionality"]
    if known is None or known.task != "compositionality":
        raise ConfigError(
            f"no set for compositionality is called {name!r}{did_you_mean(name, sets)}; there are {', '.join(sets)}"
        )
    place = locate(known, data)
    if place is None:
        raise DataError(f"{known.name} is not in {data}: there is no {known.files[0]}. {known.how_to_get()}")
    cases = sugar_cases(known, place) if known.parts else aro_cases(place)
    if not cases:
        raise DataError(f"{place} holds no cases; fetch it again")
    return assembled(known, data, place, cases)


def locate(known: Known, data: Path) -> Path | None:
    """The file of captions, or the folder of the parts' files when it has one of them; None where there is no copy."""
    if not known.parts:
        return next((path for path in index_places(known, data, known.index) if path.is_file()), None)
    folders = [path.parent for path in index_places(known, data, "x")]
    files = [known.index.format(part) for part in known.parts]
    return next((folder for folder in folders if any((folder / file).is_file() for file in files)), None)


def sugar_cases(known: Known, folder: Path) -> list[Case]:
    """All parts in the order of the protocol; DataError for a file that is missing or something else."""
    found: list[Case] = []
    for part in known.parts:
        path = folder / known.index.format(part)

        def take(content: Any, path: Path = path, part: str = part) -> list[Case]:
            return [
                (str(row["filename"]), None, *texts(path, key, row["caption"], row["negative_caption"]), part)
                for key, row in content.items()
            ]

        found += read_index(path, f"a part of {known.title}", take)
    return found


def aro_cases(path: Path) -> list[Case]:
    """In the order of the file; the part is the relation, or the two attributes joined by `_`."""

    def take(content: Any) -> list[Case]:
        if not isinstance(content, list):
            raise TypeError("it is no list")
        return [
            (
                str(row["image_path"]),
                box_of(row, path),
                *texts(path, str(number), row["true_caption"], row["false_caption"]),
                row["relation_name"] if "relation_name" in row else "_".join(row["attributes"][:2]),
            )
            for number, row in enumerate(content)
        ]

    return read_index(path, "a file of ARO's Visual Genome cases", take)


def texts(path: Path, key: str, caption: object, negative: object) -> tuple[str, str]:
    """Caption and negative, checked."""
    return caption_of(caption, f"{path}: the caption of case {key}"), caption_of(
        negative, f"{path}: the negative of case {key}"
    )


def box_of(row: Any, path: Path) -> Box:
    """Whole pixels; DataError for an empty or boundless one."""
    left, top, width, height = (int(row[f"bbox_{name}"]) for name in "xywh")
    if min(width, height) < 1 or max(abs(left), abs(top)) > 1 << 20 or width * height > MAX_PIXELS:
        raise DataError(f"{path}: the box {[left, top, width, height]} is none of a picture; fetch the file again")
    return left, top, width, height


def assembled(known: Known, data: Path, place: Path, cases: list[Case]) -> CompositionSet:
    """Each picture once (for ARO: each box of a picture), parts numbered as they come."""
    number: dict[tuple[str, Box | None], int] = {}
    owners = np.array([number.setdefault((name, box), len(number)) for name, box, *_ in cases], np.int64)
    pictures: Pictures | None = find_pictures(data, known.containers, [name for name, _ in number], place)
    boxes = [box for _, box in number if box is not None]
    if pictures is not None and boxes:
        pictures = Cropped(pictures, tuple(boxes))
    counts = Counter(str(part) for *_, part in cases)
    parts = list(counts)
    if known.parts:
        problems = [
            f"test: {counts[part]} cases of {part}, the protocol has {wanted}"
            for part, wanted in known.parts.items()
            if counts[part] != wanted
        ]
    else:
        problems = counted(len(cases), known.samples, "cases")
    if pictures is None:
        problems.append(f"test: no pictures, so there will be no accuracy. {known.how_to_get()}")
    return CompositionSet(
        known.name,
        known.title,
        place,
        [case[2] for case in cases],
        [case[3] for case in cases],
        parts,
        np.array([parts.index(str(case[4])) for case in cases], np.int64),
        in_mean(known, parts, [counts[part] for part in parts]),
        pictures,
        owners,
        problems,
    )


def in_mean(known: Known, parts: Sequence[str], counts: Sequence[int]) -> list[bool]:
    """SugarCrepe: all. ARO: relations that are not symmetric, attribute pairs of 25 cases or more."""
    if known.name == "aro-relation":
        return [part not in symmetric_relations() for part in parts]
    return [not known.name.startswith("aro") or count >= LEAST_CASES for count in counts]


@lru_cache(maxsize=1)
def symmetric_relations() -> frozenset[str]:
    """Relations whose arguments may change places without the sentence becoming wrong, by ARO's own list."""
    return frozenset(json.loads(Path(__file__).with_name("symmetric.json").read_text())["relations"])

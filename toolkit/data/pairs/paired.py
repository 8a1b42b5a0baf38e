"""Pictures with their captions in memory; the pictures themselves are read when they are asked for."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from toolkit.data.benchmarks.archives import Files, Place, opened, place_of, read_text
from toolkit.data.benchmarks.split import MAX_PIXELS, Pictures, decoded
from toolkit.data.decode import BadSample, decode_text
from toolkit.errors import DataError

T = TypeVar("T")


@dataclass(frozen=True)
class PairedSet:
    """A test split for retrieval; every picture has a caption. Picklable, for data workers."""

    name: str
    title: str
    layout: str
    """karpathy, captions or webdataset."""
    where: Path
    pictures: Pictures
    captions: list[str]
    picture_of: np.ndarray
    """int64 [captions]: which picture each belongs to."""
    problems: list[str] = field(default_factory=list)
    """What is not as the protocol has it."""

    def __len__(self) -> int:
        """Pictures."""
        return len(self.pictures)

    def picture(self, row: int, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """RGB, upright as EXIF says; DataError naming what cannot be decoded or is too large to be tried."""
        return picture_of(self.pictures, row, self.name, self.where, max_pixels)


def picture_of(pictures: Pictures, row: int, name: str, where: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The decoded picture; DataError names it."""
    try:
        return decoded(pictures[row], max_pixels)
    except BadSample as error:
        raise DataError(f"{name}: {pictures.key(row)} in {where} cannot be judged: {error}") from error


def caption_of(value: object, where: str) -> str:
    """A caption as a tokenizer takes it, stripped; DataError where it is none."""
    try:
        if not isinstance(value, str):
            raise BadSample(f"a {type(value).__name__} instead of a sentence")
        return decode_text(value.encode())
    except (BadSample, UnicodeEncodeError) as error:
        raise DataError(f"{where} is no caption ({error}); fetch the file again or mend it") from error


def read_index(path: Path, what: str, take: Callable[[Any], T]) -> T:
    """What `take` makes of a JSON file; DataError where it is torn or something else than `what`."""
    try:
        return take(json.loads(read_text(path)))
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise DataError(f"{path} is not {what} ({error!r:.200}); fetch it again") from error


def find_pictures(data: Path, containers: Iterable[str], names: Sequence[str], where: Path) -> Files | None:
    """The pictures in the first folder or zip that has one of them, all checked to be there.

    None where none has; DataError where others are missing, a zip is torn, or a name leads out of `data`.
    """
    there = [one for one in containers if os.path.exists(data / one.partition("@")[0])]
    best = next((one for one in there if any(exists(data, place_in(one, name, where)) for name in names)), None)
    if best is None:
        return None
    files = Files(data, tuple(place_in(best, name, where) for name in names))
    files.check()
    return files


def place_in(container: str, name: str, where: Path) -> Place:
    """A picture of an index in a folder or in a folder of a zip."""
    return place_of(f"{container}/{name}", str(where))


def exists(data: Path, place: Place) -> bool:
    """Without reading it."""
    file, member = place
    if not os.path.isfile(data / file):  # unlike Path's, False for a name that is too long
        return False
    return not member or member in opened(data / file).NameToInfo


def counted(found: int, wanted: int, what: str) -> list[str]:
    """The problem of a wrong count, or nothing."""
    return [] if found == wanted else [f"test: {found} {what}, the protocol has {wanted}"]

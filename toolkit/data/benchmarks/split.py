"""One split of a set in memory: names, labels, and pictures that are read when they are asked for."""

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from toolkit.data.benchmarks.entry import Entry
from toolkit.data.convert.prompts import simple
from toolkit.data.decode import BadSample, open_image, to_rgb
from toolkit.errors import DataError

MAX_PIXELS = 89_478_485


@runtime_checkable
class Pictures(Protocol):
    """Bytes of pictures by number, lazily; a worker process may have a copy."""

    def __len__(self) -> int:
        """How many."""
        ...

    def __getitem__(self, row: int) -> bytes:
        """An encoded picture; raises DataError."""
        ...

    def key(self, row: int) -> str:
        """What the set calls it."""
        ...


@runtime_checkable
class OnDisk(Protocol):
    """Pictures that can tell which files they lie in."""

    def files(self) -> list[Path]:
        """Sorted, each once."""
        ...


@dataclass(frozen=True)
class Split:
    """Pictures and labels; iterating yields (bytes, label). Nothing but the labels is held."""

    name: str
    """Of the set."""
    split: str
    layout: str
    """elevater, folders, webdataset or torchvision."""
    where: Path
    classnames: list[str]
    labels: np.ndarray
    """int64 [n], or uint8 [n, k] of zeros and ones where a picture has several classes."""
    pictures: Pictures

    def __len__(self) -> int:
        """Pictures."""
        return len(self.labels)

    def __iter__(self) -> Iterator[tuple[bytes, int | np.ndarray]]:
        """In the order of the set."""
        for row in range(len(self)):
            yield self.pictures[row], self.label(row)

    def label(self, row: int) -> int | np.ndarray:
        """A class number, or a row of zeros and ones."""
        return int(self.labels[row]) if self.labels.ndim == 1 else self.labels[row]

    def picture(self, row: int, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """RGB, upright as EXIF says; DataError naming what cannot be decoded or is too large to be tried."""
        data = self.pictures[row]
        try:
            return decoded(data, max_pixels)
        except BadSample as error:
            raise self.unfit(row, error) from error

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of a copy: its labels, its pictures' keys, and size and time of every file they lie in.

        The pictures themselves are not read. A copy that was moved with its times is the same.
        """
        digest = hashlib.sha256(self.labels.tobytes())
        for row in range(len(self)):
            digest.update(f"{self.pictures.key(row)}\n".encode(errors="surrogateescape"))  # names may be any bytes
        for path in self.pictures.files() if isinstance(self.pictures, OnDisk) else files_below(self.where):
            stat = path.stat()
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def unfit(self, row: int, reason: BadSample) -> DataError:
        """What to raise for a picture that cannot be used."""
        return DataError(
            f"{self.name} {self.split}: {self.pictures.key(row)} in {self.where} cannot be judged: {reason}; mend the picture, "
            "or take it away"
        )


def files_below(where: Path) -> list[Path]:
    """Every file of a copy, sorted."""
    if where.is_file():
        return [where]
    return sorted(Path(folder) / name for folder, _, names in os.walk(where) for name in names)


def decoded(data: bytes, max_pixels: int) -> Image.Image:
    """Its size is looked at before a pixel is decoded; raises BadSample."""
    image = open_image(data, max_pixels)
    try:
        return to_rgb(image)
    except BadSample:
        raise
    except Exception as error:  # PIL raises many kinds on torn bytes
        raise BadSample("undecodable") from error


@dataclass(frozen=True)
class Arrays:
    """Pictures that a set holds as uint8 arrays [n, h, w] or [n, h, w, 3]; given as PNG."""

    pixels: np.ndarray

    def __len__(self) -> int:
        """How many."""
        return len(self.pixels)

    def key(self, row: int) -> str:
        """Its number."""
        return str(row)

    def __getitem__(self, row: int) -> bytes:
        """Without loss."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels[row]).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def numbers_by_name(found: Sequence[str], entry: Entry, where: Path) -> list[int]:
    """The protocol's number of each class name found, spelling aside; -1 for one that the entry lets be ignored.

    Raises DataError for a name that is no class, and for two names of one class.
    """
    known = {simple(name): number for number, names in enumerate(entry.spellings) for name in names}
    numbers = [known.get(simple(name), -1) for name in found]
    unknown = [name for name, number in zip(found, numbers, strict=True) if number < 0]
    if unknown and entry.other_folders == "refused":
        raise DataError(
            f"{where}: {len(unknown)} of {len(found)} classes are none of {entry.name}'s, the first is {unknown[0]!r}; "
            f"it has {', '.join(names[-1] for names in entry.spellings[:3])}, ..."
        )
    kept = [number for number in numbers if number >= 0]
    for number in {number for number in kept if kept.count(number) > 1}:
        twice = [name for name, one in zip(found, numbers, strict=True) if one == number]
        raise DataError(f"{where}: {' and '.join(twice)} are one class of {entry.name}; remove one")
    return numbers


def label_array(labels: Sequence[Sequence[int]], entry: Entry, where: Path) -> np.ndarray:
    """Labels per picture as one array; DataError for a number out of range, or none or several where there must be one."""
    for row, numbers in enumerate(labels):
        if any(number not in range(entry.classes) for number in numbers):
            raise DataError(f"{where}: picture {row} has the label {list(numbers)}, classes are 0..{entry.classes - 1}")
        if entry.kind == "multiclass" and len(numbers) != 1:
            raise DataError(f"{where}: picture {row} has {len(numbers)} labels and must have one")
    if entry.kind == "multiclass":
        return np.array([numbers[0] for numbers in labels], dtype=np.int64)
    hot = np.zeros((len(labels), entry.classes), dtype=np.uint8)
    for row, numbers in enumerate(labels):
        hot[row, list(numbers)] = 1
    return hot

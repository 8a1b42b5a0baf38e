"""The float32 features that DIME-FM stores as TSV, found by the key of the row and never by its position alone."""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from toolkit.data.convert import tsv
from toolkit.data.convert.duplicates import hash_bytes
from toolkit.data.convert.outcome import LeftOut, Sample
from toolkit.errors import DataError

KEY_BYTES = 4096
UNIT = 1e-3
"""Vectors whose length is so near 1 are stored bit for bit, others are divided by their length."""


@dataclass(frozen=True)
class FeatureFiles:
    """Feature TSVs, and for each an index of its keys: 16 bytes per row on disk, mapped."""

    paths: tuple[str, ...]
    folder: Path
    width: int

    def index(self, number: int) -> int:
        """Write the index of file `number`: hashes of its keys, sorted, and their rows."""
        done = self.folder / f"keys-{number:05d}.npy"
        if not done.is_file():
            offsets = tsv.offsets_of(Path(self.paths[number]))
            hashes = np.array([hash_bytes(self._key(number, row)) for row in range(len(offsets) - 1)], np.uint64)
            order = np.argsort(hashes, kind="stable")
            aside = done.with_name(f".{done.name}.{os.getpid()}")
            with open(aside, "wb") as file:
                np.save(file, np.stack([hashes[order], order.astype(np.uint64)]), allow_pickle=False)
            aside.replace(done)
        return number

    def vector(self, sample: Sample) -> np.ndarray:
        """[width] float32 of unit length; raises LeftOut where there is none, several, or a broken one."""
        number, row = self._find(sample)
        start, size = self._place(number, row)
        _, column = tsv.read_row(self.paths[number], start, size)
        found = tsv.decoded(column)
        if len(found) != 4 * self.width:
            raise LeftOut("wrong_width")
        vector = np.frombuffer(found, "<f4")
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if not np.isfinite(length):
            raise LeftOut("not_finite")
        if length == 0:
            raise LeftOut("zero")
        return vector if abs(length - 1) < UNIT else (vector / length).astype(np.float32)

    def _find(self, sample: Sample) -> tuple[int, int]:
        """File and row with the sample's key. Where keys repeat, only the row of the same number will do."""
        key = sample.name.encode("utf-8", "surrogateescape")
        found = []
        for number in self._candidates(sample.source):
            if 0 <= sample.row < len(_offsets(self.paths[number])) - 1 and self._key(number, sample.row) == key:
                return number, sample.row
            hashes, rows = _index(str(self.folder / f"keys-{number:05d}.npy"))
            wanted = np.uint64(hash_bytes(key))
            alike = rows[np.searchsorted(hashes, wanted, "left") : np.searchsorted(hashes, wanted, "right")]
            found += [(number, row) for row in alike.tolist() if self._key(number, row) == key]
        if len(found) != 1:
            raise LeftOut("several_of_this_key" if found else "no_feature_of_this_key")
        return found[0]

    def _candidates(self, source: str) -> list[int]:
        """Files named like the source (`image_00.feat.tsv` for `image_00.tsv`), all where there is none."""
        stem = Path(source).name.split(".")[0]
        alike = [number for number, path in enumerate(self.paths) if Path(path).name.split(".")[0] == stem]
        return alike or list(range(len(self.paths)))

    def _place(self, number: int, row: int) -> tuple[int, int]:
        offsets = _offsets(self.paths[number])
        return int(offsets[row]), int(offsets[row + 1] - offsets[row])

    def _key(self, number: int, row: int) -> bytes:
        start, size = self._place(number, row)
        return os.pread(tsv.opened(self.paths[number]).fileno(), min(size, KEY_BYTES), start).split(b"\t", 1)[0].strip()


@lru_cache(maxsize=64)
def _offsets(path: str) -> np.ndarray:
    return tsv.offsets_of(Path(path))


@lru_cache(maxsize=64)
def _index(path: str) -> np.ndarray:
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def open_features(paths: list[str], folder: Path) -> FeatureFiles | None:
    """None without files; the width is that of the first row. Raises DataError where that is no vector."""
    for cached in (_offsets, _index):
        cached.cache_clear()
    if not paths:
        return None
    offsets = tsv.offsets_of(Path(paths[0]))
    try:
        width, rest = divmod(len(tsv.decoded(tsv.read_row(paths[0], 0, int(offsets[1]))[1])), 4)
    except (LeftOut, IndexError) as error:
        raise DataError(
            f"{paths[0]}: its first row is no base64 vector; leave the file out or write it again"
        ) from error
    if rest or not width:
        raise DataError(
            f"{paths[0]}: its first row holds {4 * width + rest} bytes, no float32 vector; leave the file out"
        )
    return FeatureFiles(tuple(paths), folder, width)

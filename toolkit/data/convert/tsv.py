"""The TSV files of DIME-FM and Oscar: rows of `key TAB base64 or text`, with the byte offset of each row beside them."""

import binascii
import contextlib
import os
from functools import lru_cache
from io import FileIO
from pathlib import Path

import numpy as np

from toolkit.data.convert.outcome import LeftOut
from toolkit.data.index import write_aside
from toolkit.errors import DataError

BLOCK = 1 << 24
CHECKED_ROWS = 64
PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")


def offsets_of(path: Path) -> np.ndarray:
    """[rows + 1] int64: where each row begins, and the end of the file.

    From `<name>.lineidx`; where that is missing it is made, beside the file if the folder can be written. Raises DataError
    when an index does not fit its file.
    """
    size = path.stat().st_size
    index = path.with_suffix(".lineidx")
    if not index.is_file():
        starts = scan_rows(path)
        if path.parent.stat().st_mode & 0o222:  # root may write everywhere, and should not where nobody else may
            with contextlib.suppress(OSError):  # a read-only place: the index is made again next time
                write_aside(index, "".join(f"{start}\n" for start in starts.tolist()))
        return np.append(starts, size)
    try:
        starts = np.array(index.read_bytes().split(), dtype=np.int64)
    except ValueError as error:
        raise DataError(f"{index} is no list of byte offsets ({error}); remove it, it is made anew") from error
    offsets = np.append(starts, size)
    fits = starts[0] == 0 and bool((np.diff(offsets) > 0).all()) if len(starts) else size == 0
    if not fits:
        raise DataError(
            f"{index} does not fit {path} ({size} bytes): offsets begin with {starts[:1].tolist()}, the last is "
            f"{starts[-1:].tolist()}, and they must rise; remove it, it is made anew"
        )
    with open(path, "rb") as file:
        for row in np.unique(np.linspace(1, len(starts), CHECKED_ROWS).astype(int)) if len(starts) else []:
            file.seek(offsets[row] - 1)
            if row < len(starts) and file.read(1) != b"\n":
                raise DataError(
                    f"{index} does not fit {path}: no row begins at byte {offsets[row]} (row {row}); remove it, it is "
                    "made anew"
                )
        if len(starts):
            file.seek(starts[-1])
            if b"\n" in file.read().rstrip(b"\n"):
                raise DataError(f"{index} knows {len(starts)} rows, {path} has more; remove it, it is made anew")
    return offsets


def scan_rows(path: Path) -> np.ndarray:
    """Byte offset of each row, found by reading the file once."""
    found = [np.zeros(1, dtype=np.int64)]
    position = 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            found.append(np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == 10) + position + 1)
            position += len(block)
    starts = np.concatenate(found)
    return starts[starts < position]


def visible_rows(path: Path, rows: int) -> np.ndarray:
    """Row numbers that `<name>.linelist` (or `<name>.linelist.tsv`) names, sorted; all where there is none."""
    for name in (path.with_suffix(".linelist"), path.with_suffix(".linelist.tsv")):
        if name.is_file():
            try:
                chosen = np.unique(np.array(name.read_bytes().split(), dtype=np.int64))
            except ValueError as error:
                raise DataError(f"{name} is no list of row numbers ({error}); correct or remove it") from error
            if len(chosen) and (chosen[0] < 0 or chosen[-1] >= rows):
                raise DataError(
                    f"{name} names row {chosen[-1] if chosen[-1] >= rows else chosen[0]}, {path} has {rows}; correct or "
                    "remove it"
                )
            return chosen
    return np.arange(rows, dtype=np.int64)


@lru_cache(maxsize=16)
def opened(path: str) -> FileIO:
    """For positioned reads; closed when it falls out of the cache."""
    return open(path, "rb", buffering=0)


def read_row(path: str, start: int, size: int) -> tuple[str, bytes]:
    """Key and stripped second column; raises LeftOut("no_second_column")."""
    columns = os.pread(opened(path).fileno(), size, start).split(b"\t", 2)
    if len(columns) < 2:
        raise LeftOut("no_second_column")
    return columns[0].strip().decode("utf-8", "surrogateescape"), columns[1].strip()


def decoded(column: bytes) -> bytes:
    """Bytes of a base64 column; raises LeftOut("bad_base64")."""
    try:
        return binascii.a2b_base64(column)
    except binascii.Error as error:
        raise LeftOut("bad_base64") from error


def columns_of(path: Path) -> int:
    """Of the first row."""
    with open(path, "rb") as file:
        return file.readline(1 << 20).count(b"\t") + 1


def content_of(path: Path) -> str:
    """`pictures`, `features` or `texts`, from the first rows (and `feat` in the name)."""
    with open(path, "rb") as file:
        for line in file.readlines(1 << 16)[:20]:
            columns = line.split(b"\t", 2)
            if len(columns) < 2 or not columns[1].strip():
                continue
            column = columns[1].strip()
            try:
                start = binascii.a2b_base64(column[: len(column) // 4 * 4][:4096], strict_mode=True)
            except binascii.Error:
                return "texts"
            if start.startswith(PICTURE_STARTS):
                return "pictures"
            if "feat" in path.name and len(column) >= 16:
                return "features"
            return "texts"
    return "texts"

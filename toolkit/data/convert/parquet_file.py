"""Parquet tables with a picture per row: which column it is, and one row after the other without holding a row group."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.convert.keep import Kept
from toolkit.data.convert.outcome import LeftOut
from toolkit.data.convert.tables import USUAL as USUAL_SENTENCE
from toolkit.data.convert.tsv import PICTURE_STARTS
from toolkit.data.decode import MAX_BYTES
from toolkit.errors import ConfigError, DataError

USUAL = ("jpg", "jpeg", "png", "webp", "image", "img")
"""Columns of bytes with these names are pictures; others when their first bytes are those of a picture."""
BATCH_ROWS = 32
PEEKED_ROWS = 64
PAGE_BYTES = 1 << 20
"""Read at a time: without it pyarrow reads the whole column of a row group."""


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Whatever pyarrow says of a torn file becomes one DataError."""
    import pyarrow as arrow

    try:
        yield
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: a name of a column
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is no readable parquet file ({why}); copy it again or leave it out") from error


def open_table(path: str) -> Any:
    """A pyarrow ParquetFile that is read page by page; raises DataError for a torn one."""
    from pyarrow import parquet

    with readable(path):
        file = parquet.ParquetFile(path, buffer_size=PAGE_BYTES, pre_buffer=False)
        file.schema_arrow  # noqa: B018 (its names are decoded, or are none)
        rows, size = file.metadata.num_rows, Path(path).stat().st_size
    if rows > size:
        raise DataError(f"{path} claims {rows} rows in {size} bytes; copy it again or leave it out")
    return file


def is_bytes(kind: Any) -> bool:
    """Binary of any width."""
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def holds_bytes(kind: Any) -> bool:
    """Binary, or the {bytes, path} of a Hugging Face data set."""
    return is_bytes(kind) or is_boxed(kind)


def is_boxed(kind: Any) -> bool:
    """A struct with its picture in `bytes`."""
    from pyarrow import types

    return bool(types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and is_bytes(kind.field("bytes").type))


def picture_column(path: str, asked: str = "") -> str:
    """The column of the pictures, an empty string where there is none.

    Raises ConfigError when that is not clear or `asked` is no such column, DataError for a torn file.
    """
    file = open_table(path)
    schema = file.schema_arrow
    columns = ", ".join(schema.names)
    if asked:
        if asked not in schema.names:
            raise ConfigError(f"--column {asked}: {path} has no such column; it has {columns}")
        if not all(holds_bytes(field.type) for field in schema if field.name == asked):
            raise ConfigError(
                f"--column {asked}: in {path} it holds {schema.types[schema.names.index(asked)]}; pictures are binary, or "
                "a struct with their `bytes`"
            )
        return asked
    may = [field.name for field in schema if holds_bytes(field.type)]
    found = [name for name in may if name.lower() in USUAL or is_boxed(schema.field(schema.names.index(name)).type)]
    found = found or [name for name in may if _starts_as_picture(file, path, name)]
    if len(found) > 1:
        raise ConfigError(f"{path} has pictures in {', '.join(found)}; say with --column which of them to take")
    return found[0] if found else ""


def _starts_as_picture(file: Any, path: str, column: str) -> bool:
    """Does the first value that is there begin as pictures do."""
    if file.schema_arrow.names.count(column) != 1:
        return False
    with readable(path):
        batch = next(file.iter_batches(PEEKED_ROWS, columns=[column], use_threads=False), None)
        cells = batch.column(column) if batch is not None else []
        first = next((cell.as_buffer().to_pybytes()[:16] for cell in cells if cell.is_valid), b"")
    return first.startswith(PICTURE_STARTS)


def kept_columns(path: str, schema: Any, picture: str, wanted: Sequence[Kept]) -> dict[str, str | tuple[str, ...]]:
    """The column of each kept field; where none is called `json`, that is made of several: of all that hold no bytes.

    Raises ConfigError when there is none, or several could be the caption.
    """
    names = list(schema.names)
    found: dict[str, str | tuple[str, ...]] = {}
    for field, source in wanted:
        column = source or field
        if column in names:
            found[field] = column
            continue
        captions = [name for name in names if name.lower() in USUAL_SENTENCE]
        if field == "json" and not source:
            found[field] = tuple(field.name for field in schema if not holds_bytes(field.type))
        elif field == "txt" and not source and len(captions) == 1:
            found[field] = captions[0]
        else:
            raise ConfigError(
                f"--keep {field}{f'={source}' if source else ''}: {path} has the columns {', '.join(names)}; say which one "
                f"it is with --keep {field}=COLUMN"
            )
    for column in sorted({picture, *together(found)}):
        if names.count(column) > 1:
            raise DataError(
                f"{path} has {names.count(column)} columns called {column}; write it again with one of them"
            )
    return found


def together(columns: dict[str, str | tuple[str, ...]]) -> set[str]:
    """All columns that any field is made of."""
    return {column for found in columns.values() for column in ([found] if isinstance(found, str) else found)}


def check_kept(path: str, picture: str, wanted: Sequence[Kept]) -> None:
    """Raises what kept_columns raises."""
    kept_columns(path, open_table(path).schema_arrow, picture, wanted)


class Rows:
    """One row at a time of some columns; fast forwards, backwards a row group is begun anew."""

    def __init__(self, path: str, columns: Sequence[str]) -> None:
        """`columns` may name a field of a struct as `image.bytes`."""
        self.path, self.columns = path, list(columns)
        self.file = open_table(path)
        groups = self.file.metadata
        self.starts = np.cumsum([0, *(groups.row_group(number).num_rows for number in range(groups.num_row_groups))])
        self._group, self._begin, self._end = -1, 0, 0
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None

    def cell(self, row: int, column: str) -> Any:
        """The pyarrow scalar; raises DataError where the file is torn."""
        with readable(self.path):
            if row >= self.starts[-1]:
                raise DataError(f"{self.path} has changed while it was read; start again")
            group = int(np.searchsorted(self.starts, row, "right")) - 1
            if group != self._group or row < self._begin:
                self._begin = self._end = int(self.starts[group])
                self._batches = self.file.iter_batches(BATCH_ROWS, [group], self.columns, use_threads=False)
                self._group = group
            while row >= self._end:
                self._batch = next(self._batches, None)
                if self._batch is None:
                    raise DataError(f"{self.path} has fewer rows than it claims; copy it again or leave it out")
                self._begin, self._end = self._end, self._end + self._batch.num_rows
            return self._batch.column(column)[row - self._begin]


@lru_cache(maxsize=4)
def rows_of(path: str, columns: tuple[str, ...]) -> Rows:
    """The same open file for all pieces that a process reads of it, so that it goes on forwards."""
    return Rows(path, columns)


def bytes_of(cell: Any) -> bytes | None:
    """Of a binary, string or {bytes} scalar, None where it is null; raises LeftOut("too_many_bytes")."""
    if cell.is_valid and hasattr(cell, "keys"):
        cell = cell["bytes"]
    if not cell.is_valid:
        return None
    buffer = cell.as_buffer()
    if buffer.size > MAX_BYTES:
        raise LeftOut("too_many_bytes")
    return bytes(buffer.to_pybytes())

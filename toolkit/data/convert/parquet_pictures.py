"""Rows of a parquet table as inputs: listed by their keys alone, read again with the picture and what is kept beside it."""

from collections.abc import Iterator, Sequence
from typing import Any

from toolkit.data.convert.keep import Kept, checked, encoded
from toolkit.data.convert.outcome import LeftOut, Skip
from toolkit.data.convert.parquet_file import bytes_of, is_boxed, kept_columns, open_table, readable, rows_of, together
from toolkit.data.convert.sources import Source

KEYS = ("key", "__key__")
"""Columns that name a row: img2dataset's and WebDataset's."""
STATUS = "status"
FAILED = ("failed_to_download", "failed_to_resize")
"""What img2dataset writes of a row without picture; other words in a column of that name mean something else."""
LISTED_ROWS = 4096


def list_rows(source: Source) -> Iterator[list[Any] | Skip]:
    """[row, name] of each row that may hold a picture; the pictures themselves are not looked at."""
    file = open_table(source.path)
    schema = file.schema_arrow
    named = next((key for key in KEYS if schema.names.count(key) == 1), "")
    boxed = schema.field(schema.names.index(source.column)).type
    if not named and is_boxed(boxed) and boxed.get_field_index("path") >= 0:
        named = f"{source.column}.path"
    status = STATUS if schema.names.count(STATUS) == 1 else ""
    columns = [column for column in (named, status) if column]
    if not columns:
        yield from ([row, f"row {row}"] for row in range(file.metadata.num_rows))
        return
    row = 0
    with readable(source.path):
        for batch in file.iter_batches(LISTED_ROWS, columns=columns, use_threads=False):
            names = _words(batch, named)
            for name, state in zip(names, _words(batch, status), strict=True):
                name = name or f"row {row}"
                yield Skip(source.path, name, state) if state in FAILED else [row, name]
                row += 1


def _words(batch: Any, column: str) -> list[str]:
    """Values of a column or of the `path` in it as words, empty where there is none."""
    if not column:
        return [""] * int(batch.num_rows)
    whole = column in batch.schema.names
    outer, _, inner = (column, "", "") if whole else column.rpartition(".")
    found = []
    for cell in batch.column(outer):
        try:
            value = value_of(cell[inner] if inner and cell.is_valid else cell)
        except LeftOut:
            value = None
        if isinstance(value, bytes):
            value = value.decode("utf-8", "surrogateescape")
        found.append("" if value is None else str(value))
    return found


def value_of(cell: Any) -> Any:
    """The Python value of a pyarrow scalar; raises LeftOut("not_utf8") or LeftOut("unreadable")."""
    if hasattr(cell, "as_buffer"):
        found = bytes_of(cell)
        return found if found is None or not _is_word(cell) else found.decode("utf-8", "surrogateescape")
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        raise LeftOut("not_utf8") from error
    except (ValueError, OverflowError, TypeError) as error:  # a date outside the calendar
        raise LeftOut("unreadable") from error


def _is_word(cell: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(cell.type) or types.is_large_string(cell.type) or types.is_string_view(cell.type))


class ParquetReader:
    """A piece of the rows of a parquet table."""

    def __init__(self, source: Source, entries: list[list[Any]], wanted: Sequence[Kept]) -> None:
        """`entries`: row, name."""
        self.source, self.entries, self.wanted = source, entries, tuple(wanted)
        self._columns: tuple[str, ...] = ()
        self._kept: dict[str, str | tuple[str, ...]] = {}

    def name(self, entry: int) -> str:
        """Key, path, or number of the row."""
        return str(self.entries[entry][1])

    def row(self, entry: int) -> int:
        """Row in the file."""
        return int(self.entries[entry][0])

    def read(self, entry: int) -> bytes:
        """The picture; raises LeftOut("no_picture") where the cell is null."""
        found = bytes_of(self._cell(entry, self.source.column))
        if found is None:
            raise LeftOut("no_picture")
        return found

    def further(self, entry: int) -> list[tuple[str, bytes]]:
        """What is kept beside the picture; raises LeftOut."""
        found = []
        for field, _ in self.wanted:
            self._open()
            columns = self._kept[field]
            try:
                if isinstance(columns, str):
                    value = value_of(self._cell(entry, columns))
                else:
                    value = {column: value_of(self._cell(entry, column)) for column in columns}
            except LeftOut as error:
                raise LeftOut(f"{field}_{error.reason}") from error
            found.append((field, checked(field, encoded(field, value))))
        return found

    def _open(self) -> None:
        if not self._columns:
            schema = open_table(self.source.path).schema_arrow
            self._kept = kept_columns(self.source.path, schema, self.source.column, self.wanted)
            boxed = is_boxed(schema.field(schema.names.index(self.source.column)).type)
            picture = f"{self.source.column}.bytes" if boxed else self.source.column
            self._columns = (picture, *sorted(together(self._kept) - {self.source.column}))

    def _cell(self, entry: int, column: str) -> Any:
        self._open()
        return rows_of(self.source.path, self._columns).cell(self.row(entry), column)

"""Sentences of parquet, CSV, JSON lines, JSON and plain text files, one after the other, without holding the file."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from toolkit.data.convert.outcome import LeftOut
from toolkit.errors import ConfigError, DataError

USUAL = ("caption", "text", "sentence", "captions", "title", "description", "prompt")
"""Columns that are taken unasked when exactly one of them is there."""
Found = Iterator[tuple[str, object]]
"""(name, sentence or LeftOut)."""
csv.field_size_limit(1 << 27)


def choose(columns: list[str], asked: str, path: str) -> str:
    """The column of the sentences; raises ConfigError listing them all when that is not clear."""
    if asked:
        if asked in columns:
            return asked
        raise ConfigError(f"--column {asked}: {path} has no such column; it has {', '.join(columns)}")
    lower = {name.lower(): name for name in reversed(columns)}
    usual = [lower[name] for name in USUAL if name in lower]
    if len(columns) == 1 or len(usual) == 1:
        return columns[0] if len(columns) == 1 else usual[0]
    raise ConfigError(f"{path} has the columns {', '.join(columns)}; say with --column which one holds the sentences")


def opened(path: str) -> io.BufferedReader | gzip.GzipFile:
    """Plain or gzip."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.GzipFile(path, "rb") if packed else open(path, "rb")


def parquet(path: str, column: str) -> Found:
    """Row by row; a list of strings is one sentence each."""
    import pyarrow as arrow
    from pyarrow import parquet as reader

    try:
        file = reader.ParquetFile(path)
        name = choose([field.name for field in file.schema_arrow], column, path)
        row = 0
        for batch in file.iter_batches(batch_size=10_000, columns=[name]):
            for value in batch.column(0).to_pylist():
                for number, sentence in enumerate(value if isinstance(value, list) else [value]):
                    yield (f"row {row}" if not isinstance(value, list) else f"row {row}.{number}"), word(sentence)
                row += 1
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no readable parquet file ({error}); copy it again or leave it out") from error


def table(path: str, column: str) -> Found:
    """CSV, or TSV by its extension, with a header; a number as `column` means there is none."""
    delimiter = "\t" if ".tsv" in Path(path).name.lower() else ","
    with opened(path) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")
        rows = csv.reader(text) if delimiter == "," else csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
        try:
            if column.isdecimal():
                place = int(column)
            else:
                header = next(rows, [])
                place = header.index(choose(header, column, path)) if header else 0
            for row in rows:
                if row:
                    found = word(row[place]) if place < len(row) else LeftOut("too_few_columns")
                    yield f"line {rows.line_num}", found
        except csv.Error as error:
            raise DataError(f"{path}, line {rows.line_num}: {error}; correct the file or name its --format") from error


def json_lines(path: str, column: str) -> Found:
    """A string or an object per line."""
    asked = column
    with opened(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except UnicodeDecodeError:
                yield f"line {number}", LeftOut("not_utf8")
                continue
            except (ValueError, RecursionError):
                yield f"line {number}", LeftOut("bad_json")
                continue
            if isinstance(value, dict):
                asked = asked or choose(list(value), "", path)
                value = value.get(asked)
            yield from several(f"line {number}", value)


def json_file(path: str, column: str) -> Found:
    """A list or an object of strings or objects; read as a whole."""
    with opened(path) as file:
        try:
            content = json.loads(file.read())
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path} is no JSON ({error}); correct it, or --format jsonl if each line is one"
            ) from error
    asked = column
    for name, value in content.items() if isinstance(content, dict) else enumerate(content):
        if isinstance(value, dict):
            asked = asked or choose(list(value), "", path)
            value = value.get(asked)
        yield from several(str(name), value)


def lines(path: str, column: str) -> Found:
    """A sentence per line; empty lines are no sentences."""
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"line {number}", word(line)


def several(name: str, value: object) -> Found:
    """A list of strings is one sentence each."""
    if isinstance(value, list):
        for number, entry in enumerate(value):
            yield f"{name}.{number}", word(entry)
    else:
        yield name, word(value)


def word(value: object) -> object:
    """A string, or why it is none."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if value is None:
        return LeftOut("empty_text")
    return value if isinstance(value, str) else LeftOut("not_text")


def is_class_list(path: Path) -> bool:
    """JSON with classnames and templates, as an evaluation set has."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, OSError):
        return False
    return isinstance(content, dict) and isinstance(content.get("classnames"), list)


READERS: dict[str, Callable[[str, str], Iterator[Any]]] = {
    "parquet": parquet,
    "csv": table,
    "jsonl": json_lines,
    "json": json_file,
    "txt": lines,
}

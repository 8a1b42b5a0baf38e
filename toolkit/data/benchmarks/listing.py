"""`dime evaluate --list`: which sets are there, in which layout, with how many pictures, and how to get the others."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from toolkit.data.benchmarks.entry import SPLITS, Entry, entries
from toolkit.data.benchmarks.find import how_to_get, locate, open_split
from toolkit.data.benchmarks.own import own_set
from toolkit.errors import DataError, ToolkitError


@dataclass
class Row:
    """What was found of one set."""

    name: str
    group: str
    metric: str
    expected: dict[str, int]
    layout: str = ""
    where: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    classes: int = 0
    """Of the copy's labels, on the test split."""
    problems: list[str] = field(default_factory=list)
    get: str = ""
    """How to get it, where it is missing."""
    files: list[str] = field(default_factory=list)
    """What ELEVATER's copy consists of, relative to the folder of data."""

    @property
    def state(self) -> str:
        """found, wrong or missing."""
        return "wrong" if self.problems else "found" if self.layout else "missing"


def survey(data: Path) -> list[Row]:
    """A row per entry and per set of captions, and one per folder of `data` that is anybody's own set.

    Nothing found, or a torn copy, is no error.
    """
    from toolkit.data.pairs.find import pair_rows, pair_words  # its rows are these

    rows = [row_of(entry, data) for entry in entries().values()] + pair_rows(data)
    known = {word.lower() for entry in entries().values() for word in entry.words} | pair_words()
    taken = [Path(row.where) for row in rows if row.where]
    for folder in sorted(data.iterdir()) if data.is_dir() else []:
        ours = any(place == folder or folder in place.parents for place in taken)
        if folder.is_dir() and not folder.name.startswith(".") and folder.name.lower() not in known and not ours:
            rows += own_rows(folder)
    return rows


def row_of(entry: Entry, data: Path) -> Row:
    """Every split of a copy is opened and counted against the protocol."""
    row = Row(entry.name, entry.group, entry.metric, dict(entry.counts))
    place = locate(entry, data)
    if place is None:
        row.get, row.files = how_to_get(entry, data), expected_files(entry)
        return row
    row.layout = place.layout
    row.where = str(place.splits.get("test", next(iter(place.splits.values()))))
    for split in place.splits:
        try:
            opened = open_split(entry, place, split)
        except ToolkitError as error:
            row.problems.append(f"{split}: {error}")
            continue
        row.where = str(opened.where) if split == "test" else row.where
        row.counts[split] = len(opened)
        wanted = entry.counts.get(split, 0)
        if wanted and len(opened) != wanted:
            row.problems.append(f"{split}: {len(opened)} pictures, the protocol has {wanted}")
        seen = (
            int((opened.labels.sum(axis=0) > 0).sum()) if opened.labels.ndim == 2 else len(set(opened.labels.tolist()))
        )
        if split == "test":
            row.classes = seen
        if seen != entry.classes:
            row.problems.append(f"{split}: pictures of {seen} classes, the protocol has {entry.classes}")
    if "test" not in place.splits:
        row.problems.append(f"test: missing, {entry.counts['test']} pictures. {how_to_get(entry, data)}")
    return row


def own_rows(folder: Path) -> list[Row]:
    """A set of the user's, or nothing; what is wrong with its card is a problem of its row."""
    try:
        own = own_set(folder)
    except DataError as error:
        return [Row(folder.name, "yours", "accuracy", {}, "folders", str(folder), problems=[str(error)])]
    if own is None:
        return []
    row = Row(folder.name, "yours", own.metric, {}, own.layout, str(folder), classes=len(own.classnames))
    for split in own.splits:
        try:
            row.counts[split] = len(own.open(split))
        except DataError as error:
            row.problems.append(f"{split}: {error}")
    return [row]


def expected_files(entry: Entry) -> list[str]:
    """Index, labels and archives of ELEVATER's layout, or the folders of pictures by class."""
    if entry.elevater is None:
        return [f"{place}/<class>/*" for place in entry.folders.get("test", [])[:1]]
    inside = [file for split in entry.elevater.splits.values() for file in (split.index, *split.zips)]
    names = dict.fromkeys([*([entry.elevater.labels] if entry.elevater.labels else []), *inside])
    return [f"classification/{entry.elevater.folder}/{name}" for name in names]


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    """The rows with their state."""
    return [asdict(row) | {"state": row.state} for row in rows]


def as_text(rows: list[Row], data: Path) -> str:
    """A table, what is wrong, and how to get what is missing."""
    title: tuple[str, ...] = ("set", "group", "state", "layout", *SPLITS, "metric")
    table = [title]
    for row in rows:
        shown = [f"{row.counts[split]:,}" if split in row.counts else "-" for split in SPLITS]
        if row.state == "missing":
            shown = [f"({row.expected[split]:,})" if row.expected.get(split) else "-" for split in SPLITS]
        table.append((row.name, row.group, row.state, row.layout or "-", *shown, row.metric))
    widths = [max(len(line[column]) for line in table) for column in range(len(title))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    counted = {state: sum(row.state == state for row in rows) for state in ("found", "wrong", "missing")}
    lines.append(
        f"{counted['found']} sets found in {data}, {counted['wrong']} not as the protocol has them, "
        f"{counted['missing']} missing (their numbers in brackets)"
    )
    for row in rows:
        lines += [f"{row.name} in {row.where}: {problem}" for problem in row.problems]
    for row in rows:
        if row.state == "missing":
            lines += ["", f"{row.name}: {row.get}", *(f"    {file}" for file in row.files)]
    return "\n".join(lines)


def print_list(data: Path, *, as_json_line: bool) -> None:
    """The table, and with `as_json_line` one JSON array as the last line; DataError where `data` is a file."""
    import json

    if data.exists() and not data.is_dir():
        raise DataError(f"--data {data} is a file; give the folder that holds the sets")
    rows = survey(data)
    print(as_text(rows, data))
    if as_json_line:
        print(json.dumps(as_json(rows)))

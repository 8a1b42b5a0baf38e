"""Opening a set of pictures and captions by its name, and listing what is there of them."""

from pathlib import Path

from braceexpand import braceexpand

from toolkit.data.benchmarks.listing import Row
from toolkit.data.index import read_index
from toolkit.data.pairs import own
from toolkit.data.pairs.compositions import locate, open_compositions
from toolkit.data.pairs.karpathy import find_index, read_karpathy
from toolkit.data.pairs.known import KNOWN, Known, known_of
from toolkit.data.pairs.paired import PairedSet
from toolkit.errors import ConfigError, DataError, ToolkitError
from toolkit.registry import did_you_mean


def open_pairs(name: str, data: Path) -> PairedSet:
    """A known set, a folder of `data` with captions or paired shards, or a pattern of shards such as `cc/{00..07}.tar`.

    A pattern is relative to `data`, or to where the command runs. Raises ConfigError for a name that is neither,
    DataError with how to get it where there is no copy, and for one that is not whole.
    """
    known = known_of(name)
    if known is not None and known.task == "retrieval":
        return read_karpathy(known, data)
    if known is not None:
        raise ConfigError(f"{name} is a set for compositionality, not for retrieval; give --tasks {known.task}")
    if name.endswith(".tar") or "::" in name:
        first = next(iter(braceexpand(name.partition("::")[0])))
        below = "::" not in name and (data / first).is_file()
        return own.read_shards(name, str(data / name) if below else name, data)
    folder = data / name
    if table := own.table_of(folder):
        return own.read_own(folder, table)
    if shards := own.shard_folder(folder):
        return own.read_shards(name, str(shards), shards)
    if folder.is_dir():
        raise DataError(
            f"{folder} has no captions; lay {' or '.join(own.TABLES)} beside its pictures (file<TAB>caption per line), or "
            "shards of pictures and txt"
        )
    sets = [known.name for known in KNOWN.values() if known.task == "retrieval"]
    raise ConfigError(
        f"no set of pictures and captions is called {name!r}{did_you_mean(name, sets)}; there are {', '.join(sets)}, "
        f"folders of {data} with {' or '.join(own.TABLES)}, and patterns of shards"
    )


def pair_words() -> set[str]:
    """Folder names that belong to the known sets, lower case."""
    return {name for known in KNOWN.values() for word in known.words for name in (word, word.replace("-", "_"))} | {
        "aro"
    }


def pair_rows(data: Path) -> list[Row]:
    """A row per known set, and one per folder of `data` with captions or paired shards. Nothing found, or a torn copy, is no error.

    Pictures of shards are counted where an index lies beside them; the shards themselves are not read.
    """
    rows = [known_row(known, data) for known in KNOWN.values()]
    for folder in sorted(data.iterdir()) if data.is_dir() else []:
        if folder.is_dir() and not folder.name.startswith(".") and folder.name.lower() not in pair_words():
            rows += own_row(folder)
    return rows


def known_row(known: Known, data: Path) -> Row:
    """Opened and counted against the protocol."""
    row = Row(known.name, known.task, known.metric, {"test": known.samples})
    found = find_index(known, data) if known.task == "retrieval" else locate(known, data)
    if found is None:
        row.get, row.files = known.how_to_get(), list(known.files)
        return row
    row.layout, row.where = "karpathy" if known.task == "retrieval" else "json", str(found)
    try:
        opened = open_pairs(known.name, data) if known.task == "retrieval" else open_compositions(known.name, data)
    except ToolkitError as error:
        row.problems.append(f"test: {error}")
        return row
    row.counts["test"], row.problems = len(opened), list(opened.problems)
    return row


def own_row(folder: Path) -> list[Row]:
    """A set of the user's, or nothing."""
    row = Row(folder.name, "yours", "recall", {}, where=str(folder))
    if table := own.table_of(folder):
        row.layout = "captions"
        try:
            row.counts["test"] = len(own.read_own(folder, table))
        except ToolkitError as error:
            row.problems.append(f"test: {error}")
        return [row]
    shards = own.shard_folder(folder)
    if shards is None or not own.is_paired(min(shards.glob("*.tar"))):
        return []
    row.layout = "webdataset"
    try:
        index = read_index(shards) or {}
    except DataError as error:
        row.problems.append(f"test: {error}")
        return [row]
    if index:
        row.counts["test"] = sum(entry.samples for entry in index.values())
    return [row]

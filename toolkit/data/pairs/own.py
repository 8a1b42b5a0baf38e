"""Anybody's pictures with captions: a folder with `captions.tsv` or `captions.jsonl`, or WebDataset shards of pictures and `txt`."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from toolkit.data.benchmarks.archives import Files, Place, place_of, read_text
from toolkit.data.decode import BadSample
from toolkit.data.pairs.paired import PairedSet, caption_of
from toolkit.errors import DataError

TABLES = ("captions.tsv", "captions.jsonl")
FILE_KEYS = ("file", "file_name", "filename", "image")
CAPTION_KEYS = ("caption", "captions", "text", "sentence")
PICTURE_FIELDS = {"jpg", "jpeg", "png", "webp"}
SHARDS = ("", "test")
"""Folders of a set of shards, below its own."""


def table_of(folder: Path) -> Path | None:
    """The file of captions in a folder, or None."""
    return next((folder / name for name in TABLES if (folder / name).is_file()), None)


def holds_captions(folder: Path) -> bool:
    """Is it anybody's pictures with captions, in a table or in shards."""
    shards = shard_folder(folder) if folder.is_dir() else None
    return table_of(folder) is not None or (shards is not None and is_paired(min(shards.glob("*.tar"))))


def read_own(folder: Path, table: Path) -> PairedSet:
    """Pictures in the order in which the table first names them, paths relative to the folder; any number of captions each.

    DataError for a line that is none, a picture that is not there, or a path that leads out of the folder.
    """
    number: dict[Place, int] = {}
    captions: list[str] = []
    owners: list[int] = []
    for where, name, caption in tsv_lines(table) if table.suffix == ".tsv" else json_lines(table):
        place = place_of(name, where)
        if not place[1]:
            place = (PurePosixPath(place[0]).as_posix(), "")
        owners.append(number.setdefault(place, len(number)))
        captions.append(caption_of(caption, f"{where}: the caption"))
    if not captions:
        raise DataError(f"{table} holds no captions; write a line `file<TAB>caption` for each")
    files = Files(folder, tuple(number))
    files.check()
    return PairedSet(folder.name, folder.name, "captions", table, files, captions, np.array(owners, np.int64))


def tsv_lines(table: Path) -> Iterator[tuple[str, str, object]]:
    """(where, file, caption) per line that is not empty; a first line `file<TAB>caption` is a header."""
    for number, line in enumerate(read_text(table).split("\n"), start=1):
        if not line.strip():
            continue
        name, tab, caption = line.strip().partition("\t")
        if not tab:
            raise DataError(f"{table}, line {number}: {line[:120]!r} is not `file<TAB>caption`; mend it")
        if number == 1 and name.lower() in FILE_KEYS and caption.strip().lower() in CAPTION_KEYS:
            continue
        yield f"{table}, line {number}", name.strip(), caption


def json_lines(table: Path) -> Iterator[tuple[str, str, object]]:
    """(where, file, caption) of lines `{"file": ..., "caption": ...}`; `captions` may be a list."""
    for number, line in enumerate(read_text(table).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{table}, line {number}"
        try:
            row = json.loads(line)
            name = next(row[key] for key in FILE_KEYS if key in row)
            given = next(row[key] for key in CAPTION_KEYS if key in row)
        except (ValueError, TypeError, StopIteration, RecursionError) as error:
            raise DataError(f"{where}: {line[:120]!r} is not {{'file': ..., 'caption': ...}}; mend it") from error
        if not isinstance(name, str) or given == []:
            raise DataError(f"{where}: needs the path of a picture and a caption or several; mend it")
        for caption in given if isinstance(given, list) else [given]:
            yield where, name, caption


def shard_folder(folder: Path) -> Path | None:
    """The folder of a set of shards, or None."""
    places = (folder / inside for inside in SHARDS)
    return next((place for place in places if place.is_dir() and next(place.glob("*.tar"), None)), None)


def read_shards(name: str, pattern: str, where: Path) -> PairedSet:
    """Samples of a picture (jpg, jpeg, png, webp: the first of these) and `txt`, in the order of the shards.

    Each line of `txt` that is not empty is a caption, as in CLIP benchmark's shards. `pattern` as in expand_shards. Raises
    DataError for a sample without picture or caption.
    """
    from toolkit.data.benchmarks.tars import IMAGES, ShardPictures  # it imports torch, for which a list need not wait
    from toolkit.data.shards import expand_shards, scan_shard

    shards = tuple(scan_shard(path) for path in expand_shards(pattern, asked_by=f"the set {name}"))
    places: list[tuple[int, int, str]] = []
    captions: list[str] = []
    owners: list[int] = []
    for position, shard in enumerate(shards):
        for row in range(shard.count):
            sample = f"{shard.path}: sample {shard.keys[row]}"
            field = shard.extension_of(row, IMAGES)
            if field is None or shard.extension_of(row, ["txt"]) is None:
                raise DataError(f"{sample} has {', '.join(shard.extensions)} and needs a picture and 'txt'")
            try:
                lines = shard.read(row, "txt").decode("utf-8-sig").splitlines()
            except (BadSample, UnicodeDecodeError) as error:
                raise DataError(f"{sample}: its txt cannot be read ({error}); write the shard again") from error
            found = [caption_of(line, f"{sample}: its txt") for line in lines if line.strip()]
            if not found:
                raise DataError(f"{sample} has an empty txt; leave the sample out")
            captions += found
            owners += [len(places)] * len(found)
            places.append((position, row, field))
    if not places:
        raise DataError(f"the set {name}: {pattern} holds no samples; write the shards again")
    pictures = ShardPictures(shards, tuple(places))
    return PairedSet(name, name, "webdataset", where, pictures, captions, np.array(owners, np.int64))


def is_paired(shard: Path) -> bool:
    """Has the first sample of a shard a picture and `txt`, and no class? Headers alone are read; a torn shard is not."""
    from toolkit.data.tar_headers import TarDamage, key_and_field, read_entries

    first, fields = "", set()
    try:
        for entry in read_entries(shard):
            key, name = key_and_field(entry.name)
            if entry.kind != "file" or not key:
                continue
            if first and key != first:
                break
            first = key
            fields.add(name)
    except (TarDamage, OSError):
        return False
    return "txt" in fields and "cls" not in fields and bool(fields & PICTURE_FIELDS)

"""What a source of pictures holds, in pieces of bounded size, written down so that a later run need not look again."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.convert import tsv
from toolkit.data.convert.keep import Kept
from toolkit.data.convert.outcome import Skip
from toolkit.data.convert.parquet_pictures import list_rows
from toolkit.data.convert.pictures import EXTENSIONS
from toolkit.data.convert.sources import BESIDE_PICTURES, Source
from toolkit.data.index import write_aside
from toolkit.data.tar_headers import Entry, TarDamage, read_entries

PIECE = 10_000
"""Inputs per piece: a piece is what one worker scans at a time, and what a killed run may have to scan again."""
PREFERRED = ("jpg", "jpeg", "png", "webp")
"""Of several pictures of a WebDataset sample the first of these is taken, as a run does."""
REST_OF_TAR = {"unreadable_tar": "rest_of_tar_unreadable"}


def list_source(source: Source, folder: Path, number: int, wanted: Sequence[Kept] = ()) -> list[int]:
    """Inputs per piece, with the places of the `wanted` fields.

    Writes `<number>-<piece>.{json,npy}`, `<number>.skipped.jsonl` and, last, `<number>.json`.
    """
    done = folder / f"{number:05d}.json"
    if done.is_file():
        return list(json.loads(done.read_bytes()))
    counts: list[int] = []
    if source.kind == "tsv":
        offsets = tsv.offsets_of(Path(source.path))
        rows = tsv.visible_rows(Path(source.path), len(offsets) - 1)
        for start in range(0, len(rows), PIECE):
            part = rows[start : start + PIECE]
            places = np.stack([part, offsets[part], offsets[part + 1] - offsets[part]], axis=1)
            _save(piece_path(folder, number, len(counts), "npy"), places)
            counts.append(len(part))
        skips: list[Skip] = []
    else:
        skips = []
        piece: list[Any] = []
        for entry in _found(source, wanted):
            if isinstance(entry, Skip):
                skips.append(entry)
                continue
            piece.append(entry)
            if len(piece) == PIECE:
                write_aside(piece_path(folder, number, len(counts), "json"), json.dumps(piece))
                counts.append(len(piece))
                piece = []
        if piece:
            write_aside(piece_path(folder, number, len(counts), "json"), json.dumps(piece))
            counts.append(len(piece))
    write_aside(folder / f"{number:05d}.skipped.jsonl", jsonl(skips))
    write_aside(done, json.dumps(counts))
    return counts


def _found(source: Source, wanted: Sequence[Kept]) -> Iterator[Any]:
    """Inputs and what is none, in order."""
    if source.kind == "parquet":
        return list_rows(source)
    return _samples(source.path, wanted) if source.kind == "webdataset" else LISTED[source.kind](source.path)


def piece_path(folder: Path, number: int, piece: int, extension: str) -> Path:
    """Where the list of a piece lies."""
    return folder / f"{number:05d}-{piece:05d}.{extension}"


def jsonl(skips: Iterable[Skip]) -> str:
    """One JSON object per line; names that are no UTF-8 are escaped."""
    return "".join(json.dumps(skip._asdict()) + "\n" for skip in skips)


def _save(path: Path, array: np.ndarray) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(aside, "wb") as file:
        np.save(file, array, allow_pickle=False)
    aside.replace(path)


def _files(root: str, below: str = "") -> Iterator[str | Skip]:
    """Relative paths of pictures, folder by folder in sorted order. Linked folders are not entered.

    Captions and metadata named like a picture or a folder beside them belong to it, and are no inputs of their own.
    """
    try:
        entries = sorted(os.scandir(os.path.join(root, below)), key=lambda entry: entry.name)
    except OSError:
        yield Skip(root, below, "unreadable")
        return
    owners = {name for entry in entries for name in _owned_by(entry)}
    for entry in entries:
        name = os.path.join(below, entry.name)
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(root, name)
        elif not entry.is_file():
            yield Skip(root, name, "not_a_file")
        elif entry.name.rpartition(".")[2].lower() in EXTENSIONS:
            yield name
        elif not _belongs(entry.name, owners):
            yield Skip(root, name, "not_a_picture")


def _owned_by(entry: os.DirEntry[str]) -> list[str]:
    """The base name that files beside a picture or a folder of them bear."""
    if entry.is_dir(follow_symlinks=False):
        return [entry.name]
    stem, _, extension = entry.name.rpartition(".")
    return [stem] if extension.lower() in EXTENSIONS else []


def _belongs(name: str, owners: set[str]) -> bool:
    """Is it a caption, the metadata or, of a whole folder, what img2dataset has to say of it."""
    stem, _, extension = name.rpartition(".")
    return extension.lower() in (*BESIDE_PICTURES, "parquet") and stem.removesuffix("_stats") in owners


def plain_members(path: str) -> Iterator[Entry | Skip]:
    """Whole, ordinary files of a tar; what is torn or cut off at the end is one line of the skipped."""
    try:
        for member in read_entries(path):
            if member.kind == "file":
                yield member
            elif member.kind != "folder":
                yield Skip(path, member.name, "not_a_file")
    except TarDamage as damage:
        yield Skip(path, damage.name, REST_OF_TAR.get(damage.reason, damage.reason))


def _members(path: str) -> Iterator[list[Any] | Skip]:
    """[name, offset, bytes] of each picture."""
    for member in plain_members(path):
        if isinstance(member, Skip):
            yield member
        elif member.name.rpartition(".")[2].lower() in EXTENSIONS:
            yield [member.name, member.offset, member.size]
        else:
            yield Skip(path, member.name, "not_a_picture")


def _samples(path: str, kept: Sequence[Kept] = ()) -> Iterator[list[Any] | Skip]:
    """[key, offset, bytes] of the picture of each sample, then {field: place} of what is kept beside it.

    Neighbours with one base name are a sample.
    """
    places = {place for field in kept for place in field.places}
    key = ""
    fields: dict[str, tuple[int, int]] = {}

    def picture() -> Iterator[list[Any] | Skip]:
        wanted = next((e for e in (*PREFERRED, *sorted(fields)) if e in fields and e in EXTENSIONS), None)
        if wanted is not None:
            beside = {place: fields[place] for place in sorted(places) if place in fields}
            yield [key, *fields[wanted], *([beside] if kept else [])]
        elif fields:
            yield Skip(path, key, "no_picture")

    for member in plain_members(path):
        if isinstance(member, Skip):
            yield member
            continue
        folder, slash, name = member.name.rpartition("/")
        base, _, extension = name.partition(".")
        if folder + slash + base != key:
            yield from picture()
            key, fields = folder + slash + base, {}
        fields[extension.lower()] = (member.offset, member.size)
    yield from picture()


LISTED: dict[str, Callable[[str], Iterator[Any]]] = {"folder": _files, "tar": _members, "webdataset": _samples}
"""How each kind is looked through that needs no more than a path."""

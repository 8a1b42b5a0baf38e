"""The samples of one shard: what of each would be left out, refused, or misread by a run."""

import json
import os
from pathlib import Path
from typing import NamedTuple

from toolkit.data.convert.outcome import LeftOut
from toolkit.data.convert.pictures import EXTENSIONS, PictureOptions, open_picture, read_to_the_end
from toolkit.data.decode import MAX_BYTES, BadSample, decode_text
from toolkit.data.tar_headers import TarDamage, read_entries

PICTURE = "picture"
RUNS_CODE = frozenset(("pyd", "pkl", "pickle", "pth", "pt", "py", "so"))
"""Other loaders unpickle or import these; ours reads none of them."""


class Member(NamedTuple):
    """A field of a sample."""

    name: str
    extension: str
    offset: int
    size: int
    is_file: bool

    @property
    def kind(self) -> str:
        """Its extension, or `picture` for any kind of picture."""
        return PICTURE if self.extension in EXTENSIONS else self.extension


class Checked(NamedTuple):
    """Samples and what is wrong with them: (key, reason)."""

    samples: int
    problems: list[tuple[str, str]]


def samples_in(path: Path) -> tuple[list[tuple[str, list[Member]]], list[str]]:
    """(key, fields) of neighbours with one base name, as readers group them, and what is wrong with the tar itself."""
    found: list[tuple[str, list[Member]]] = []
    try:
        for member in read_entries(path):
            if member.kind == "folder":
                continue
            folder, slash, name = member.name.rpartition("/")
            base, _, extension = name.partition(".")
            key = folder + slash + base
            if not found or found[-1][0] != key:
                found.append((key, []))
            found[-1][1].append(
                Member(member.name, extension.lower(), member.offset, member.size, member.kind == "file")
            )
    except TarDamage as damage:
        return found, [f"{damage.reason}: {damage}"]
    except OSError as error:
        return found, [f"unreadable_tar: {error}"]
    return found, []


def check_shard(path: Path, samples: list[tuple[str, list[Member]]], *, fast: bool, max_pixels: int) -> Checked:
    """`fast`: what the headers tell."""
    options = PictureOptions(max_pixels=max_pixels)
    problems: list[tuple[str, str]] = []
    seen: set[str] = set()
    with open(path, "rb") as file:
        for key, fields in samples:
            if key in seen:
                problems.append((key, "duplicate_key"))
            seen.add(key)
            problems += [(key, reason) for reason in wrong_headers(fields)]
            for field in fields:
                if not field.is_file:
                    continue
                if field.size > MAX_BYTES:
                    problems.append((key, f"too_many_bytes {field.extension}"))
                    continue
                data = None if fast else os.pread(file.fileno(), field.size, field.offset)
                if reason := wrong_content(field, data, options):
                    problems.append((key, reason if field.kind == PICTURE else f"{reason} {field.extension}"))
    return Checked(len(samples), problems)


def wrong_headers(fields: list[Member]) -> list[str]:
    """What names and types tell of a sample."""
    found = []
    extensions = [field.extension for field in fields]
    found += [f"field_twice {extension}" for extension in sorted({e for e in extensions if extensions.count(e) > 1})]
    for field in fields:
        if not field.is_file:
            found.append(f"not_a_file {field.extension}")
        if field.name.startswith("/") or ".." in field.name.split("/"):
            found.append("unsafe_name")
        if field.extension.rpartition(".")[2] in RUNS_CODE:
            found.append(f"could_run_code {field.extension}")
        elif "." in field.extension:
            found.append(f"dotted_key: readers take {field.extension!r} for the field")
        elif not field.extension:
            found.append("no_extension")
    return found


def wrong_content(field: Member, data: bytes | None, options: PictureOptions) -> str:
    """Why a run would leave this field out, or an empty string; without data what its size tells."""
    if not field.size:
        return "empty" if field.kind == PICTURE else "empty_text" if field.kind == "txt" else ""
    if data is None:
        return ""
    if field.kind == PICTURE:
        try:
            read_to_the_end(open_picture(data, options))
        except LeftOut as error:
            return error.reason
        except Exception:  # PIL raises many kinds on hostile bytes
            return "undecodable"
    elif field.kind in ("txt", "cls"):
        try:
            text = decode_text(data)
        except BadSample as bad:
            return str(bad)
        if field.kind == "cls" and not text.isdecimal():
            return "no_class_number"
    elif field.kind == "json":
        return wrong_json(data)
    return ""


def wrong_json(data: bytes) -> str:
    """Why it is none, or an empty string."""
    try:
        text = data.decode("utf-8")
        if not text.strip():
            return "empty_text"
        json.loads(text)
    except UnicodeDecodeError:
        return "not_utf8"
    except (ValueError, RecursionError):
        return "bad_json"
    return ""

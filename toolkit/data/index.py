"""`index.json` of a folder of shards: bytes, samples and hash of each. Imports nothing heavy, so that tools start fast."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import DataError

INDEX_NAME = "index.json"


@dataclass(frozen=True)
class IndexEntry:
    """What a shard was when it was written; `sha256` is empty in an index of before hashes were kept."""

    bytes: int
    samples: int
    sha256: str = ""


def write_index(folder: Path, counts: Mapping[str, int], hashes: Mapping[str, str] | None = None) -> None:
    """Write `index.json`; `counts` are samples by name of the shard. Bytes tell later whether a shard has changed."""
    shards: list[dict[str, Any]] = []
    for name, samples in sorted(counts.items()):
        shards.append({"name": name, "bytes": (folder / name).stat().st_size, "samples": samples})
        if hashes and name in hashes:
            shards[-1]["sha256"] = hashes[name]
    write_aside(folder / INDEX_NAME, json.dumps({"version": 1, "shards": shards}, indent=1) + "\n")


def read_index(folder: Path) -> dict[str, IndexEntry] | None:
    """By name of the shard, None where there is no index; raises DataError when the file is something else."""
    index = folder / INDEX_NAME
    if not index.is_file():
        return None
    return parse_index(index.read_bytes(), where=str(index))


def parse_index(content: bytes, *, where: str) -> dict[str, IndexEntry]:
    """By name of the shard; raises DataError with `where` when the content is something else."""
    try:
        return dict(_entry(entry) for entry in json.loads(content)["shards"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{where} is not an index of shards ({error}); delete it, it is made anew") from error


def _entry(entry: Any) -> tuple[str, IndexEntry]:
    """Name and facts of a shard; raises ValueError for what no shard can be: each sample has a header of 512 bytes."""
    name, size, samples, sha256 = entry["name"], entry["bytes"], entry["samples"], entry.get("sha256", "")
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r:.80} is no name of a file")
    os.fsencode(name)  # a UnicodeEncodeError is a ValueError
    if type(size) is not int or type(samples) is not int or not 0 <= 512 * samples <= size or size >= 1 << 60:
        raise ValueError(f"{name!r:.80} has {size!r:.40} bytes and {samples!r:.40} samples")
    return name, IndexEntry(size, samples, str(sha256))


def write_aside(path: Path, content: str | bytes) -> None:
    """Write and rename, so that a reader never sees half a file."""
    aside = aside_of(path)
    aside.write_bytes(content.encode() if isinstance(content, str) else content)
    aside.replace(path)


def aside_of(path: Path) -> Path:
    """`.name.MACHINE.PID`: where this process writes what it then renames to `path`.

    What processes of this machine that are gone have left for the same path is removed: a SIGKILL leaves it for ever.
    """
    machine = hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]
    start = f".{path.name}.{machine}."
    with os.scandir(path.parent) as entries:
        left = [entry for entry in entries if entry.name.startswith(start)]
    for entry in left:
        if is_gone(entry.name.removeprefix(start)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)
    return path.with_name(f"{start}{os.getpid()}")


def is_gone(process: str) -> bool:
    """Is this the number of a process that has ended."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OverflowError, OSError):  # no number, or somebody else's
        return False
    return False

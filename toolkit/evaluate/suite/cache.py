"""What has been computed once is read again: features, heads and probes, by everything that decides them."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from toolkit import distributed
from toolkit.data.benchmarks.archives import Files
from toolkit.data.benchmarks.split import Split
from toolkit.data.benchmarks.tars import ShardPictures

VERSION = 1
"""Counted up when the same key would give other numbers."""


class Cache:
    """Files `<kind>-<hash of the key>.safetensors`; tensors, and facts as JSON. Nothing in them is ever run."""

    def __init__(self, folder: Path) -> None:
        """Made when first written to."""
        self.folder = folder

    def path(self, kind: str, key: dict[str, Any]) -> Path:
        """Where it would lie."""
        text = json.dumps({"version": VERSION, **key}, sort_keys=True)
        return self.folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"

    def get(self, kind: str, key: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """(tensors, facts), or None where it is not there or torn."""
        path = self.path(kind, key)
        try:
            with safe_open(path, framework="pt") as file:
                said = file.metadata() or {}
                if json.loads(said["key"]) != json.loads(json.dumps(key)):
                    return None
                return {name: file.get_tensor(name) for name in file.keys()}, json.loads(said["facts"])  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError):
            return None

    def put(self, kind: str, key: dict[str, Any], tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Written aside and renamed."""
        path = self.path(kind, key)
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        held = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(held, aside, metadata={"key": json.dumps(key), "facts": json.dumps(facts)})
        aside.rename(path)

    def shared(self, kind: str, key: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """As `get`, if every rank can read it; a collective."""
        found = self.get(kind, key)
        return found if distributed.all_true(found is not None) else None


def default_folder() -> Path:
    """$XDG_CACHE_HOME/dime/evaluate, by default below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dime" / "evaluate"


def fingerprint(split: Split) -> str:
    """sha256 of a copy: its labels, its pictures' keys, and size and time of every file they lie in.

    The pictures themselves are not read. A copy that was moved with its times is the same.
    """
    digest = hashlib.sha256(split.labels.tobytes())
    for row in range(len(split)):
        digest.update(
            f"{split.pictures.key(row)}\n".encode(errors="surrogateescape")
        )  # names of files may be any bytes
    for path in files_of(split):
        stat = path.stat()
        digest.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def files_of(split: Split) -> list[Path]:
    """Those that hold the pictures, sorted; every file of the copy where its layout does not tell."""
    pictures: Any = split.pictures
    while hasattr(pictures, "whole"):  # crops of others
        pictures = pictures.whole
    if isinstance(pictures, Files):
        return sorted({pictures.root / file for file, _ in pictures.places})
    if isinstance(pictures, ShardPictures):
        return [Path(str(shard.path)) for shard in pictures.shards]
    if split.where.is_file():
        return [split.where]
    return sorted(Path(folder) / name for folder, _, names in os.walk(split.where) for name in names)

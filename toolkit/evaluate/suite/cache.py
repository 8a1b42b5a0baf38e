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

"""Stored teacher embeddings: one file per shard, in shard order, with a manifest that says whose they are."""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from toolkit.data.images import BadSample
from toolkit.data.remote import RemoteShard, ShardPath
from toolkit.errors import DataError

MANIFEST = "manifest.json"


class EmbeddingStore:
    """A folder with, per shard, `<name>.npy` (float32 [n, e], NaN rows for samples that could not be read) and
    `<name>.json` (samples, hash of their keys). Complete shards only: both are written aside and renamed, the json last.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        """`identity`: the teacher's name, weight hash, and preprocessing or tokenizer. A folder of another is refused."""
        self.folder, self.identity = folder, identity
        self._mapped: dict[ShardPath, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Workers map the files themselves."""
        return {"folder": self.folder, "identity": self.identity}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore without open files."""
        self.__init__(state["folder"], state["identity"])  # type: ignore[misc]

    def check_identity(self) -> None:
        """Raise DataError when the folder was filled by another teacher or with other preprocessing."""
        path = self.folder / MANIFEST
        if not path.is_file():
            return
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise DataError(f"{path} is no manifest ({error}); remove {self.folder}, it is filled anew") from error
        wrong = [
            f"{key}: {found.get(key)} there, {value} here"
            for key, value in self.identity.items()
            if found.get(key) != value
        ]
        if wrong:
            raise DataError(
                f"{self.folder} holds embeddings of another teacher or view ({'; '.join(wrong)}); use another teacher.store"
            )

    def write_identity(self) -> None:
        """Create the folder and its manifest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_aside(self.folder / MANIFEST, (json.dumps(self.identity, indent=1) + "\n").encode())

    def is_complete(self, shard: ShardPath, samples: int) -> bool:
        """Has this shard been embedded, with as many samples as it has now."""
        try:
            return bool(json.loads(self._json(shard).read_text())["samples"] == samples) and self._npy(shard).is_file()
        except (OSError, ValueError, KeyError):
            return False

    def write(self, shard: ShardPath, keys: Sequence[str], rows: Float[Tensor, "n e"]) -> None:
        """Store the embeddings of a whole shard, in its order."""
        aside = self._npy(shard).with_suffix(f".{os.getpid()}.tmp")
        with open(aside, "wb") as file:
            np.save(file, rows.float().cpu().numpy(), allow_pickle=False)
        aside.replace(self._npy(shard))
        content = {
            "shard": shard.name,
            "samples": len(keys),
            "keys_sha256": hash_of(keys),
            "path": str(shard.resolve()),
        }
        write_aside(self._json(shard), (json.dumps(content) + "\n").encode())

    def read(self, shard: ShardPath, keys: tuple[str, ...], row: int) -> Float[Tensor, " e"]:
        """One embedding; raises BadSample("not_embedded") where the sample could not be read when the store was filled."""
        if shard not in self._mapped:
            self._mapped[shard] = self._map(shard, keys)
        found = self._mapped[shard][row]
        if not math.isfinite(found[0]):
            raise BadSample("not_embedded")
        return torch.from_numpy(found.copy())

    def _map(self, shard: ShardPath, keys: tuple[str, ...]) -> np.ndarray:
        """The mapped file of a shard; raises DataError when its keys are not the shard's."""
        if not self.is_complete(shard, len(keys)):
            raise DataError(
                f"{self.folder} has no embeddings for {shard}; start the run again, it fills what is missing"
            )
        if json.loads(self._json(shard).read_text())["keys_sha256"] != hash_of(keys):
            raise DataError(
                f"{self._npy(shard)} was made from other samples than {shard} holds (keys differ); remove it"
            )
        return np.asarray(np.load(self._npy(shard), mmap_mode="r", allow_pickle=False))

    def _npy(self, shard: ShardPath) -> Path:
        return self.folder / f"{stem_of(shard)}.npy"

    def _json(self, shard: ShardPath) -> Path:
        return self.folder / f"{stem_of(shard)}.json"


def stem_of(shard: ShardPath) -> str:
    """Name of a shard's files in a store: its own, and a hash of its folder, or of the whole URL of a remote shard."""
    place = shard.url if isinstance(shard, RemoteShard) else str(shard.resolve().parent)
    return f"{shard.stem}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"


def hash_of(keys: Sequence[str]) -> str:
    """Hash of the sample keys, in order."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def write_aside(path: Path, content: bytes) -> None:
    """Write and rename, so that a reader never sees half a file."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(content)
    aside.replace(path)

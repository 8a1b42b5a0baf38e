"""Stored teacher embeddings: a folder with one file per shard and a manifest that says whose they are."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from toolkit.data.images import BadSample, Crop, crop_of
from toolkit.data.index import write_aside
from toolkit.data.remote import RemoteShard, ShardPath
from toolkit.data.store_file import StoredRows, hash_of, read_entry, write_rows
from toolkit.errors import DataError

MANIFEST = "manifest.json"
VERSION = 2
IMPORTED = "imported"
"""Weight hash of embeddings that came from somewhere else: nobody here has seen the teacher that made them."""
NEAR_ONE = 0.02
"""Stored rows are of length 1 within this; others are counted as bad."""


class Stored(NamedTuple):
    """One embedding, and the crop it was seen through (None: the plain view, or a sentence)."""

    features: Tensor
    crop: Crop | None


class EmbeddingStore:
    """The embeddings of many shards by one teacher. Files are whole or not there; filling it again does what is missing."""

    def __init__(self, folder: Path, identity: dict[str, Any], about: dict[str, Any] | None = None) -> None:
        """`identity`: what must agree with the manifest (teacher, weight hash, width, view, preprocessing or tokenizer,
        `stored_as`); `about`: what is written there beside it, for people and for the verify command.
        """
        self.folder, self.identity, self.about = folder, identity, about or {}
        self._open: dict[ShardPath, StoredRows] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Workers map the files themselves."""
        return {"folder": self.folder, "identity": self.identity, "about": self.about}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore without open files."""
        self.__init__(state["folder"], state["identity"], state["about"])  # type: ignore[misc]

    @property
    def views(self) -> int:
        """Embeddings per sample."""
        view = self.identity.get("view")
        count = view.get("count") if isinstance(view, dict) else 1
        if type(count) is not int or count < 1:
            raise DataError(f"{self.folder}/{MANIFEST}: its `view` has {count!r:.40} crops; embed the pictures again")
        return count

    def manifest(self) -> dict[str, Any] | None:
        """As it lies there; None for a new folder. Raises DataError when it is something else."""
        path = self.folder / MANIFEST
        if not path.is_file():
            return None
        try:
            return dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{path} is no manifest ({error}); remove {self.folder}, it is filled anew") from error

    def check_identity(self) -> None:
        """Raise DataError when the folder was filled by another teacher or with another view or preprocessing."""
        found = self.manifest()
        if found is None:
            return
        wrong = [
            f"{key}: {found.get(key)} there, {value} here"
            for key, value in self.identity.items()
            if found.get(key) != value
        ]
        if wrong:
            raise DataError(
                f"{self.folder} holds embeddings of another teacher or view ({'; '.join(wrong)}); use another folder "
                "(teacher.store, --out), or the same teacher and view"
            )

    def write_identity(self) -> None:
        """Create the folder and its manifest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_aside(self.folder / MANIFEST, json.dumps(self.identity | self.about, indent=1) + "\n")

    def is_complete(self, shard: ShardPath, samples: int) -> bool:
        """Has this shard been embedded, with as many samples as it has now."""
        try:
            entry = read_entry(self.file_of(shard))
        except DataError:
            return False
        return entry.samples == samples and entry.views == self.views

    def write(
        self,
        shard: ShardPath,
        keys: Sequence[str],
        rows: Float[Tensor, "n e"] | Float[Tensor, "n v e"],
        crops: Int32[Tensor, "n v five"] | None = None,
    ) -> None:
        """Store the embeddings of a whole shard, in its order; one view where `rows` has no axis for it."""
        views = rows.detach().float().cpu()
        views = views.unsqueeze(1) if views.dim() == 2 else views
        where = self.file_of(shard), shard.name, str(shard.resolve())
        write_rows(*where, keys, views, self.identity.get("stored_as", "fp32"), crops)

    def read(self, shard: ShardPath, keys: tuple[str, ...], row: int, view: int = 0) -> Stored:
        """One embedding. Raises BadSample where the sample could not be read ("not_embedded") or the stored row is zero or
        of no unit length, DataError where the file is not of these samples.
        """
        if shard not in self._open:
            self._open[shard] = self._opened(shard, keys)
        opened = self._open[shard]
        features = opened.floats(row, view)
        length = float(torch.linalg.vector_norm(features))
        if not abs(length - 1) < NEAR_ONE:
            raise BadSample("not_embedded" if length != length else "embedding_not_unit")
        crop = opened.crop(row, view)
        return Stored(features, None if crop is None else crop_of(crop))

    def _opened(self, shard: ShardPath, keys: tuple[str, ...]) -> StoredRows:
        """The mapped file of a shard; raises DataError when its keys are not the shard's."""
        file = self.file_of(shard)
        if not file.is_file():
            raise DataError(f"{self.folder} has no embeddings for {shard}; embed it with `dime embed`")
        if read_entry(file).keys_sha256 != hash_of(keys):
            raise DataError(f"{file} was made from other samples than {shard} holds (keys differ); remove it")
        found = StoredRows(file)
        shape, wanted = (
            [found.count, found.views, found.width],
            [len(keys), self.views, self.identity.get("width", found.width)],
        )
        if shape != wanted:
            raise DataError(f"{file} holds {shape} (samples, views, width) and not {wanted}; remove it and embed again")
        return found

    def file_of(self, shard: ShardPath) -> Path:
        """Where the embeddings of a shard lie."""
        return self.folder / f"{stem_of(shard)}.safetensors"


def stem_of(shard: ShardPath) -> str:
    """Name of a shard's file in a store: its own, and a hash of its folder, or of the whole URL of a remote shard."""
    place = shard.url if isinstance(shard, RemoteShard) else str(shard.resolve().parent)
    return f"{shard.stem}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"

"""The embeddings of one shard as one safetensors file: rows in the shard's order, their keys, and the crops that were seen.

Tensors: `rows` [n, v, e] (v views of each sample, 1 where it was seen plain or is a sentence), `scale` float32 [n, v] for
int8, `crops` int32 [n, v, 5] (top, left, height, width, flip; images.Crop) where crops were seen, `keys` uint8 (joined by
newlines). A sample that could not be read has NaN rows (int8: NaN scales). Safetensors holds numbers only: nothing in it runs.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from toolkit.data.index import aside_of
from toolkit.errors import DataError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}
"""How rows may be stored. int8: 127ths of the row's largest entry, with that scale in fp32."""
ABOUT = "store"
"""Key of the header's metadata."""


@dataclass(frozen=True)
class StoreEntry:
    """What the header of a file says."""

    file: Path
    shard: str
    samples: int
    views: int
    width: int
    keys_sha256: str
    rows_sha256: str
    path: str
    """Where the shard lay when it was embedded."""


class StoredRows:
    """A file open for reading, mapped: rows as unit-norm fp32, whatever they are stored as."""

    def __init__(self, file: Path) -> None:
        """Raises DataError when it is not readable."""
        self.file = file
        self.tensors = open_tensors(file)
        self.rows = self.tensors["rows"]
        self.count, self.views, self.width = self.rows.shape

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Of the samples, in order."""
        return tuple(self.tensors["keys"].numpy().tobytes().decode().split("\n")) if self.count else ()

    def floats(self, which: int | slice | list[int], view: int = 0) -> Float[Tensor, "*k e"]:
        """fp32 rows of a view, NaN where a sample could not be read."""
        rows = self.rows[which, view]
        if rows.dtype == torch.float32:
            return rows.clone()
        rows = rows.float()
        if "scale" in self.tensors:
            rows = rows * self.tensors["scale"][which, view].unsqueeze(-1)
        return F.normalize(rows, dim=-1)

    def crop(self, row: int, view: int = 0) -> Int32[Tensor, " five"] | None:
        """What of the picture was seen; None for the plain view."""
        return self.tensors["crops"][row, view] if "crops" in self.tensors else None

    def hash(self) -> str:
        """Of the rows as they are now; equals the entry's unless the file was changed."""
        return hash_tensors(self.tensors)


def write_rows(
    file: Path,
    shard: str,
    path: str,
    keys: Sequence[str],
    rows: Float[Tensor, "n v e"],
    stored_as: str,
    crops: Int32[Tensor, "n v five"] | None = None,
) -> None:
    """Write aside and rename: a reader sees a whole file or none."""
    tensors = quantised(rows, stored_as)
    if crops is not None:
        tensors["crops"] = crops
    tensors["keys"] = torch.frombuffer(bytearray("\n".join(keys).encode() or b"\n"), dtype=torch.uint8)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    about = {"shard": shard, "path": path, "keys_sha256": hash_of(keys), "rows_sha256": hash_tensors(tensors)}
    aside = aside_of(file)
    save_file(tensors, aside, metadata={ABOUT: json.dumps(about)})  # one entry: the order of several varies
    aside.replace(file)


def quantised(rows: Float[Tensor, "n v e"], stored_as: str) -> dict[str, Tensor]:
    """The rows in the type they are stored in, with their scales where they need some."""
    if stored_as != "int8":
        return {"rows": rows.to(DTYPES[stored_as])}
    scale = rows.abs().amax(-1) / 127
    steps = (rows / scale.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(-1)).nan_to_num(0.0).round()
    return {"rows": steps.to(torch.int8), "scale": scale}


def as_stored(rows: Float[Tensor, "n v e"], stored_as: str) -> Float[Tensor, "n v e"]:
    """What a reader will get for these rows."""
    if stored_as == "fp32":
        return rows
    found = quantised(rows, stored_as)
    back = found["rows"].float() * found["scale"].unsqueeze(-1) if "scale" in found else found["rows"].float()
    return F.normalize(back, dim=-1)


def read_entry(file: Path) -> StoreEntry:
    """From the header alone; raises DataError for a file that is torn or something else."""
    try:
        with safe_open(file, framework="pt") as opened:
            about = json.loads((opened.metadata() or {})[ABOUT])
            n, v, e = opened.get_slice("rows").get_shape()
            path = about.get("path", "")
            return StoreEntry(file, about["shard"], n, v, e, about["keys_sha256"], about["rows_sha256"], path)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{file} does not hold stored embeddings ({reason(error)}); remove it and embed again"
        ) from error


def open_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors, mapped; raises DataError when they are not those of a store or do not fit together."""
    try:
        with safe_open(file, framework="pt") as opened:
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file} is not readable ({reason(error)}); remove it and embed the shard again") from error
    rows = found.get("rows")
    if rows is None or rows.dim() != 3 or rows.dtype not in DTYPES.values() or "keys" not in found:
        raise DataError(
            f"{file} does not hold stored embeddings (tensors: {', '.join(found)}); remove it and embed again"
        )
    n, v, _ = rows.shape
    wanted = {"scale": (torch.float32, (n, v)), "crops": (torch.int32, (n, v, 5))}
    wrong = [
        name
        for name, (dtype, shape) in wanted.items()
        if name in found and (found[name].dtype != dtype or tuple(found[name].shape) != shape)
    ]
    if (rows.dtype == torch.int8) != ("scale" in found):
        wrong.append("scale")
    if wrong:
        raise DataError(
            f"{file}: {wrong[0]} does not fit its rows {list(rows.shape)}; remove it and embed the shard again"
        )
    return found


def reason(error: Exception) -> str:
    """One line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    """Of rows, scales and crops."""
    digest = hashlib.sha256()
    for name in ("rows", "scale", "crops"):
        if name in tensors:
            digest.update(tensors[name].contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_of(keys: Sequence[str]) -> str:
    """Hash of the sample keys, in order."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()

"""A folder of `dime export` as a model that is judged."""

import hashlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from toolkit.checkpoint.files import Written, written
from toolkit.config import Preprocess
from toolkit.embeddings import unit
from toolkit.errors import ConfigError, ExportError, ToolkitError
from toolkit.evaluate.exported_towers import (
    Towers,
    with_onnxruntime,
    with_open_clip,
    with_torch_export,
    with_transformers,
)
from toolkit.evaluate.judged import Judged
from toolkit.models.contract import normalise
from toolkit.models.tokenizers import Tokenizer

RECORD = "export.json"


@dataclass(frozen=True)
class Way:
    """How a format is opened."""

    towers: Callable[[Path, torch.device], Towers]
    files: tuple[str, ...]
    """Without which it is not whole."""
    package: str = ""
    """Of the export extra."""


WAYS = {
    "open_clip": Way(with_open_clip, ("open_clip_config.json", "open_clip_model.safetensors")),
    "hugging_face": Way(with_transformers, ("config.json", "model.safetensors"), "transformers"),
    "onnx": Way(with_onnxruntime, ("image.onnx", "text.onnx", "preprocessing.json"), "onnxruntime"),
    "onnx_int8": Way(with_onnxruntime, ("image.onnx", "text.onnx", "preprocessing.json"), "onnxruntime"),
    "torch_export": Way(with_torch_export, ("image.pt2", "text.pt2", "preprocessing.json")),
}


class ExportEncoder:
    """Two towers as the harness wants a model."""

    def __init__(self, towers: Towers, device: torch.device) -> None:
        """Rows come out on `device`, wherever the library computes."""
        self.preprocess: Preprocess = towers.preprocess
        self.towers, self.device = towers, device

    def tokenizer(self) -> Tokenizer:
        """Of the text tower."""
        return self.towers.tokenizer()

    @torch.no_grad()
    def encode_image(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Unit-norm fp32."""
        return unit(self.towers.image(normalise(images.to(self.device), self.preprocess)).to(self.device))

    @torch.no_grad()
    def encode_text(self, tokens: Int[Tensor, "m l"]) -> Float[Tensor, "m e"]:
        """Unit-norm fp32."""
        return unit(self.towers.text(tokens.to(self.device)).to(self.device))


def is_export(folder: Path) -> bool:
    """Is it a folder of `dime export`."""
    return (folder / RECORD).is_file()


def open_export(folder: Path, device: torch.device, name: str = "student") -> Judged:
    """The model of an export, every file of it compared with the record first; `name` is its row.

    Raises ExportError for a torn folder, one that holds a classifier without embeddings, or a program that could run code;
    ConfigError where the other library is not installed.
    """
    record = checked_record(folder)
    to, student = record["format"], record["student"]
    way = WAYS[to]
    if way.package and importlib.util.find_spec(way.package) is None:
        raise ConfigError(
            f"{folder} is a {to} export and needs {way.package}, not installed here; pip install 'dime-fm-toolkit[export]'"
        )
    try:
        towers = way.towers(folder, device)
    except ToolkitError:
        raise
    except Exception as error:  # each library has its own
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ExportError(
            f"the {to} export {folder} could not be loaded ({type(error).__name__}: {reason}) though its files are as they were "
            f"written; they were written with {record.get('versions')}"
        ) from error
    sizes = record.get("params", {})
    return Judged(
        name=name,
        what=f"{to} export {folder} of {student['name']} ({record['run']}, {record['checkpoint']})",
        encoder=ExportEncoder(towers, device),
        sha256=hash_of(record),
        embed_dim=student["embed_dim"],
        image_params=sizes.get("image"),
        text_params=sizes.get("text"),
        image_module=towers.image_module,
        logit_scale=towers.logit_scale,
        licence=record["text_tower"].get("licence", ""),
        facts={
            key: record[key]
            for key in ("format", "student", "text_tower", "checkpoint", "parity", "int8")
            if key in record
        },
    )


def hash_of(record: dict[str, Any]) -> str:
    """Of the format and of every file: weights, settings, vocabulary."""
    files = sorted(record["sha256"].items())
    return hashlib.sha256(json.dumps([record["format"], files]).encode()).hexdigest()


def checked_record(folder: Path) -> dict[str, Any]:
    """`export.json`, once every file that it names has the size and hash that it says."""
    try:
        record = json.loads((folder / RECORD).read_text())
        known = {name: Written(int(record["bytes"][name]), str(found)) for name, found in record["sha256"].items()}
        to = str(record["format"])
        assert record["student"]["name"] and record["student"]["embed_dim"] and record["text_tower"]["of"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise ExportError(
            f"{folder} holds no whole {RECORD} ({type(error).__name__}: {error}); give a folder of `dime export`, and export "
            "anew what was exported before it had hashes"
        ) from error
    if to not in WAYS:
        raise ExportError(f"{folder}: the format {to!r} is not known; known: {', '.join(WAYS)}")
    if "classes" in record:
        raise ExportError(
            f"{folder} is a classifier of {len(record['classes']['classnames'])} classes with its head baked in: it gives "
            "probabilities, and these tasks need embeddings; export the run again without --classes"
        )
    wrong = [trouble for name, one in known.items() if (trouble := trouble_of(folder, name, one))]
    wrong += [f"{name} is not in {RECORD}" for name in WAYS[to].files if name not in known]
    if wrong:
        raise ExportError(
            f"{folder} is not what was exported: {'; '.join(wrong[:3])} ({len(wrong)} in all); copy it again, or export it again"
        )
    return dict(record)


def trouble_of(folder: Path, name: str, wanted: Written) -> str:
    """What is wrong with a file, or an empty string."""
    path = folder / name
    if Path(name).name != name:
        return f"{name!r} is no name of a file in it"
    if not path.is_file():
        return f"{name} is missing"
    if (size := path.stat().st_size) != wanted.bytes:
        return f"{name} has {size:,} bytes instead of {wanted.bytes:,}"
    return "" if written(path) == wanted else f"{name} has the right size and other contents"

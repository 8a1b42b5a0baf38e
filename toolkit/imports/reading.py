"""A file or folder from elsewhere -> its tensors by name. Nothing in it is run."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from toolkit.errors import CheckpointError

WRAPPERS = ("model", "image_state_dict", "state_dict")
"""Names under which training scripts save the weights, beside optimizer and epoch."""
IN_FOLDERS = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
"""Names of weights in folders, the first that is there."""
CONFIGS = ("config.json", "open_clip_config.json", "preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Weights:
    """What a file holds, its wrappers and the prefix `module.` taken off."""

    path: Path
    """As it was given."""
    tensors: dict[str, Tensor]
    wrappers: tuple[str, ...] = ()
    """Names under which the tensors lay, outermost first."""
    beside: tuple[str, ...] = ()
    """What else the file held: epoch, optimizer, numbers."""
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """JSON files of CONFIGS in the same folder."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Of each file read, by its name."""


def read_weights(path: Path) -> Weights:
    """Read safetensors, a `torch.save` file (tensors and plain values only), or a folder of one of these.

    Raises CheckpointError when there is no such file, or it holds anything but tensors and plain values.
    """
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; give a weights file, or the folder of a model")
    files = weight_files(path)
    found: dict[str, Any] = {}
    for file in files:
        found |= read_file(file)
    tensors, wrappers, beside = unwrapped(found, path)
    if tensors and all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
        wrappers = (*wrappers, "module.")
    bad = [key for key, value in tensors.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise CheckpointError(
            f"{path}: {', '.join(bad[:3])} hold numbers that are not finite ({len(bad)} tensors in all); "
            "the training that wrote them failed, take an earlier file"
        )
    hashes = {file.name: hash_of(file) for file in files}
    return Weights(path, tensors, wrappers, beside, read_configs(path), hashes)


def hash_of(file: Path) -> str:
    """Its sha256."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def weight_files(path: Path) -> list[Path]:
    """The file itself; of a folder its weights, several where an index says so."""
    if not path.is_dir():
        return [path]
    name = next((name for name in IN_FOLDERS if (path / name).is_file()), None)
    if name is None and (path / "export.json").is_file():
        raise CheckpointError(
            f"{path} is an export of a computation, which says nothing of the architecture to build a student from; import an "
            "open_clip or hugging_face export, or use the run itself"
        )
    if name is None:
        raise CheckpointError(f"{path} holds no weights; looked for {', '.join(IN_FOLDERS)}; or give the file itself")
    if not name.endswith(".json"):
        return [path / name]
    parts = read_json(path / name).get("weight_map")
    names = sorted(set(parts.values())) if isinstance(parts, dict) and parts else []
    if not names or any(not isinstance(part, str) or Path(part).name != part for part in names):
        raise CheckpointError(f"{path / name} has no weight_map of file names in its own folder; download it again")
    if missing := [part for part in names if not (path / part).is_file()]:
        raise CheckpointError(f"{path}: {missing[0]} is missing ({len(missing)} of {len(names)}); download the rest")
    return [path / part for part in names]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises CheckpointError for anything else."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no readable JSON ({error}); download it again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__} instead of an object; download it again")
    return found


def read_configs(path: Path) -> dict[str, dict[str, Any]]:
    """What lies beside the weights, by file name."""
    folder = path if path.is_dir() else path.parent
    return {name: read_json(folder / name) for name in CONFIGS if (folder / name).is_file()}


def read_file(path: Path) -> dict[str, Any]:
    """One file. Torch files are read without running what they hold."""
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except Exception as error:
            raise CheckpointError(f"{path} could not be read as safetensors ({error}); download it again") from error
    if is_torchscript(path):
        raise CheckpointError(
            f"{path} is a TorchScript archive, a program that would have to be run (OpenAI's downloads are such). If you trust "
            "where it came from, write its weights to a file once and import that:\n"
            f"  python -c \"import torch; torch.save(torch.jit.load({str(path)!r}, map_location='cpu').state_dict(), "
            f'{str(path.with_suffix(".weights.pt"))!r})"'
        )
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} could not be read as tensors and plain values ({type(error).__name__}: {reason}); what would have to run "
            "code is refused: save the state_dict alone, best as safetensors"
        ) from error
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path} holds a {type(found).__name__} instead of weights by name; save the state_dict")
    return dict(found)


def is_torchscript(path: Path) -> bool:
    """Is it an archive of torch.jit.save, by the names inside."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def unwrapped(found: dict[str, Any], path: Path) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[str, ...]]:
    """(tensors, wrappers, what lay beside them); raises CheckpointError when no wrapper, or more than one, is known."""
    wrappers: list[str] = []
    beside: list[str] = []
    while not any(isinstance(value, Tensor) for value in found.values()):
        inside = [name for name in WRAPPERS if isinstance(found.get(name), Mapping)]
        if len(inside) != 1:
            known = f"several of {', '.join(inside)}" if inside else f"none of {', '.join(WRAPPERS)}"
            raise CheckpointError(
                f"{path} holds no tensors by name at its top and {known} below it, only {first_keys(found)}; "
                "save the one state_dict that is meant"
            )
        beside += [str(key) for key in found if key != inside[0]]
        found = dict(found[inside[0]])
        wrappers.append(inside[0])
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    groups = [str(key) for key, value in found.items() if isinstance(value, Mapping)]
    if groups:
        raise CheckpointError(
            f"{path} holds tensors and groups ({', '.join(groups[:3])}) side by side; save the one state_dict that is meant"
        )
    beside += [str(key) for key in found if str(key) not in tensors]
    return tensors, tuple(wrappers), tuple(beside)


def first_keys(found: Mapping[Any, Any]) -> str:
    """The first names, for messages."""
    shown = ", ".join(map(str, list(found)[:4])) or "nothing"
    return f"{shown} ... ({len(found)} in all)" if len(found) > 4 else shown

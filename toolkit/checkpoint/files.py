"""Folders of checkpoints: their names, the manifest that says which are complete, the pointer, and which are kept."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from toolkit import distributed
from toolkit.data.index import write_aside

MANIFEST = "manifest.json"
STATE = "state.json"
POINTER = "newest"
"""File beside the checkpoints with the name of the newest one; for people and scripts, a resume looks for itself."""


def folder_of(out_dir: Path, step: int) -> Path:
    """Folder of the checkpoint after `step` updates."""
    return out_dir / "checkpoints" / f"step_{step:08d}"


def step_of(folder: Path) -> int:
    """Undo of `folder_of`."""
    return int(folder.name.removeprefix("step_"))


def aside_of(target: Path, launch: str) -> Path:
    """Where a checkpoint is written before it has its name; each launch has its own, so that leavings never mix."""
    return target.with_name(f".{target.name}.{launch}.tmp")


def clear_leavings(out_dir: Path) -> None:
    """Remove what launches that were killed while saving have left."""
    for folder in (out_dir / "checkpoints").glob(".step_*.tmp"):
        shutil.rmtree(folder, ignore_errors=True)


def steps_saved(out_dir: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest first; folders that are being written are not among them."""
    return sorted(path for path in (out_dir / "checkpoints").glob("step_*") if re.fullmatch(r"step_\d+", path.name))


@dataclass(frozen=True)
class Written:
    """A file as it was written: what the manifest says of it."""

    bytes: int
    sha256: str


def publish(aside: Path, target: Path, files: dict[str, Written]) -> None:
    """Write the manifest, flush it, rename the folder into place, and point at it.

    A folder that has the name already (a torn one that a resume passed over) goes out of the way first.
    """
    with open(aside / MANIFEST, "w") as file:
        json.dump({name: vars(files[name]) for name in sorted(files)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    if target.exists():
        shutil.rmtree(target)
    aside.rename(target)
    flush(target.parent)
    write_aside(target.parent / POINTER, f"{target.name}\n")


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def written(path: Path) -> Written:
    """Size and hash of a file, read back."""
    with open(path, "rb") as file:
        return Written(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def complaint(folder: Path) -> str:
    """Why a checkpoint folder is not complete, or an empty string when every file has its size and hash."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        wanted = {name: Written(int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"no readable {MANIFEST} ({type(error).__name__}: {error})"
    for name, want in wanted.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != want.bytes:
            return f"{name} has {path.stat().st_size} bytes instead of {want.bytes}"
        if written(path) != want:
            return f"{name} is not what was saved (hash differs)"
    return "" if STATE in wanted else f"the {MANIFEST} lists no {STATE}"


def newest(out_dir: Path) -> Path | None:
    """The newest complete checkpoint; torn ones are passed over and named. None if there is none."""
    for folder in reversed(steps_saved(out_dir)):
        why = complaint(folder)
        if not why:
            return folder
        distributed.say(f"checkpoint {folder} is torn and passed over: {why}")
    return None


def prune(out_dir: Path, keep_last: int, keep_every_steps: int, kept: Iterable[int | None]) -> None:
    """Remove all but the last `keep_last` checkpoints, those at a multiple of `keep_every_steps` (0: none), and `kept`."""
    for folder in steps_saved(out_dir)[:-keep_last]:
        step = step_of(folder)
        if step not in kept and not (keep_every_steps and step % keep_every_steps == 0):
            shutil.rmtree(folder)

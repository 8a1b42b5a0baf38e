"""DeepSpeed's checkpoint files by way of memory: what a step waits for is a copy, and what is read back runs no code."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointCommitInfo, CheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils import fragment_address
from torch import Tensor

from toolkit.checkpoint.files import flush
from toolkit.errors import CheckpointError

CLASSES = [LossScaler, ZeroStageEnum, fragment_address]
"""All classes in DeepSpeed's files beside tensors and plain values."""


class HostCopy(CheckpointEngine):
    """Stands in for DeepSpeed's own writer during one save: keeps what would be written, by path."""

    def __init__(self) -> None:
        """Empty."""
        super().__init__()
        self.files: dict[Path, Any] = {}

    def create(self, info: CheckpointCommitInfo) -> None:
        """Nothing to prepare."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing touches the disk while a step waits."""

    def save(self, state_dict: Any, path: str) -> None:
        """Copy every tensor to host memory, so that the next update cannot change it."""
        self.files[Path(path)] = on_host(state_dict)

    def load(self, path: str, map_location: Any = None) -> Any:
        """Nothing is loaded through it."""
        raise NotImplementedError(path)

    def commit(self, info: CheckpointCommitInfo) -> bool:
        """Whoever writes the files says when they are there."""
        return True

    def preserves_storage_sharing(self) -> bool:
        """Copies are tensors of their own: DeepSpeed need not clone them before."""
        return False


@contextmanager
def captured(engine: Any) -> Iterator[HostCopy]:
    """What `engine.save_checkpoint` writes inside goes into memory instead."""
    usual, copy = engine.checkpoint_engine, HostCopy()
    engine.checkpoint_engine = copy
    engine._copy_recovery_script = lambda _: None  # a script that DeepSpeed lays beside; student.safetensors needs none
    try:
        yield copy
    finally:
        engine.checkpoint_engine = usual
        del engine._copy_recovery_script


class PlainRead(CheckpointEngine):
    """Stands in for DeepSpeed's own reader, which unpickles whatever is there: tensors, plain values, known classes only."""

    def create(self, info: CheckpointCommitInfo) -> None:
        """Nothing to prepare."""

    def save(self, state_dict: Any, path: str) -> None:
        """Nothing is saved through it."""
        raise NotImplementedError(path)

    def load(self, path: str, map_location: Any = None) -> Any:
        """Raises CheckpointError for a file that holds anything else."""
        try:
            with torch.serialization.safe_globals(CLASSES):
                return torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except UnpicklingError as error:
            raise CheckpointError(
                f"{path} holds something that a checkpoint of DeepSpeed 0.19 does not ({str(error).splitlines()[0]}); it is not run. "
                "Remove this folder to go on from an older one"
            ) from error

    def commit(self, info: CheckpointCommitInfo) -> bool:
        """Nothing is saved through it."""
        return True


@contextmanager
def plainly_read(engine: Any) -> Iterator[None]:
    """What `engine.load_checkpoint` reads inside can run no code."""
    usual = engine.checkpoint_engine
    engine.checkpoint_engine = PlainRead()
    try:
        yield
    finally:
        engine.checkpoint_engine = usual


def on_host(value: Any) -> Any:
    """The same structure with every tensor copied to the CPU, without storage that it shares with others."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    if type(value) is dict or type(value).__name__ == "OrderedDict":
        return type(value)((key, on_host(part)) for key, part in value.items())
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(on_host(part) for part in value)
    return value


def write_state(state: Any, path: Path) -> None:
    """`torch.save`, flushed, and every record read back and compared with its checksum; raises CheckpointError, OSError."""
    try:
        torch.save(state, path)
    except RuntimeError as error:  # torch's own writer says nothing of why; the room that is left is told with it
        raise OSError(f"{path.name} could not be written whole, most likely for lack of space on the disk") from error
    flush(path)
    with zipfile.ZipFile(path) as archive:
        torn = archive.testzip()
    if torn is not None:
        raise CheckpointError(f"{path}: {torn} reads back otherwise than it was written; look at the disk")

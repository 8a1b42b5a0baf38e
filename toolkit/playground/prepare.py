"""What the quickstart recipes need of the embedded world: its teacher, and its shards written once for all ranks."""

from pathlib import Path
from typing import Any

TEACHER = Path(__file__).parent / "assets" / "teacher"
"""Checkpoint folder of the embedded teacher, made by recipes/train_teacher.py (its docstring has the command)."""


def prepare_world(folder: Path, **amounts: Any) -> None:
    """Write the world if it is not there; rank 0 writes, the others wait."""
    from toolkit import distributed
    from toolkit.playground.shards import write_world

    distributed.init()
    if distributed.is_main():
        write_world(folder, **amounts)
    distributed.barrier()

"""How a recipe or a verb ends: a user's mistake is one message and exit code 2, never a traceback."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from toolkit import config
from toolkit.config import Run
from toolkit.config.ds_config import load_ds_config
from toolkit.errors import ToolkitError

LOST_PEER = ("Connection closed by peer", "Connection reset by peer")
"""How gloo says that another rank is gone; that rank has said why, a stack of this one would only hide it."""


def start(defaults: Run, overrides: Sequence[str]) -> dict[str, Any]:
    """What every recipe does: resolve, check, and train; with `--dry-run` only print (no torch, no data, no files)."""
    run = config.resolve(defaults, overrides)
    load_ds_config(run.deepspeed)
    batch = config.batch_arithmetic(run, config.world_size_from_environment())
    if run.dry_run:
        print(
            f"{config.to_yaml(run)}\n{batch.in_words()}\n{run.steps:,} steps see {batch.global_images * run.steps:,} images"
        )
        return {}
    from toolkit.train import train

    return train(run)


def launch(main: Callable[[Sequence[str]], Any], argv: Sequence[str] | None = None) -> None:
    """Call `main` with the command line's words and leave the process group tidily.

    Mistakes that every rank finds are printed once, by rank 0; what only another rank finds is printed with its number.
    """
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
    try:
        main(list(sys.argv[1:] if argv is None else argv))
    except ToolkitError as error:
        said_by_all = type(error).__name__ in ("ConfigError", "CheckpointError", "NonFiniteLoss")
        if rank == "0" or not said_by_all:
            where = "" if rank == "0" else f" (rank {rank})"
            print(f"{type(error).__name__}{where}: {error}", file=sys.stderr, flush=True)
        leave(2)
    except RuntimeError as error:
        if not any(sign in str(error) for sign in LOST_PEER):
            raise
        print(f"rank {rank} stops because another rank did; its message says why", file=sys.stderr, flush=True)
        leave(3)
    leave(0)


def leave(code: int) -> None:
    """Exit; after a failure without waiting for ranks that may hang in a collective."""
    if code and "torch" in sys.modules:
        sys.stdout.flush()
        os._exit(code)
    if "torch" in sys.modules:
        from toolkit import distributed

        distributed.shutdown()
    sys.exit(code)

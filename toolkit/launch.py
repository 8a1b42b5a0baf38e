"""How a recipe or a verb ends: a user's mistake is one message and exit code 2, never a traceback."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from toolkit import config, launches, signals
from toolkit.config import Run
from toolkit.config.ds_config import load_ds_config
from toolkit.errors import ToolkitError

IN_TRAINING = {"NonFiniteLoss": 4, "DataError": 6, "CheckpointError": 6}
"""Exit codes once steps have been done. All: 0 done or stopped with a checkpoint, 1 unexpected, 2 a user's mistake, 3 another rank
is gone, 4 a number that is none, 5 nothing moved any more (toolkit/heartbeat.py), 6 data or checkpoints."""
SAID_BY_ALL = ("ConfigError", "CheckpointError", "NonFiniteLoss")
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
    if rank_number() == 0:
        launches.begin(Path(run.out_dir))
    from toolkit import allocator, distributed
    from toolkit.train import train

    if distributed.device().type == "cpu":
        allocator.keep_freed_memory()
    return train(run)


def launch(main: Callable[[Sequence[str]], Any], argv: Sequence[str] | None = None, *, stoppable: bool = True) -> None:
    """Call `main` with the command line's words and leave the process group tidily, with an exit code that says how it went.

    `stoppable`: USR1 and TERM ask it to save and stop, instead of ending it. Mistakes that every rank finds are printed
    once, by rank 0; what only another rank finds is printed with its number.
    """
    if stoppable:
        signals.install()
    rank = rank_number()
    try:
        main(list(sys.argv[1:] if argv is None else argv))
    except signals.Interrupted as why:
        if rank == 0:
            print(why, flush=True)
            if not signals.asked().again:
                launches.forbid_repeat()
        leave(0)
    except ToolkitError as error:
        kind = type(error).__name__
        if rank == 0 or kind not in SAID_BY_ALL:
            where = "" if rank == 0 else f" (rank {rank})"
            print(f"{kind}{where}: {error}", file=sys.stderr, flush=True)
        if rank == 0 and (kind != "DataError" or not launches.stepping):  # a server may be back in a while
            launches.forbid_repeat()
        leave(IN_TRAINING.get(kind, 2) if launches.stepping else 2)
    except KeyboardInterrupt:
        if stoppable:
            raise
        print("stopped by Ctrl-C", file=sys.stderr, flush=True)
        leave(130)
    except RuntimeError as error:
        if not any(sign in str(error) for sign in LOST_PEER):
            raise
        print(f"rank {rank} stops because another rank did; its message says why", file=sys.stderr, flush=True)
        leave(3)
    leave(0)


def rank_number() -> int:
    """Of this process, before torch is imported."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def leave(code: int) -> None:
    """Exit; after a failure without waiting for ranks that may hang in a collective."""
    if code and "torch" in sys.modules:
        from toolkit import heartbeat

        heartbeat.wait_if_given_up()
        sys.stdout.flush()
        os._exit(code)
    if "torch" in sys.modules:
        from toolkit import distributed

        distributed.shutdown()
    sys.exit(code)

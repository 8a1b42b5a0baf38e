"""Options of `dime doctor`."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from toolkit.errors import ConfigError

EPILOG = """\
On one machine: `dime doctor recipes/x.py` (one process) or with --ranks N. On several, started as the run will be:
  srun dime doctor recipes/x.py
  torchrun --nnodes ... --nproc_per_node ... -m toolkit.cli doctor recipes/x.py
  deepspeed --module toolkit.cli doctor recipes/x.py
Exit code 0: ready (warnings may stand); 1: something is bad; 2: the recipe, a setting or an option is wrong.
"""


class ListChecks(argparse.Action):
    """`--list`: print and leave, without a recipe."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Called by argparse."""
        from toolkit.doctor.command import listed

        print(listed())
        parser.exit()


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """What to check, and how long."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("recipe", help="Python file with DEFAULTS and main, such as recipes/distill_vitb32.py")
    add(
        "--ranks",
        type=int,
        default=0,
        metavar="N",
        help="processes on this machine (default: those of the launcher, or one)",
    )
    add("--skip", default="", metavar="NAME,...", help="checks to leave out, and those that need them")
    add("--deep", action="store_true", help="read every local shard and compare its hash; fetch a remote one")
    add("--limit", type=float, default=None, metavar="SECONDS", help="for each check (default: see --list)")
    add("--wait", type=float, default=120.0, metavar="SECONDS", help="for all ranks to come (default 120)")
    add("--list", action=ListChecks, nargs=0, help="name the checks and leave")
    add("--json", action="store_true", help="print one JSON object as the last line")
    add("overrides", nargs="*", help="key=value, as for the recipe")


def run_doctor(words: argparse.Namespace, argv: Sequence[str]) -> None:
    """Look at this rank; with --ranks this command is started so often."""
    from toolkit.config import batch_arithmetic, resolve, world_size_from_environment
    from toolkit.config.ds_config import load_ds_config
    from toolkit.recipe import load_defaults

    launched = "RANK" in os.environ or "SLURM_STEP_ID" in os.environ
    for name, seconds in (("--limit", words.limit), ("--wait", words.wait)):
        if seconds is not None and not seconds > 0:
            raise ConfigError(f"{name} ({seconds:g}) must be above 0")
    run = resolve(load_defaults(words.recipe), words.overrides)
    load_ds_config(run.deepspeed)
    if words.ranks < 0 or (words.ranks and launched and words.ranks != world_size_from_environment()):
        raise ConfigError(f"--ranks {words.ranks}: give a number above 0, and none under a launcher, which has its own")
    batch_arithmetic(run, words.ranks or world_size_from_environment())
    if words.ranks > 1 and not launched:
        from toolkit.doctor.local import start_ranks

        sys.exit(start_ranks(words.ranks, argv))
    from toolkit.doctor.command import Options, doctor  # a bad setting is told before torch is imported
    from toolkit.launch import leave

    skip = tuple(name for name in words.skip.split(",") if name)
    code = doctor(run, Options(skip, words.deep, words.limit, words.wait, words.json))
    if world_size_from_environment() > 1:
        leave(code)
    sys.exit(code)

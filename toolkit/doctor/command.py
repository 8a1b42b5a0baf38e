"""What a rank of the doctor does: meet the others, go through the checks with them, and on rank 0 print the table."""

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit import distributed
from toolkit.config import Run, batch_arithmetic, world_size_from_environment
from toolkit.config.ds_config import load_ds_config
from toolkit.doctor.board import Board, NoBoard, find_ranks, open_store
from toolkit.doctor.check import Check, Context, Row
from toolkit.doctor.checks import CHECKS
from toolkit.doctor.disk import clean
from toolkit.doctor.table import as_dict, as_text, summary
from toolkit.doctor.turns import Leader, follow
from toolkit.errors import ConfigError
from toolkit.registry import did_you_mean


@dataclass(frozen=True)
class Options:
    """Of the command line."""

    skip: tuple[str, ...] = ()
    deep: bool = False
    limit: float | None = None
    """Seconds for each check, instead of its own."""
    wait: float = 120.0
    """Seconds for all ranks to come: the slowest has to import torch from a cold disk."""
    as_json: bool = False


def doctor(run: Run, options: Options) -> int:
    """Every rank calls it. Exit code: 0 all good or nothing worse than a warning, 1 something is bad; the same on all ranks.

    Raises ConfigError for options and settings that make no sense.
    """
    start = time.monotonic()
    chosen = chosen_checks(options.skip)
    load_ds_config(run.deepspeed)
    batch = batch_arithmetic(run, world_size_from_environment())
    rank, world = 0, batch.world_size
    if world > 1:
        find_ranks()
        rank = int(os.environ["RANK"])
    try:
        board = Board(open_store(rank, world, options.wait), rank)
        board.post(f"here/{rank}", os.environ.get("SLURMD_NODENAME") or platform.node())
        hosts, nonce = met(board, world, options.wait)
        context = Context(run, batch, rank, distributed.device(), hosts, board, nonce, options.deep, options.limit)
        if rank:
            code = follow(context, CHECKS)
            board.post(f"left/{rank}", True)
            return code
        return lead(context, chosen, options, start)
    except (NoBoard, TimeoutError) as error:
        print(f"rank {rank} ({platform.node()}) and rank 0 cannot talk: {error}", file=sys.stderr, flush=True)
        return 1


def met(board: Board, world: int, seconds: float) -> tuple[dict[int, str], str]:
    """Hosts by rank, as rank 0 has seen them come, and a word of this launch."""
    if board.rank:
        note = board.read("crew", 2 * seconds)
        return {int(rank): host for rank, host in note["hosts"].items()}, note["nonce"]
    deadline, hosts = time.monotonic() + seconds, {}
    for rank in range(world):
        try:
            hosts[rank] = board.read(f"here/{rank}", max(deadline - time.monotonic(), 0.1))
        except TimeoutError:
            continue
    nonce = os.urandom(8).hex()
    board.post("crew", {"hosts": hosts, "nonce": nonce})
    return hosts, nonce


def lead(context: Context, chosen: Sequence[Check], options: Options, start: float) -> int:
    """Rank 0: all checks, the table, and the word to go."""
    leader = Leader(context, say=lambda text: print(text, end="", file=sys.stderr, flush=True))
    rows = came(context, options.wait)
    try:
        rows += leader.run(chosen)
    finally:
        clean(context)
    seconds = time.monotonic() - start
    left_out = [name for name in CHECKS if name not in {check.name for check in chosen}]
    code = int(any(row.verdict == "bad" for row in rows))
    print(as_text(rows, colour=sys.stdout.isatty()), flush=True)
    print(f"\n{summary(rows, context, seconds, left_out)}", flush=True)
    if options.as_json:
        print(json.dumps(as_dict(rows, context, seconds, left_out)), flush=True)
    leader.end(code)
    return code


def came(context: Context, seconds: float) -> list[Row]:
    """Are all ranks here."""
    absent = sorted(set(range(context.world)) - set(context.hosts))
    hosts = {host: [r for r in context.hosts if context.hosts[r] == host] for host in context.hosts.values()}
    shown = ", ".join(f"{host}: {len(ranks)}" for host, ranks in hosts.items())
    wanted = f"{context.world} ranks"
    if not absent:
        return [Row("ranks by host", context.where(context.hosts), shown, wanted, check="ranks")]
    why = f"did not come within {seconds:.0f} s"
    todo = "see what they printed; can their nodes reach MASTER_ADDR and MASTER_PORT?"
    return [Row("ranks by host", context.where(absent), why, wanted, "bad", todo, "ranks")]


def chosen_checks(skip: Sequence[str]) -> list[Check]:
    """All but these and those that need them; raises ConfigError for a name that is none."""
    for name in skip:
        if name not in CHECKS:
            raise ConfigError(f"--skip {name}: no such check{did_you_mean(name, CHECKS)} Known: {', '.join(CHECKS)}")
    gone = set(skip)
    for check in CHECKS.values():  # a check comes after those it needs
        if gone & set(check.needs):
            gone.add(check.name)
    return [check for check in CHECKS.values() if check.name not in gone]


def listed() -> str:
    """Name, limit and subject of each check."""
    width = max(map(len, CHECKS))
    return "\n".join(
        f"{check.name:<{width}}  {check.about} (at most {check.seconds:.0f} s)" for check in CHECKS.values()
    )

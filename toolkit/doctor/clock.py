"""Do the ranks' clocks agree: rank 0 asks each for the time and takes the middle of question and answer for its own."""

import time
from typing import Any

from toolkit.doctor.check import Check, Context, Facts, Row

SKEW_SECONDS = 1.0
"""More, and times of change of files on a shared folder, logs and time limits mislead."""
WAIT_SECONDS = 5.0


def now() -> float:
    """Of this host's clock."""
    return time.time()


def measure(context: Context) -> dict[str, float]:
    """On rank 0: seconds that each rank is ahead; on the others nothing."""
    board = context.board
    if context.rank:
        board.read(f"clock/ask/{context.rank}", WAIT_SECONDS * context.world)
        board.post(f"clock/answer/{context.rank}", now())
        return {}
    ahead = {}
    for rank in sorted(set(context.hosts) - {0}):
        asked = now()
        board.post(f"clock/ask/{rank}", True)
        try:
            there = float(board.read(f"clock/answer/{rank}", WAIT_SECONDS))
        except TimeoutError:
            continue  # it is named as silent
        ahead[str(rank)] = there - (asked + now()) / 2
    return ahead


def judge(found: Facts, context: Context) -> list[Row]:
    """A row for each rank that is off, else one for all."""
    ahead: dict[int, Any] = {int(rank): value for rank, value in found.get(0, {}).items()}
    rows = [
        Row(
            "clock", context.where([rank]), f"{abs(value):,.1f} s {'ahead of' if value > 0 else 'behind'} rank 0",
            f"within {SKEW_SECONDS:g} s", "bad", "start the time service there (chronyd, ntpd), or leave that node out",
        )
        for rank, value in ahead.items()
        if abs(value) > SKEW_SECONDS
    ]  # fmt: skip
    if rows:
        return rows
    worst = max((abs(value) for value in ahead.values()), default=0.0)
    return [
        Row("clocks", context.where(found), f"within {1000 * worst:,.1f} ms of rank 0's", f"within {SKEW_SECONDS:g} s")
    ]


CHECK = Check("clock", "clocks of the hosts", measure, judge)

"""Can the ranks reduce together: the right sum, how fast, how soon."""

import os
import statistics
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from toolkit.doctor.board import second_store
from toolkit.doctor.check import Check, Context, Facts, Row
from toolkit.doctor.compute import wait

SECONDS = 180.0
CPU_NUMBERS, GPU_NUMBERS = 1 << 21, 1 << 26
"""Of four bytes each."""
REPEATS, SMALL_REPEATS = 5, 20
NODE_BYTES, FABRIC_BYTES = 5e9, 1e9
"""Per second over the bus, of GPUs in one node and of several nodes: slower, and something is set up wrongly."""


def join_group(context: Context) -> None:
    """The process group of this launch, with the checks' time limits instead of training's."""
    if context.world == 1 or dist.is_initialized():
        return
    os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = "0"  # else its watchdog ends the process, and with it the report
    seconds = context.limit or SECONDS
    dist.init_process_group(
        "nccl" if context.device.type == "cuda" else "gloo",
        store=second_store(seconds),
        rank=context.rank,
        world_size=context.world,
        timeout=timedelta(seconds=seconds),
    )


def reduce_numbers(numbers: torch.Tensor) -> None:
    """Sum over ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(numbers)


def measure(context: Context) -> dict[str, Any]:
    """Is the sum right, and the times of a large and a tiny reduction."""
    join_group(context)
    count = GPU_NUMBERS if context.device.type == "cuda" else CPU_NUMBERS
    pattern = (torch.arange(count, device=context.device) % 16).float()
    numbers = pattern + context.rank % 16
    reduce_numbers(numbers)
    wanted = context.world * pattern + sum(rank % 16 for rank in range(context.world))  # exact in fp32
    wrong = int((numbers != wanted).sum())
    times = [timed(pattern, context) for _ in range(REPEATS)]
    small = torch.ones(1, device=context.device)
    waits = [timed(small, context) for _ in range(SMALL_REPEATS)]
    return {
        "wrong": wrong, "count": count, "seconds": min(times), "latency": statistics.median(waits),
    }  # fmt: skip


def timed(numbers: torch.Tensor, context: Context) -> float:
    """Seconds of one reduction."""
    numbers = numbers.clone()
    wait(context.device)
    start = time.perf_counter()
    reduce_numbers(numbers)
    wait(context.device)
    return time.perf_counter() - start


def judge(found: Facts, context: Context) -> list[Row]:
    """A row for wrong sums, one for the speed."""
    everyone = context.where(found)
    if context.world == 1:
        return [Row("sum over ranks", everyone, "one rank: nothing to reduce")]
    wrong = {rank: facts for rank, facts in found.items() if facts["wrong"]}
    if wrong:
        facts = next(iter(wrong.values()))
        shown = f"{facts['wrong']:,} of {facts['count']:,} sums are wrong"
        todo = "the network or a device corrupts data: leave nodes out one by one (srun --exclude) until the sums are right"
        return [Row("sum over ranks", context.where(wrong), shown, "exact sums", "bad", todo)]
    size = 4 * next(iter(found.values()))["count"]
    seconds = max(facts["seconds"] for facts in found.values())
    bus = size / seconds * 2 * (context.world - 1) / context.world
    latency = max(facts["latency"] for facts in found.values())
    shown = f"{size / 2**20:.0f} MiB at {bus / 1e9:,.2f} GB/s over the bus, one number in {1e6 * latency:,.0f} us"
    rows = [Row("sum over ranks", everyone, "exact", "exact sums")]
    if context.device.type != "cuda":
        return [*rows, Row("speed of it", everyone, shown)]
    floor = NODE_BYTES if len(set(context.hosts.values())) == 1 else FABRIC_BYTES
    slow = bus < floor
    todo = "see with NCCL_DEBUG=INFO which network it took (sockets instead of InfiniBand or EFA?)" if slow else ""
    return [*rows, Row("speed of it", everyone, shown, f"{floor / 1e9:g} GB/s", "warn" if slow else "good", todo)]


CHECK = Check("allreduce", "sums over all ranks: right, fast", measure, judge, seconds=SECONDS, together=True)

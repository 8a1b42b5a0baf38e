"""How fast each rank multiplies matrices, all at the same time, beside the others."""

import statistics
import time
from typing import Any

import torch

from toolkit.doctor.check import Check, Context, Facts, Row

SLOW = 0.85
"""Of the median: slower ranks hold up all others at every step."""
CPU_SIDE, GPU_SIDE = 1024, 8192
REPEATS, SECONDS = 7, 2.0
"""At least so many and so long; the best counts: what disturbs a rank now and then is no fault of its device."""


def measure(context: Context) -> dict[str, Any]:
    """Tera-operations per second, and whether the same product came out twice."""
    on_gpu = context.device.type == "cuda"
    side = GPU_SIDE if on_gpu else CPU_SIDE
    dtype = torch.bfloat16 if on_gpu and context.run.precision == "bf16" else torch.float32
    generator = torch.Generator(context.device).manual_seed(0)
    left, right = (torch.randn(side, side, device=context.device, generator=generator).to(dtype) for _ in range(2))
    first, batch = left @ right, 10 if on_gpu else 1
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < REPEATS or time.perf_counter() - begun < SECONDS:
        wait(context.device)
        start = time.perf_counter()
        for _ in range(batch):
            again = left @ right
        wait(context.device)
        times.append((time.perf_counter() - start) / batch)
    return {"tflops": 2 * side**3 / min(times) / 1e12, "same": torch.equal(first, again), "dtype": str(dtype)[6:]}


def wait(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def better(one: Any, other: Any) -> dict[str, Any]:
    """The faster of two measurements; wrong in one is wrong."""
    return {**max(one, other, key=lambda facts: facts["tflops"]), "same": one["same"] and other["same"]}


def judge(found: Facts, context: Context) -> list[Row]:
    """One row for all, and one for each that is slow or wrong."""
    speeds = {rank: float(facts["tflops"]) for rank, facts in found.items()}
    median = statistics.median(speeds.values())
    rows = []
    for rank, speed in speeds.items():
        if not found[rank]["same"]:
            rows.append(
                Row(
                    "one product twice", context.where([rank]), "two results", "the same bits", "bad",
                    "the device computes wrongly: leave that node out and have it looked at",
                )
            )  # fmt: skip
        if speed < SLOW * median:
            rows.append(
                Row(
                    "matrix products", context.where([rank]), f"{shown(speed)}, {speed / median:.2f} of the median",
                    f"at least {SLOW:.2f} of {shown(median)}", "bad",
                    "leave that node out (srun --exclude): heat, power limit, another job on it",
                )
            )  # fmt: skip
    if not rows:
        slowest = min(speeds, key=lambda rank: speeds[rank])
        beside = f", slowest {shown(speeds[slowest])} on {context.where([slowest])}" if len(speeds) > 1 else ""
        kind = found[slowest]["dtype"]
        rows.append(
            Row(f"{kind} products", context.where(found), f"median {shown(median)}{beside}", f"above {SLOW:.2f} of it")
        )
    return rows


def shown(tflops: float) -> str:
    """`312 TFLOP/s`."""
    return f"{tflops:,.0f} TFLOP/s" if tflops >= 10 else f"{1000 * tflops:,.0f} GFLOP/s"


CHECK = Check("compute", "speed of matrix products, all ranks at once", measure, judge, seconds=120.0, better=better)

"""Which device each rank has: one of its own, the same kind everywhere, with its memory free."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from toolkit.doctor.check import Check, Context, Facts, Row, gibibytes

FREE_FRACTION = 0.9
"""Of a GPU's memory: less, and somebody else is on it."""
MEMORY = Path("/proc/meminfo")


def measure(context: Context) -> dict[str, Any]:
    """Name, identity and memory of this rank's device."""
    if context.device.type != "cuda":
        free, total = host_memory()
        return {
            "kind": "CPU",
            "name": f"CPU, {os.cpu_count()} cores",
            "uuid": "",
            "free": free,
            "total": total,
            "visible": 0,
        }
    about = torch.cuda.get_device_properties(context.device)
    free, total = torch.cuda.mem_get_info(context.device)
    return {
        "kind": "GPU", "name": about.name, "uuid": str(getattr(about, "uuid", "")), "free": free, "total": total,
        "visible": torch.cuda.device_count(),
    }  # fmt: skip


def host_memory() -> tuple[int, int]:
    """(available, total) bytes of this machine; zeros where the kernel does not say."""
    try:
        lines = dict(line.split(":") for line in MEMORY.read_text().splitlines() if ":" in line)
        return tuple(int(lines[key].split()[0]) * 1024 for key in ("MemAvailable", "MemTotal"))  # type: ignore[return-value]
    except (OSError, KeyError, ValueError):
        return 0, 0


def judge(found: Facts, context: Context) -> list[Row]:
    """A row per rank."""
    usual = Counter((facts["kind"], facts["name"]) for facts in found.values()).most_common(1)[0][0]
    owners: dict[str, list[int]] = {}
    for rank, facts in found.items():
        if facts["uuid"]:
            owners.setdefault(facts["uuid"], []).append(rank)
    rows = []
    for rank, facts in found.items():
        here = [other for other in context.hosts if context.hosts[other] == context.hosts.get(rank)]
        shown = (
            f"{facts['uuid']} " * bool(facts["uuid"])
            + f"{gibibytes(facts['free'])} of {gibibytes(facts['total'])} free"
        )
        verdict, wanted, todo = opinion(facts, usual, len(owners.get(facts["uuid"], [])), len(here))
        rows.append(Row(facts["name"], context.where([rank]), shown, wanted, verdict, todo))
    return rows


def opinion(facts: Any, usual: tuple[str, str], sharing: int, here: int) -> tuple[Any, str, str]:
    """(verdict, wanted, what to do) of one rank; `sharing` ranks have its GPU, `here` are on its host."""
    if facts["kind"] != usual[0]:
        missing = "look at nvidia-smi and CUDA_VISIBLE_DEVICES there" if usual[0] == "GPU" else ""
        return "bad", f"a {usual[0]} as the others have", missing or "leave that node out, or give all ranks a GPU"
    if sharing > 1:
        return "bad", "a GPU of its own", f"{sharing} ranks share it: start as many ranks per node as there are GPUs"
    if facts["kind"] == "GPU" and facts["free"] < FREE_FRACTION * facts["total"]:
        return "warn", f"{FREE_FRACTION:.0%} free", "another process holds memory: find it with nvidia-smi and end it"
    if facts["visible"] > max(here, 1):
        return (
            "warn",
            f"{facts['visible']} ranks on its host",
            f"{facts['visible']} GPUs are visible to {here}: the others idle",
        )
    if facts["name"] != usual[1]:
        return "warn", usual[1], "the slowest kind sets the pace: leave that node out, or ask for one kind"
    return "good", "", ""


CHECK = Check("devices", "GPUs, their memory, ranks per node", measure, judge)

"""Process group, ranks, seeds and the few collectives that are not about features."""

import os
import random
import socket
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from toolkit.errors import ConfigError

TIMEOUT = timedelta(minutes=60)
"""Long enough for a rank-0 job between steps; DeepSpeed adopts the group that is there."""


def init() -> None:
    """Start the process group (nccl on GPUs, gloo on CPUs) from the launcher's environment; one process without any.

    Inside `srun` the ranks come from SLURM_PROCID, SLURM_LOCALID and SLURM_NTASKS. Safe to call twice.
    """
    if dist.is_initialized():
        return
    adopt_ranks()
    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    try:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise ConfigError(
            f"port {os.environ['MASTER_PORT']} is taken, probably by another run on this machine; choose another: "
            "deepspeed --master_port=29501 ..."
        ) from error


def adopt_ranks() -> None:
    """RANK, LOCAL_RANK, WORLD_SIZE and MASTER_* of this process from its launcher's, `srun`'s, or as those of the only one."""
    adopt_slurm_ranks()
    if "RANK" not in os.environ:
        os.environ.update(
            RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port())
        )
    os.environ.setdefault("MASTER_PORT", "29500")


def adopt_slurm_ranks() -> None:
    """Inside `srun`, unless a launcher has set RANK: RANK, LOCAL_RANK and WORLD_SIZE from Slurm's own names for them."""
    if "RANK" not in os.environ and "SLURM_PROCID" in os.environ and "SLURM_STEP_ID" in os.environ:
        for name, source in (("RANK", "PROCID"), ("LOCAL_RANK", "LOCALID"), ("WORLD_SIZE", "NTASKS")):
            os.environ[name] = os.environ[f"SLURM_{source}"]
        if int(os.environ["WORLD_SIZE"]) > 1 and "MASTER_ADDR" not in os.environ:
            raise ConfigError(
                "MASTER_ADDR is not set; export it before srun, for example "
                'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n1), as slurm/distill.sh does'
            )


def free_port() -> int:
    """A port that the operating system says is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def device() -> torch.device:
    """This rank's GPU (the only visible one if the launcher shows each task its own), else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def rank() -> int:
    """Number of this process, 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Number of processes, 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Is this the process that writes files and talks."""
    return rank() == 0


def barrier() -> None:
    """Wait until every rank is here."""
    if world() > 1:
        dist.barrier()


def say(message: str) -> None:
    """Print once for the whole run."""
    if is_main():
        print(message, flush=True)


def broadcast_object(value: Any) -> Any:
    """Rank 0's value on every rank; small things only (paths, numbers, lists of names)."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def all_true(flag: bool) -> bool:
    """True if it is true on every rank."""
    return bool(reduce_sum(torch.tensor([0.0 if flag else 1.0], device=device()))[0] == 0)


def reduce_sum(values: Tensor) -> Tensor:
    """Sum over ranks, on every rank."""
    if world() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def largest(values: list[float]) -> list[float]:
    """The largest over ranks of each number, on every rank."""
    if world() == 1:
        return values
    found = torch.tensor(values, dtype=torch.float64, device=device())
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return [float(value) for value in found.tolist()]


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all ranks in rank order, without gradient; equally many on each rank."""
    if world() == 1:
        return rows
    out = rows.new_empty(world() * rows.shape[0], *rows.shape[1:])
    dist.all_gather_into_tensor(out, rows.contiguous())
    return out


def gather_strings(values: list[str]) -> list[str]:
    """Lists of all ranks, joined in rank order."""
    if world() == 1:
        return values
    lists: list[list[str]] = [[] for _ in range(world())]
    dist.all_gather_object(lists, values)
    return [value for part in lists for value in part]


def average_buffers(module: nn.Module) -> None:
    """Give every rank the mean of all floating-point buffers (BatchNorm statistics drift apart; nobody else syncs them)."""
    if world() == 1:
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer.div_(world())


def seed_everything(seed: int) -> None:
    """Same seed on every rank: models start equal. The training loop re-seeds per rank after they are built."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def shutdown() -> None:
    """Leave the process group, if any."""
    if dist.is_initialized():
        dist.destroy_process_group()

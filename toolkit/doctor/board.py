"""How the doctor's ranks talk: small JSON notes on rank 0's key-value store, every wait with a time limit.

No collectives: one rank that hangs or is gone would hold all others in them.
"""

import json
import os
import subprocess
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from toolkit import distributed
from toolkit.errors import ConfigError

SLURM_PORT = 20_000
"""First of the 40,000 ports that slurm/distill.sh chooses from by the job's number."""


class NoBoard(Exception):
    """Rank 0 is not to be reached, or not any more."""


class Board:
    """Notes by name. A rank's own beats say that it is alive while it measures."""

    def __init__(self, store: dist.Store, rank: int) -> None:
        """`store` is shared by all ranks."""
        self.rank = rank
        self._store = dist.PrefixStore("doctor", store)

    def post(self, name: str, value: Any) -> None:
        """Write a note that every rank can read."""
        self._asked(lambda: self._store.set(name, json.dumps(value)))

    def has(self, name: str) -> bool:
        """Is it there."""
        return bool(self._asked(lambda: self._store.check([name])))

    def read(self, name: str, seconds: float) -> Any:
        """Wait for a note; raises TimeoutError when nobody writes it."""
        try:
            self._store.wait([name], timedelta(seconds=max(seconds, 0.01)))
        except dist.DistNetworkError as error:
            raise NoBoard(str(error).splitlines()[0]) from error
        except dist.DistStoreError as error:
            raise TimeoutError(f"{name} was not written within {seconds:.0f} s") from error
        return json.loads(self._asked(lambda: self._store.get(name)))

    def beat(self) -> None:
        """I am alive."""
        self._asked(lambda: self._store.add(f"beat/{self.rank}", 1))

    def beats(self, rank: int) -> int:
        """How often that rank has beaten."""
        return int(self._asked(lambda: self._store.add(f"beat/{rank}", 0)))

    def _asked(self, question: Any) -> Any:
        try:
            return question()
        except dist.DistError as error:
            raise NoBoard(str(error).splitlines()[0]) from error


def open_store(rank: int, world: int, seconds: float) -> dist.Store:
    """A connection to the store, which rank 0 serves unless torchrun does; of one rank a dictionary.

    Raises NoBoard when rank 0 does not answer, ConfigError when the port is taken.
    """
    if world == 1:
        return dist.HashStore()
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    serves = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True)
    try:
        return dist.TCPStore(host, port, None, serves, timedelta(seconds=seconds), wait_for_workers=False)
    except dist.DistError as error:
        if "EADDRINUSE" in str(error):
            raise ConfigError(
                f"port {port} is taken, probably by another run on this machine; choose another, for example MASTER_PORT=29501"
            ) from error
        raise NoBoard(f"{host}:{port}: {str(error).splitlines()[0]}") from error


def second_store(seconds: float) -> dist.Store:
    """Another connection to the same store, for the process group: one that waits does not hold up the notes."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(host, port, None, False, timedelta(seconds=seconds), wait_for_workers=False)
    return dist.PrefixStore("group", store)


def find_ranks() -> None:
    """The ranks of this launch into the environment; inside a plain `srun` the address comes from `scontrol`."""
    if "SLURM_STEP_ID" in os.environ and "RANK" not in os.environ and "MASTER_ADDR" not in os.environ:
        nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST", "")
        try:
            said = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            said = None  # none in a container: adopt_ranks says what to export
        if said is not None and said.returncode == 0 and said.stdout.split():
            os.environ["MASTER_ADDR"] = said.stdout.split()[0]
            job = int(os.environ.get("SLURM_JOB_ID", "0"))
            os.environ.setdefault("MASTER_PORT", str(SLURM_PORT + job % 40_000))
    distributed.adopt_ranks()

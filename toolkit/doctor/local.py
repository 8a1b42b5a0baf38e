"""Several ranks of the doctor on this machine. Not torchrun: it ends all as soon as one does, and with them the report."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

GRACE_SECONDS = 10.0
"""For the other ranks, once rank 0 has said what it found."""


def start_ranks(ranks: int, words: Sequence[str]) -> int:
    """Start this command that often, wait for rank 0, and return its exit code."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    shared = {
        "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "OMP_NUM_THREADS": threads,
    }  # fmt: skip
    started: list[subprocess.Popen[bytes]] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # through the `finally` below
    try:
        for rank in range(ranks):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, "-m", "toolkit.cli", *words]
            started.append(subprocess.Popen(command, env={**os.environ, **shared, **own}))
        code = started[0].wait()
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and any(process.poll() is None for process in started):
            time.sleep(0.05)
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()
    if code < 0:
        print(f"rank 0 was ended by signal {-code}", file=sys.stderr, flush=True)
        return 1
    return code

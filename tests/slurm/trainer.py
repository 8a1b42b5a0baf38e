"""Stands in for a recipe: keeps what a training run promises to slurm/distill.sh, and counts instead of training.

Words `key=value`: `steps` to count to, and what happens in the job's first launch: `first=hold` waits for a signal after three steps,
`first=frail` does and dies of it, `first=die` has rank 1 die there, `first=mistake` ends as a user's mistake does. What each launch of
each rank saw is left in `seen-RESTART-RANK.json`.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

MARKER = Path(os.environ["DIME_REQUEUE_FILE"])
RANK, WORLD = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
RESTART = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
STEP = Path(f"step-{RANK}")
told: list[int] = []


def meet() -> list[str]:
    """Host names of all ranks, by way of rank 0 at MASTER_ADDR:MASTER_PORT."""
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    me = f"{RANK}@{socket.gethostname()}"
    if RANK:
        while True:
            try:
                with socket.create_connection(place, timeout=5) as line:
                    line.sendall(me.encode())
                    return json.loads(line.makefile().read())
            except ConnectionRefusedError:
                time.sleep(0.02)
    with socket.create_server(place, backlog=WORLD) as server:
        lines = [server.accept()[0] for _ in range(WORLD - 1)]
        everybody = [me, *(line.recv(100).decode() for line in lines)]
        for line in lines:
            line.sendall(json.dumps(everybody).encode())
            line.close()
    return everybody


def leave(code: int, *, run_again: bool) -> None:
    """As the ranks of a run do."""
    if RANK == 0 and not run_again:
        MARKER.unlink(missing_ok=True)
    sys.exit(code)


def count(steps: int, first: str) -> None:
    """One file per rank is the checkpoint."""
    done = [int(line) for line in STEP.read_text().split()] if STEP.exists() else []
    if done:
        print(f"rank {RANK} goes on after step {done[-1]}", flush=True)
    while len(done) < steps:
        done.append(len(done) + 1)
        STEP.write_text(" ".join(map(str, done)))
        while first in ("hold", "frail") and RESTART == 0 and len(done) == 3 and not told:
            time.sleep(0.01)
        if first == "die" and RESTART == 0 and len(done) == 3:
            if RANK:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        if told:
            time.sleep(0.3)  # a checkpoint is not written in no time
            Path(f"checkpoint-{RANK}").write_text(str(done[-1]))
            leave(0, run_again=told[0] == signal.SIGUSR1)


def note(number: int, _: object) -> None:
    """For the next step; like a run this one takes a second TERM as an order to end at once."""
    if number == signal.SIGTERM and signal.SIGTERM in told:
        os._exit(99)
    told.append(number)


def main() -> None:
    """Count to `steps`."""
    words = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(
            number,
            signal.SIG_DFL if words.get("first") in ("frail", "mistake") else lambda number, _: told.append(number),
        )
    if RANK == 0:
        MARKER.touch()
    if words.get("first") == "mistake":
        if RANK == 0:
            print("ConfigError: no setting named optim.lrr", file=sys.stderr, flush=True)
        time.sleep(0.2 * RANK)  # ranks find it in their own time
        leave(2, run_again=False)
    seen = {"argv": sys.argv, "env": dict(os.environ), "ranks": meet(), "python": sys.executable}
    Path(f"seen-{RESTART}-{RANK}.json").write_text(json.dumps(seen))
    count(int(words.get("steps", "5")), words.get("first", ""))
    leave(0, run_again=False)


if __name__ == "__main__":
    main()

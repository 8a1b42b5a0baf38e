"""What is known of a run's launches: how often it was started and how each ended, and whether to start it again.

`launches.jsonl` lies in the run's folder. Where the environment names a DIME_REQUEUE_FILE (slurm/distill.sh does), that
file is there while, and after, a launch that should be repeated: whoever launched it looks for it when it has ended.
"""

import json
import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolkit.errors import ConfigError
from toolkit.signals import Asked

NAME = "launches.jsonl"
REQUEUE_FILE = "DIME_REQUEUE_FILE"
stepping = False
"""Has this process begun to train: what goes wrong from here on may be no mistake of the user's."""
TRIES = 2
"""Automatic restarts that may gain no step."""


def begin(out_dir: Path) -> None:
    """Note a launch, from rank 0, before anything heavy is imported; raises ConfigError in a crash loop.

    That is: this launch was made automatically (SLURM_RESTART_COUNT, TORCHELASTIC_RESTART_COUNT), and the last two of the
    same job began at the step at which this one would, and were not pre-empted.
    """
    step, restart = newest_step(out_dir), restarts()
    earlier = read(out_dir)
    here = {"job": job(), "restart": restart, "step": step}
    futile = [
        line
        for line in earlier[-TRIES:]
        if line["job"] == job() and line["step"] == step and line.get("how") != Asked.TERM.name
    ]
    if restart >= TRIES and len(futile) == TRIES:
        forbid_repeat()
        raise ConfigError(
            f"{out_dir} was started again {restart} times and the last {TRIES} launches gained no step beyond step {step}: it is not "
            f"tried again. Their output says why they ended; when that is mended, submit the same command anew"
        )
    allow_repeat()
    append(out_dir, {"started": now(), **here})


def end(out_dir: Path, how: str, step: int, *, again: bool) -> None:
    """Note how a launch ended by itself, from rank 0; `again`: it should be started again."""
    append(out_dir, {"ended": now(), "how": how, "step": step})
    if not again:
        forbid_repeat()


def read(out_dir: Path) -> list[dict[str, Any]]:
    """One entry a launch, its end merged in; torn lines are passed over."""
    found: list[dict[str, Any]] = []
    try:
        lines = (out_dir / NAME).read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        with suppress(ValueError):
            entry = json.loads(line)
            if "started" in entry:
                found.append(entry)
            elif found:
                found[-1] = {**found[-1], "ended": entry["ended"], "how": entry["how"], "last_step": entry["step"]}
    return found


def append(out_dir: Path, entry: dict[str, Any]) -> None:
    """One line; a folder that cannot be written is told later, by who needs it."""
    with suppress(OSError):
        out_dir.mkdir(parents=True, exist_ok=True)
        with open(out_dir / NAME, "a") as file:
            file.write(json.dumps(entry) + "\n")


def newest_step(out_dir: Path) -> int:
    """Step of the newest checkpoint folder by its name, 0 without any."""
    names = [path.name for path in (out_dir / "checkpoints").glob("step_*")]
    return max((int(name[5:]) for name in names if re.fullmatch(r"step_\d+", name)), default=0)


def allow_repeat() -> None:
    """Leave the file that says: start this again if it ends."""
    if os.environ.get(REQUEUE_FILE):
        Path(os.environ[REQUEUE_FILE]).write_text(f"{now()}\n")


def forbid_repeat() -> None:
    """Take it away: done, or starting again cannot help."""
    if os.environ.get(REQUEUE_FILE):
        Path(os.environ[REQUEUE_FILE]).unlink(missing_ok=True)


def job() -> str:
    """Number of the job, empty without a scheduler."""
    return os.environ.get("SLURM_JOB_ID", "")


def restarts() -> int:
    """How often this job was started again automatically."""
    found = os.environ.get("SLURM_RESTART_COUNT") or os.environ.get("TORCHELASTIC_RESTART_COUNT") or "0"
    return int(found) if found.isdigit() else 0


def now() -> str:
    """UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")

"""What a run writes before step 0, so that anybody can tell later what it was."""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from toolkit import config, distributed
from toolkit.config import METHOD_KEYS, Batch, Run
from toolkit.config.resolve import differences
from toolkit.data.index import write_aside
from toolkit.errors import ConfigError
from toolkit.models import Model, Teacher

ONLY_SPEED = (
    "teacher.store:",
    "teacher.in_memory:",
    "student.grad_checkpointing:",
    "data.batch_size_per_gpu:",
    "data.cache_dir:",
    "data.cache_gigabytes:",
)
"""Settings inside the method sections that may change when a run goes on."""
PACKAGES = ("dime-fm-toolkit", "torch", "deepspeed", "open_clip_torch", "timm", "webdataset", "numpy")


def check_same_run(run: Run) -> None:
    """Raise ConfigError when `out_dir` already holds a run with other method settings; resuming would mix the two."""
    saved = Path(run.out_dir) / "config.yaml"
    if not saved.exists():
        return
    found = [line for line in differences(config.load(saved), run, METHOD_KEYS) if not line.startswith(ONLY_SPEED)]
    if found:
        raise ConfigError(
            f"out_dir={run.out_dir} holds a run with other settings (there -> here): {'; '.join(found[:5])}"
            f"{' ...' if len(found) > 5 else ''}; use another out_dir, or the same settings to go on with it"
        )


def write_facts(
    run: Run, batch: Batch, student: Model, teacher: Teacher | None, data: dict[str, Any]
) -> dict[str, Any]:
    """Write `config.yaml` and `run.json` (rank 0) and return the facts."""
    folder = Path(run.out_dir)
    commit, dirty = git_state()
    facts = {
        "recipe": Path(sys.argv[0]).name,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git_commit": commit,
        "git_dirty": dirty,
        "started_at": first_start(folder),
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}},
        "world_size": distributed.world(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores",
        "batch": batch.in_words(),
        "student": {"name": student.name, "image_params": student.image_params, "text_params": student.text_params},
        "teacher": teacher
        and {
            "name": teacher.name,
            "image_params": teacher.image_params,
            "text_params": teacher.text_params,
            "dtype": str(teacher.dtype).removeprefix("torch."),
        },
        "data": data,
    }
    if distributed.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        config.save(run, folder / "config.yaml")
        write_aside(folder / "run.json", json.dumps(facts, indent=1) + "\n")
    return facts


def in_words(run: Run, facts: dict[str, Any]) -> str:
    """The facts as lines for the log."""
    lines = [
        f"out_dir {run.out_dir}; git {facts['git_commit'] or 'none'}{' (dirty)' if facts['git_dirty'] else ''}; {facts['device']}"
    ]
    lines.append("versions: " + ", ".join(f"{name} {number}" for name, number in facts["versions"].items()))
    lines.append(facts["batch"])
    lines += [
        f"{who} {facts[who]['name']}: {facts[who]['image_params']:,} image and {facts[who]['text_params']:,} text parameters"
        for who in ("student", "teacher")
        if facts[who]
    ]
    for name, found in facts["data"].items():
        lines.append(f"{name}: {found['samples']:,} samples in {found['shards']} shards")
    return "\n".join(lines)


def first_start(folder: Path) -> str:
    """UTC time at which this run started for the first time."""
    try:
        return str(json.loads((folder / "run.json").read_text())["started_at"])
    except (OSError, ValueError, KeyError):
        return datetime.now(UTC).isoformat(timespec="seconds")


def version_of(package: str) -> str | None:
    """Installed version, None if it is not installed as a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the working directory's repository and whether it has changes; None outside a repository."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        status = subprocess.run(
            ["git", "status", "--porcelain"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None, None
    return commit, bool(status.strip())

"""What every benchmark writes beside its numbers: commit, versions, command, machine."""

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def receipt(command: str) -> dict[str, Any]:
    """Where and with what the numbers were made."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    dirty = bool(
        subprocess.run(
            ["git", "status", "--porcelain", "toolkit", "recipes"], capture_output=True, text=True
        ).stdout.strip()
    )
    return {
        "command": command,
        "commit": commit + (" with uncommitted changes" if dirty else ""),
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "deepspeed", "open_clip_torch", "timm")},
        "machine": f"{platform.machine()}, 2 CPU cores, no GPU" if "torch" not in sys.modules else machine(),
    }


def machine() -> str:
    """Device in words."""
    import os

    import torch

    return (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{platform.machine()}, {os.cpu_count()} CPU cores"
    )


def write(name: str, title: str, table: str, facts: dict[str, Any], raw: Any, notes: str = "") -> None:
    """Write `results/<name>.md` for people and `.json` for programs."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    (RESULTS / f"{name}.md").write_text(f"# {title}\n\n{table}\n\n{notes}{chr(10) * 2 if notes else ''}{lines}\n")
    here = f"{RESULTS.resolve().parents[1]}/"  # where this copy of the repository lies is nobody's business
    (RESULTS / f"{name}.json").write_text(json.dumps({"facts": facts, "raw": raw}, indent=1).replace(here, "") + "\n")

"""Is every rank the same software: packages, drivers, the toolkit's own source, the commit, and the resolved recipe."""

import hashlib
import platform
import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch

import toolkit
from toolkit import config
from toolkit.doctor.check import Check, Context, Facts, Row
from toolkit.facts import PACKAGES, git_state, version_of

DRIVER = Path("/proc/driver/nvidia/version")
WHAT_TO_DO = {
    "git commit": "check out the same commit on every node, or start all ranks in one folder that they share",
    "recipe": "the recipe or its overrides differ between nodes: start every rank with the same file and words",
    "driver": "ask for the same driver on every node, or leave that node out (srun --exclude)",
}
"""By item; everything else is installed."""
INSTALL = "install the same environment on every node, or start all ranks from one that they share"


def measure(context: Context) -> dict[str, str | None]:
    """Version by item."""
    commit, dirty = git_state()
    found = {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}}
    found |= {
        "toolkit source": source_hash(),
        "git commit": commit and commit[:12] + (" with changes" if dirty else ""),
    }
    found |= {"recipe": hashlib.sha256(config.to_yaml(context.run).encode()).hexdigest()[:12]}
    if torch.cuda.is_available():
        nccl: Any = torch.cuda.nccl.version()
        found |= {"cuda": torch.version.cuda, "nccl": ".".join(map(str, nccl)), "driver": driver()}
    return found


def source_hash() -> str:
    """Of the toolkit's files: two installations of one version may be of different commits."""
    folder = Path(toolkit.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def driver() -> str | None:
    """Of NVIDIA's kernel module; None where it does not say."""
    try:
        found = re.search(r"\b\d+\.\d+(\.\d+)?\b", DRIVER.read_text())
    except OSError:
        return None
    return found[0] if found else None


def judge(found: Facts, context: Context) -> list[Row]:
    """A row per item and rank that is the odd one out; one for all that agree."""
    rows: list[Row] = []
    same: dict[str, Any] = {}
    for item in dict.fromkeys(key for facts in found.values() for key in facts):
        values = {rank: facts.get(item) for rank, facts in found.items()}
        counts = Counter(values.values())
        if len(counts) == 1:
            same[item] = values[min(values)]
            continue
        most = max(counts.values())
        usual = next(value for value in values.values() if counts[value] == most)  # rank 0's, where several are
        for value in counts:
            if value != usual:
                ranks = [rank for rank in values if values[rank] == value]
                rows.append(
                    Row(
                        item, context.where(ranks), str(value), f"{usual}, as on {most} other{'s' * (most > 1)}", "bad",
                        WHAT_TO_DO.get(item, INSTALL),
                    )
                )  # fmt: skip
    if same:
        shown = ", ".join(f"{item} {value}" for item, value in same.items() if value is not None and item != "recipe")
        rows.append(Row(f"{len(same)} versions", context.where(found), shown, "the same everywhere"))
    return rows


CHECK = Check("versions", "packages, drivers, commit, recipe", measure, judge)

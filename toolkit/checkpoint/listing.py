"""What `dime checkpoints` shows: the checkpoints of a run, whole or torn, and how its launches ended."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolkit import launches
from toolkit.checkpoint.files import POINTER, STATE, complaint, step_of, steps_saved
from toolkit.errors import ConfigError


def listing(out_dir: Path) -> dict[str, Any]:
    """Every file is hashed. Raises ConfigError for a folder that is no run."""
    if not (out_dir / "config.yaml").is_file() and not (out_dir / "checkpoints").is_dir():
        raise ConfigError(f"{out_dir} is no run: it has neither config.yaml nor checkpoints; give the out_dir of a run")
    found = [described(folder) for folder in steps_saved(out_dir)]
    whole = [entry for entry in found if not entry["complaint"]]
    best = whole[-1]["best_step"] if whole else None
    for entry in found:
        entry["best"] = entry["step"] == best
        entry["newest"] = bool(whole) and entry is whole[-1]
    pointer = out_dir / "checkpoints" / POINTER
    return {
        "run": str(out_dir),
        "checkpoints": found,
        "resumes_at": whole[-1]["step"] if whole else 0,
        "pointer": pointer.read_text().strip() if pointer.is_file() else None,
        "unfinished": sorted(path.name for path in (out_dir / "checkpoints").glob(".step_*.tmp")),
        "launches": launches.read(out_dir),
    }


def described(folder: Path) -> dict[str, Any]:
    """One checkpoint."""
    why = complaint(folder)
    state = json.loads((folder / STATE).read_text()) if not why else {}
    return {
        "step": step_of(folder),
        "written": datetime.fromtimestamp(folder.stat().st_mtime, UTC).isoformat(timespec="seconds"),
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "complaint": why,
        **{name: state.get(name) for name in ("world_size", "zero_stage", "best", "best_step")},
    }


def in_words(found: dict[str, Any]) -> str:
    """A table, what is unfinished, and the last launches."""
    lines = [f"{'step':>10}  {'written (UTC)':<25}  {'MB':>9}  {'ranks':>5}  {'ZeRO':>4}  state"]
    for entry in found["checkpoints"]:
        marks = [word for word in ("newest", "best") if entry[word]]
        said = f"TORN: {entry['complaint']}" if entry["complaint"] else ", ".join(["complete", *marks])
        ranks, stage = ("?" if entry[name] is None else entry[name] for name in ("world_size", "zero_stage"))
        lines.append(
            f"{entry['step']:>10,}  {entry['written']:<25}  {entry['bytes'] / 1e6:>9,.1f}  {ranks:>5}  {stage:>4}  {said}"
        )
    if not found["checkpoints"]:
        lines = ["no checkpoint yet"]
    lines.append(f"the next launch goes on at step {found['resumes_at']:,}")
    if found["unfinished"]:
        lines.append(f"being written, or left by a killed launch: {', '.join(found['unfinished'])}")
    for launch in found["launches"][-5:]:
        how = (
            f"ended {launch['ended']} at step {launch['last_step']:,}: {launch['how']}"
            if "ended" in launch
            else "no end is noted"
        )
        job = f" (job {launch['job']}, restart {launch['restart']})" if launch["job"] else ""
        lines.append(f"launch {launch['started']}{job} from step {launch['step']:,}; {how}")
    return "\n".join(lines)

"""Judge a finished or running run from its folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit import checkpoint, config, distributed
from toolkit.config.resolve import merge, parse_overrides
from toolkit.data.cache import cache_of
from toolkit.distiller import Distiller
from toolkit.errors import CheckpointError, ConfigError
from toolkit.evaluate.harness import Harness
from toolkit.evaluate.models import StudentEncoder
from toolkit.evaluate.table import as_text
from toolkit.losses import LossSum
from toolkit.models import build_teacher
from toolkit.models.build import from_folder, read_card
from toolkit.models.numerics import is_imported


def evaluate_run(folder: Path, which: str, overrides: Sequence[str], *, as_json: bool) -> dict[str, Any]:
    """Print a table of teacher and student on the run's sets; `which` is newest, best, or a checkpoint or
    imported folder. `folder` may itself be one of `dime import`, then the overrides say all there is to say.

    Overrides apply to the run's saved config: other sets, another teacher. Several ranks share the work.
    """
    run = merge(saved_run(folder), parse_overrides(overrides))
    if not run.evaluation.sets:
        raise ConfigError(
            "the run names no evaluation sets; add evaluation.sets.<name>.shards=... and .classes=... (or .kind=retrieval)"
        )
    distributed.init()
    chosen = pick_checkpoint(folder, which)
    device = distributed.device()
    teacher = build_teacher(run.teacher, run.precision, device) if run.teacher.name else None
    student = from_folder(chosen, asked_by=str(chosen))
    text_tower = bool(read_card(chosen)["text_tower"])
    distiller = Distiller(student.module, LossSum({}, {}), student.preprocess, text_tower=text_tower)
    distiller.to(device).eval()
    models: dict[str, Any] = {"teacher": teacher} if teacher is not None else {}
    models["student"] = StudentEncoder(student, distiller, device, text_tower=text_tower, teacher=teacher)
    sets = Harness(run.evaluation, run.workers, cache_of(run.data)).judge(models)
    result = {"checkpoint": str(chosen), "units": "percent", "sets": sets}
    distributed.say(f"checkpoint {chosen}\n{as_text(sets)}")
    if as_json:
        distributed.say(json.dumps(result))
    return result


def saved_run(folder: Path) -> config.Run:
    """The config of a run; of an imported folder the defaults, in fp32."""
    if (folder / "config.yaml").is_file():
        return config.load(folder / "config.yaml")
    if is_imported(folder):
        return config.Run(precision="fp32")
    raise ConfigError(f"{folder} is no run: it has no config.yaml; give the out_dir of a run")


def pick_checkpoint(folder: Path, which: str) -> Path:
    """The checkpoint meant; raises CheckpointError when it does not exist or is torn."""
    if which not in ("newest", "best") and is_imported(Path(which)):
        return Path(which)
    if which == "newest" and is_imported(folder):
        return folder
    if which not in ("newest", "best"):
        chosen: Path | None = Path(which)
        why = checkpoint.complaint(Path(which))
        if why:
            raise CheckpointError(f"--checkpoint {which} is not complete: {why}")
    else:
        chosen = checkpoint.newest(folder)
        if chosen is not None and which == "best":
            best = json.loads((chosen / checkpoint.STATE).read_text())["best_step"]
            if best is None:
                raise CheckpointError(
                    f"{folder} kept no best checkpoint; set evaluation.best in the run, or use --checkpoint newest"
                )
            chosen = checkpoint.folder_of(folder, best)
    if chosen is None:
        raise CheckpointError(f"{folder} holds no complete checkpoint; let the run reach its first one")
    return chosen

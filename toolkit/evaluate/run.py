"""Judge a finished or running run from its folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit import distributed
from toolkit.data.cache import cache_of
from toolkit.errors import ConfigError
from toolkit.evaluate.harness import Harness
from toolkit.evaluate.loading import config_of_run, models_of_run, pick_checkpoint
from toolkit.evaluate.table import as_text

__all__ = ["evaluate_run", "pick_checkpoint"]


def evaluate_run(folder: Path, which: str, overrides: Sequence[str], *, as_json: bool) -> dict[str, Any]:
    """Print a table of teacher and student on the run's sets; `which` is newest, best, or a checkpoint or
    imported folder. `folder` may itself be one of `dime import`, then the overrides say all there is to say.

    Overrides apply to the run's saved config: other sets, another teacher. Several ranks share the work.
    """
    run = config_of_run(folder, overrides)
    if not run.evaluation.sets:
        raise ConfigError(
            "the run names no evaluation sets; add evaluation.sets.<name>.shards=... and .classes=... (or .kind=retrieval)"
        )
    distributed.init()
    found = models_of_run(folder, which, overrides)
    sets = Harness(run.evaluation, run.workers, cache_of(run.data)).judge(found.encoders)
    result = {"checkpoint": str(found.checkpoint), "units": "percent", "sets": sets}
    distributed.say(f"checkpoint {found.checkpoint}\n{as_text(sets)}")
    if as_json:
        distributed.say(json.dumps(result))
    return result

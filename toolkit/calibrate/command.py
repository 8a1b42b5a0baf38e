"""`dime calibrate`: sample, measure, print, draw."""

import json
from pathlib import Path
from typing import Any

from toolkit import distributed
from toolkit.calibrate.measure import GRID, Calibration, measure
from toolkit.calibrate.page import write_page
from toolkit.calibrate.sample import draw_sample
from toolkit.calibrate.sharpness import Sharpness
from toolkit.calibrate.words import as_text
from toolkit.config import Run, world_size_from_environment
from toolkit.data.cache import cache_of
from toolkit.data.shards import expand_shards
from toolkit.errors import ConfigError, DataError
from toolkit.models import build_teacher

PAGE = "calibration.html"


def calibrate_run(
    run: Run, *, samples: int | None = None, out: Path | None = None, as_json: bool = False
) -> Calibration:
    """Print how sharp the run's targets are and which temperatures would make them alike; draw it into `out`.

    `out` is an .html file or a folder, the run's `out_dir` where it is not given. One process. Raises ConfigError for a run
    without teacher or sensible options, DataError for its data.
    """
    if samples is not None and samples < 2:
        raise ConfigError(f"--samples ({samples}) must be at least 2")
    if world_size_from_environment() > 1:
        raise ConfigError("calibrate is one process; start it without a launcher, on one GPU")
    if not run.teacher.name:
        raise ConfigError("this run has no teacher (teacher.name), so there are no targets to measure")
    if run.dry_run:
        raise ConfigError("calibrate has no dry run: it trains nothing and writes one page; leave --dry-run away")
    check_data(run)
    teacher = build_teacher(run.teacher, run.precision, distributed.device())
    scale = None if teacher.logit_scale is None else float(teacher.logit_scale)
    found = measure(run, draw_sample(run, teacher, samples), teacher.name, scale)
    chosen = Path(run.out_dir) if out is None else out
    page = write_page(found, chosen if chosen.suffix == ".html" else chosen / PAGE)
    print(f"{as_text(found)}\nplot: {page}", flush=True)
    if as_json:
        print(json.dumps({**as_dict(found), "page": str(page)}), flush=True)
    return found


def check_data(run: Run) -> None:
    """Raise DataError when a shard does not exist, before the teacher is built; sets to judge on are not needed."""
    try:
        for name in ("images", "texts", "pairs"):
            if pattern := getattr(run.data, name):
                expand_shards(pattern, asked_by=f"data.{name}", cache=cache_of(run.data))
    except DataError as error:
        raise DataError(
            f"{error}. A recipe that makes its own, as recipes/quickstart.py does, must have run first"
        ) from error


def as_dict(found: Calibration) -> dict[str, Any]:
    """The whole as JSON has it: entropies in nats, probabilities as fractions."""
    terms = {
        term.name: {
            "weight": term.weight,
            "scale": term.scale,
            "temperature": term.temperature,
            "now": {pair: numbers(value) for pair, value in term.now.items()},
            "proposed_temperature": term.proposed,
            "then": None if term.then is None else numbers(term.then),
        }
        for term in found.terms
    }
    reference = {pair: numbers(value) for pair, value in found.reference.items()}
    curves = [
        {"scale": curve.scale, **{pair: [numbers(v) for v in values] for pair, values in curve.values.items()}}
        for curve in found.curves
    ]
    return {
        "teacher": found.teacher,
        "logit_scale": found.own_scale,
        "images": found.images,
        "sentences": found.sentences,
        "global_batch_size": found.image_batch,
        "text_batch_size": found.text_batch,
        "reference": {**reference, "entropy": found.target} if reference else None,
        "terms": terms,
        "overrides": found.overrides,
        "temperatures": list(GRID),
        "curves": curves,
        "notes": found.notes,
    }


def numbers(value: Sharpness) -> dict[str, float]:
    """By name."""
    return {"entropy": value.entropy, "matches": value.matches, "top1": value.top1}

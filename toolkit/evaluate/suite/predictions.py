"""ELEVATER's submission files of what was judged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import DataError
from toolkit.evaluate.judged import Judged
from toolkit.evaluate.submission import expected_sets, write_predictions
from toolkit.evaluate.suite.request import Request, shots_of
from toolkit.evaluate.suite.rows import Outcome
from toolkit.evaluate.suite.sets import JudgedSet

CLEAN = "_clean"


def check_counts(request: Request, sets: Mapping[str, JudgedSet]) -> None:
    """Raise DataError, before anything is computed, for a copy that the leaderboard would refuse."""
    if request.predictions is None:
        return
    wanted = expected_sets()
    if not any(name in wanted for name in sets):
        raise DataError(
            f"--predictions: none of {', '.join(sets)} is one of ELEVATER's 20 sets; ask for --sets elevater"
        )
    for name, one in sets.items():
        if name in wanted and (problems := one.problems(one.open("test"))):
            raise DataError(f"--predictions: {name} is not whole ({problems[0]}); mend the copy, or leave the set out")


def write_all(
    folder: Path, name: str, judged: Judged, outcomes: Mapping[str, Mapping[str, Outcome]], seeds: tuple[int, ...]
) -> list[Path]:
    """`<folder>/<task>/<data set>.json` and `seed<k>_<data set>.json`; the protocol's tasks only, `_clean` is none of its."""
    if name not in expected_sets():
        return []
    written = []
    for task, found in outcomes.items():
        if task.endswith(CLEAN) or judged.name not in found:
            continue
        outcome = found[judged.name]
        shots = 0 if task == "zero_shot" else shots_of(task) or -1  # -1: all
        drawn = seeds if shots > 0 else (0,)
        for seed, run in zip(drawn, outcome.runs, strict=True):
            written.append(
                write_predictions(
                    folder / task,
                    normalised(run.numpy()),
                    model_name=judged.facts.get("name") or judged.name,
                    dataset_name=name,
                    n_shot=shots,
                    seed=seed,
                    **counts(judged, int(outcome.facts.get("trained_params", 0)), 0 if shots == 0 else run.shape[1]),
                )
            )
    return written


def counts(judged: Judged, trained: int, classes: int) -> dict[str, int]:
    """Parameters as the leaderboard asks; without a head of `classes` (0) the text tower is part of the model.

    What fine-tuning or a trained projection trains is in the image tower, which counts once.
    """
    image, text = judged.image_params or 0, judged.text_params or 0
    backbone = image if classes else image + text
    return {
        "num_trainable_params": trained,
        "num_params": backbone + classes * (judged.embed_dim + 1),
        "num_visual_params": image,
        "num_backbone_params": backbone,
    }


def normalised(probabilities: Any) -> Any:
    """Within 0..1: float64's rounding may leave 1 + 1e-16."""
    return probabilities.clip(0.0, 1.0)

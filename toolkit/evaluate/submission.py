"""Files for ELEVATER's leaderboard: predictions of one model on one data set, checked, and the zip of all of them."""

import json
import math
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.benchmarks import entries
from toolkit.errors import DataError
from toolkit.registry import did_you_mean

SUM_TOLERANCE = 1e-3
DECIMALS = 6
COUNTS = ("num_trainable_params", "num_params", "num_visual_params", "num_backbone_params")
KEYS = ("model_name", "dataset_name", *COUNTS, "n_shot", "rnd_seeds", "predictions")


@dataclass(frozen=True)
class Expected:
    """What a data set's predictions must look like."""

    pictures: int
    classes: int
    multi_label: bool = False


@lru_cache(maxsize=1)
def expected_sets() -> dict[str, Expected]:
    """The 20 sets: test pictures and classes as the protocol counts them."""
    return {
        name: Expected(entry.counts["test"], entry.classes, multi_label=entry.kind == "multilabel")
        for name, entry in entries().items()
        if entry.group == "elevater"
    }


def write_predictions(
    folder: Path,
    probabilities: Any,
    *,
    model_name: str,
    dataset_name: str,
    n_shot: int,
    seed: int,
    num_trainable_params: int,
    num_params: int,
    num_visual_params: int,
    num_backbone_params: int,
) -> Path:
    """Write one run's probabilities [n, k], rounded to 6 decimals; returns the file.

    `n_shot` is 0 for zero-shot, -1 for all training pictures, else the shots. The file is `<data set>.json` for
    zero-shot and `seed<seed>_<data set>.json` otherwise. Raises DataError for what the leaderboard would refuse.
    """
    content = {
        "model_name": model_name,
        "dataset_name": dataset_name,
        "num_trainable_params": num_trainable_params,
        "num_params": num_params,
        "num_visual_params": num_visual_params,
        "num_backbone_params": num_backbone_params,
        "n_shot": n_shot,
        "rnd_seeds": [seed],
        "predictions": [np.round(np.asarray(probabilities, dtype=np.float64), DECIMALS).tolist()],
    }
    name = f"{dataset_name}.json" if n_shot == 0 else f"seed{seed}_{dataset_name}.json"
    check_predictions(content, where=f"predictions of {model_name} on {dataset_name}")
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f"{name}.tmp"
    beside.write_text(json.dumps(content, allow_nan=False))
    return beside.rename(folder / name)


def check_predictions(content: Any, *, where: str) -> None:
    """Raise DataError naming the first thing that is not as the leaderboard wants it; `where` is the file."""
    if not isinstance(content, dict):
        raise DataError(f"{where}: needs one JSON object; found {type(content).__name__}; write it anew")
    missing = [key for key in KEYS if key not in content]
    unknown = [key for key in content if key not in KEYS]
    if missing or unknown:
        raise DataError(f"{where}: fields missing: {missing or 'none'}, unknown: {unknown or 'none'}; write it anew")
    name = content["dataset_name"]
    known = expected_sets()
    if not isinstance(name, str) or name not in known:
        raise DataError(f"{where}: dataset_name={name!r} is none of the 20 sets{did_you_mean(str(name), known)}")
    if not isinstance(content["model_name"], str) or not content["model_name"]:
        raise DataError(f"{where}: model_name must be a text that is not empty; found {content['model_name']!r}")
    for key in COUNTS:
        averaged = key == "num_trainable_params"  # over seeds
        if not _is_number(content[key], whole=not averaged) or content[key] < 0:
            raise DataError(f"{where}: {key} must be a number of parameters, 0 or more; found {content[key]!r}")
    if not _is_number(content["n_shot"], whole=True) or content["n_shot"] < -1:
        raise DataError(f"{where}: n_shot must be -1 (all), 0 (zero-shot) or the shots; found {content['n_shot']!r}")
    seeds = content["rnd_seeds"]
    if not isinstance(seeds, list) or not seeds or not all(_is_number(seed, whole=True) for seed in seeds):
        raise DataError(f"{where}: rnd_seeds must be a list of whole numbers; found {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise DataError(f"{where}: rnd_seeds names a seed twice: {seeds}; keep one run of each seed")
    _check_probabilities(content["predictions"], (len(seeds), known[name]), where)


def _check_probabilities(predictions: Any, wanted: tuple[int, Expected], where: str) -> None:
    """Shape (seeds, pictures, classes), all in 0..1, and rows that sum to 1 where a picture has one class."""
    seeds, expected = wanted
    shape = (seeds, expected.pictures, expected.classes)
    try:
        found = np.asarray(predictions)
    except ValueError as error:
        raise DataError(
            f"{where}: predictions have rows of unequal length; they must have the shape {shape}"
        ) from error
    if found.shape != shape:
        raise DataError(
            f"{where}: predictions have the shape {found.shape}, must have (seeds, pictures, classes) = {shape}"
        )
    if found.dtype.kind not in "fiu":
        raise DataError(f"{where}: predictions must be numbers; found {found.dtype}")
    wrong = ~((found >= 0) & (found <= 1))  # NaN is neither
    if wrong.any():
        place = tuple(map(int, np.argwhere(wrong)[0]))
        raise DataError(
            f"{where}: {int(wrong.sum())} predictions lie outside 0..1, the first at (seed, picture, class) {place}: "
            f"{found[place]}; give probabilities, not logits"
        )
    off = np.abs(found.sum(axis=-1) - 1) > SUM_TOLERANCE
    if not expected.multi_label and off.any():
        seed, picture = map(int, np.argwhere(off)[0])
        raise DataError(
            f"{where}: {int(off.sum())} rows do not sum to 1 within {SUM_TOLERANCE}, the first at (seed, picture) "
            f"({seed}, {picture}): {found[seed, picture].sum():.6f}; give softmax probabilities"
        )


def _is_number(value: Any, *, whole: bool) -> bool:
    """True for a finite number; a bool is none."""
    kind = int if whole else int | float
    return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)


def read_predictions(path: Path) -> dict[str, Any]:
    """A checked file; raises DataError."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no predictions file ({error}); write it anew") from error
    check_predictions(content, where=str(path))
    return content


def combine_predictions(folder: Path, *, partial: bool = False) -> Path:
    """Join all `*.json` of a folder, one data set's seeds together, into `all_predictions.zip`; returns the zip.

    Every file is checked first. Within a set all but seeds, predictions and `num_trainable_params` (which is averaged)
    must be equal; over the sets the model, the shots and the seeds. Raises DataError for that, and for missing sets unless
    `partial`. Memory is that of one data set at a time.
    """
    by_set: dict[str, list[Path]] = {}
    first: dict[str, Any] = {}
    seeds: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.json"), key=_natural):
        content = read_predictions(path)
        head = {key: content[key] for key in ("model_name", "n_shot")}
        first = first or {**head, "path": path}
        for key, value in head.items():
            if value != first[key]:
                raise DataError(
                    f"{path}: {key} is {value!r}, but {first[key]!r} in {first['path']}; one folder per model"
                )
        name = content["dataset_name"]
        twice = set(seeds.get(name, [])) & set(content["rnd_seeds"])
        if twice:
            raise DataError(f"{path}: seed {min(twice)} of {name} is in another file too; keep one run of each seed")
        by_set.setdefault(name, []).append(path)
        seeds.setdefault(name, []).extend(content["rnd_seeds"])
    missing = [name for name in expected_sets() if name not in by_set]
    if not by_set or (missing and not partial):
        raise DataError(f"{folder} has no predictions for {len(missing)} of 20 sets: {', '.join(missing)}; add them")
    sets_of_seeds = {name: sorted(found) for name, found in seeds.items()}
    usual = next(iter(sets_of_seeds.values()))
    for name, found in sets_of_seeds.items():
        if found != usual:
            raise DataError(
                f"{folder}: {name} has the seeds {found}, {next(iter(seeds))} has {usual}; run the same ones"
            )
    beside = folder / "all_predictions.zip.tmp"
    with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo("all_predictions.json")  # a fixed date: equal files give equal bytes
        entry.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(entry, "w", force_zip64=True) as out:
            for number, paths in enumerate(by_set.values()):
                merged = _merge(paths)
                out.write(b'{"data": [' if number == 0 else b", ")
                out.write(json.dumps(merged, allow_nan=False).encode())
            out.write(b"]}")
    return beside.rename(folder / "all_predictions.zip")


def _merge(paths: Sequence[Path]) -> dict[str, Any]:
    """One object for one data set."""
    parts = [read_predictions(path) for path in paths]
    merged = dict(parts[0])
    for key in KEYS:
        if key in ("rnd_seeds", "predictions"):
            merged[key] = [row for part in parts for row in part[key]]
        elif key == "num_trainable_params":
            merged[key] = sum(part[key] for part in parts) / len(parts) if len(parts) > 1 else parts[0][key]
        else:
            for path, part in zip(paths, parts, strict=True):
                if part[key] != merged[key]:
                    raise DataError(
                        f"{path}: {key} is {part[key]!r}, but {merged[key]!r} in {paths[0]}; mend one of them"
                    )
    return merged


def _natural(path: Path) -> list[Any]:
    """Sorts seed2 before seed10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]

"""Reads the folder of a run. Only config.yaml must be there; of the rest, what is missing or torn becomes a note."""

import base64
import binascii
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from toolkit.errors import DataError
from toolkit.report.wording import is_number

PNG_START = b"\x89PNG\r\n\x1a\n"
Points = list[tuple[int, float]]
Prediction = tuple[str, float]


@dataclass(frozen=True)
class Sample:
    """One picture with what the teacher and the student took it for, most likely first."""

    png: str
    """base64, checked to decode to a PNG"""
    width: int
    height: int
    truth: str | None
    teacher: list[Prediction]
    student: list[Prediction]


@dataclass(frozen=True)
class RunFiles:
    """All that the report is made of."""

    folder: Path
    config: dict[str, Any]
    config_text: str
    facts: dict[str, Any]
    """run.json; empty when it is missing"""
    series: dict[str, Points]
    """metric name -> (step, value), steps rising; a step that was logged twice keeps its later value"""
    evaluation: dict[str, Any] | None
    samples: list[Sample]
    notes: list[str] = field(default_factory=list)
    """what is missing, torn or was left out, in sentences"""


def read_run(folder: Path) -> RunFiles:
    """Raises DataError where there is no run; every other lack ends up in `notes`."""
    config, config_text = read_config(folder)
    notes: list[str] = []
    facts = optional(folder / "run.json", read_facts, notes, "the command, the commit and the parameter counts")
    series = optional(folder / "metrics.jsonl", lambda path: read_metrics(path, notes), notes, "the training curves")
    evaluation = optional(folder / "evaluation.json", read_evaluation, notes, "the results", "evaluate the run first")
    samples = optional(folder / "samples.json", read_samples, notes, "the pictures")
    return RunFiles(folder, config, config_text, facts or {}, series or {}, evaluation, samples or [], notes)


def optional(path: Path, read: Callable[[Path], Any], notes: list[str], what: str, remedy: str = "") -> Any:
    """None, and a note that says which part of the page is left out, where `path` is missing or not as it should be."""
    then = f"; {remedy}, then write the report again" if remedy else ""
    if not path.is_file():
        notes.append(f"{path.name} is missing, so this page lacks {what}{then}.")
        return None
    try:
        return read(path)
    except (DataError, OSError) as error:
        notes.append(f"This page lacks {what}{then}: {error}.")
        return None


def read_config(folder: Path) -> tuple[dict[str, Any], str]:
    """The resolved config, and its text as it was written."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing there"
        raise DataError(f"report of {folder}: asked for the folder of a run, found {found}; give the out_dir of a run")
    path = folder / "config.yaml"
    if not path.is_file():
        names = sorted(entry.name for entry in folder.iterdir())
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        found = f"{len(names)} entries ({shown})" if names else "it empty"
        raise DataError(
            f"report of {folder}: no run there: no config.yaml, found {found}; give the out_dir of a run, or a folder with "
            "benchmarks/results.json"
        )
    try:
        text = path.read_text(encoding="utf-8")
        config = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is not readable YAML ({reason}); restore the file that the run wrote") from error
    if not isinstance(config, dict):
        kind = type(config).__name__
        raise DataError(f"{path} should hold a mapping, found {kind}; restore the file that the run wrote")
    return config, text


def _read_json(path: Path, kind: type, what: str) -> Any:
    try:
        value = json.loads(path.read_bytes(), parse_constant=lambda _: None)  # NaN is not a result
    except ValueError as error:
        raise DataError(f"{path.name} is not readable JSON ({error})") from error
    if not isinstance(value, kind):
        raise DataError(f"{path.name} should hold {what}, found {type(value).__name__}")
    return value


def read_facts(path: Path) -> dict[str, Any]:
    """What the run wrote down about itself before step 0."""
    facts: dict[str, Any] = _read_json(path, dict, "a mapping")
    return facts


def read_metrics(path: Path, notes: list[str]) -> dict[str, Points]:
    """One series per metric. Torn lines and steps logged twice (both come of a kill and a resume) are noted."""
    values: dict[str, dict[int, float]] = {}
    torn: list[int] = []
    again: set[int] = set()
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = _metrics_record(line)
        if record is None:
            torn.append(number)
            continue
        step = record.pop("step")
        for name, value in record.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                known = values.setdefault(name, {})
                if step in known:
                    again.add(step)
                known[step] = float(value)
    if torn == [len(lines)]:
        notes.append(f"The last line of {path.name} (line {len(lines)}) is torn and was left out.")
    elif torn:
        shown = ", ".join(map(str, torn[:5])) + (", ..." if len(torn) > 5 else "")
        notes.append(f"{len(torn)} of {len(lines)} lines of {path.name} are torn and were left out: {shown}.")
    if again:
        which = f"Steps between {min(again)} and {max(again)} were" if len(again) > 1 else f"Step {min(again)} was"
        notes.append(f"{which} logged more than once, as by a resumed run: the later values are shown.")
    if not values:
        raise DataError(f"{path.name} holds no readable line")
    return {name: sorted(points.items()) for name, points in values.items()}


def _metrics_record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not is_number(record.get("step")):
        return None
    return {**record, "step": int(record["step"])}


def read_evaluation(path: Path) -> dict[str, Any]:
    """Checked down to the single value; null and NaN are dropped, so that a metric is a finite number or absent."""
    evaluation: dict[str, Any] = _read_json(path, dict, "a mapping")
    if evaluation.get("units", "percent") != "percent":
        raise DataError(f"{path.name}: units should be 'percent', found {evaluation['units']!r}")
    sets = evaluation.get("sets")
    if not isinstance(sets, dict) or not sets:
        raise DataError(f"{path.name}: sets should be a mapping of at least one set, found {sets!r:.60}")
    checked = {name: {**_mapping(path, f"sets.{name}", entry)} for name, entry in sets.items()}
    for name, entry in checked.items():
        where = f"sets.{name}.rows"
        rows = _mapping(path, where, entry.get("rows"))
        entry["rows"] = {row: _metric_row(path, f"{where}.{row}", values) for row, values in rows.items()}
    return {**evaluation, "units": "percent", "sets": checked}


def _mapping(path: Path, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{path.name}: {where} should be a mapping, found {type(value).__name__}")
    return value


def _metric_row(path: Path, where: str, row: Any) -> dict[str, float]:
    kept = {}
    for metric, value in _mapping(path, where, row).items():
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            continue
        if not is_number(value):
            raise DataError(f"{path.name}: {where}.{metric} should be a number, found {value!r:.60}")
        kept[metric] = value
    return kept


def read_samples(path: Path) -> list[Sample]:
    """The pictures, each checked to be a PNG: what goes into the page is never taken on trust."""
    return [_sample(path, f"[{index}]", entry) for index, entry in enumerate(_read_json(path, list, "a list"))]


def _sample(path: Path, where: str, entry: Any) -> Sample:
    entry = _mapping(path, where, entry)
    try:
        png = base64.b64decode(str(entry.get("png", "")), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{path.name}: {where}.png is not base64 ({error})") from error
    width, height = png_size(png, f"{path.name}: {where}.png")
    truth = entry.get("truth")
    return Sample(
        png=base64.b64encode(png).decode("ascii"),
        width=width,
        height=height,
        truth=None if truth is None else str(truth),
        teacher=_predictions(path, f"{where}.teacher", entry.get("teacher", [])),
        student=_predictions(path, f"{where}.student", entry.get("student", [])),
    )


def png_size(png: bytes, where: str) -> tuple[int, int]:
    """Width and height, from its header; raises DataError where it is no PNG."""
    if not png.startswith(PNG_START) or len(png) < 24:
        raise DataError(f"{where} is not a PNG, it begins with {png[:8]!r}")
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def _predictions(path: Path, where: str, value: Any) -> list[Prediction]:
    if not isinstance(value, list):
        raise DataError(f"{path.name}: {where} should be a list, found {type(value).__name__}")
    for pair in value:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and is_number(pair[1])):
            raise DataError(f"{path.name}: {where} should hold [name, probability] pairs, found {pair!r:.60}")
    return [(name, float(probability)) for name, probability in value]

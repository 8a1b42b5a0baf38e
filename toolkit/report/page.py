"""Puts the page together and writes it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from toolkit.report import plots, results
from toolkit.report.judged import Judgement
from toolkit.report.observed import OBSERVED_WORDS, draw_observed
from toolkit.report.read_judged import find_results, read_judgement
from toolkit.report.run_files import RunFiles, optional, read_run
from toolkit.report.sections import build_sections, summary
from toolkit.report.wording import count_text, duration_text, metric_label, plain_text

MOST_PICTURES = 48
FIRST_EVALUATION_PLOTS = 6
FACT_LABELS = {
    "recipe": "Recipe",
    "command": "Command",
    "git_commit": "Commit",
    "started_at": "Started",
    "device": "Device",
    "world_size": "Processes",
    "batch": "Batch",
    "student": "Student",
    "teacher": "Teacher",
    "data": "Data",
}
CODE_FACTS = ("command", "git_commit")


@dataclass(frozen=True)
class Curves:
    """The plots of the page, by place."""

    loss: list[plots.Plot]
    speed: list[plots.Plot]
    observed: list[plots.Plot]
    evaluation: list[plots.Plot]
    other: list[plots.Plot]


def write_report(run: Path) -> Path:
    """Writes `report.html` and `report.json` into the folder of a run and returns the path of the page.

    The page needs nothing outside itself. What the run has not written (evaluation, pictures, metrics) is named on the
    page. A folder that is no run but holds a benchmark's results.json (a model judged by itself, an import, an export)
    gets a page of these results alone, and no report.json. Raises DataError where `run` holds neither.
    """
    folder = Path(run)
    found = find_results(folder)
    if found is not None and not (folder / "config.yaml").is_file():
        return write_page(folder / "report.html", render_judged(folder, read_judgement(found)))
    files = read_run(folder)
    judgement = None
    if found is not None:
        judgement = optional(found, read_judgement, files.notes, "the benchmarks", "evaluate again")
    page = render(files, judgement)
    write_page(files.folder / "report.json", json.dumps(results.report_json(files), indent=2, allow_nan=False) + "\n")
    return write_page(files.folder / "report.html", page)


def write_page(path: Path, text: str) -> Path:
    """Returns the path."""
    aside = path.with_name(f"{path.name}.tmp")  # a reader never meets half a page
    aside.write_text(text, encoding="utf-8", errors="replace")  # a sentence may hold half a surrogate pair
    os.replace(aside, path)
    return path


def render_judged(folder: Path, judgement: Judgement) -> str:
    """A page of benchmarks alone."""
    return (
        page_environment()
        .get_template("judged_page.html")
        .render(
            title=folder.resolve().name,
            headline=summary(judgement),
            notes=judgement.notes,
            judged=build_sections(judgement),
        )
    )


def render(run: RunFiles, judgement: Judgement | None = None) -> str:
    """The page as text."""
    environment = page_environment()
    environment.filters["duration"] = duration_text
    caption, bars = results.bars(run)
    shown = run.samples[:MOST_PICTURES]
    return environment.get_template("template.html").render(
        title=title(run),
        headline=summary(judgement) if judgement and results.main_set(run) is None else results.headline(run),
        notes=[*run.notes, *(judgement.notes if judgement else [])],
        judged=build_sections(judgement) if judgement else None,
        cards=results.cards(run),
        bars=bars,
        bars_caption=caption,
        tables=results.tables(run),
        evaluation_seconds=(run.evaluation or {}).get("seconds"),
        curves=draw_curves(run),
        observed_words=OBSERVED_WORDS,
        most_points=plots.MOST_POINTS,
        binned=any(len(points) > plots.MOST_POINTS for points in run.series.values()),
        first_evaluation_plots=FIRST_EVALUATION_PLOTS,
        samples=shown,
        samples_summary=samples_summary(run, len(shown)),
        facts=facts(run),
        versions=_versions(run),
        config_text=run.config_text,
    )


def page_environment(*folders: Path) -> jinja2.Environment:
    """Templates of `folders`, then the report's own: its style and its figures."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,  # names of classes, sentences and commands are the user's
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def title(run: RunFiles) -> str:
    """'student from teacher' where the config or run.json names them, else the folder."""
    names = []
    for side in ("student", "teacher"):
        section = run.config.get(side)
        name = section.get("name") if isinstance(section, dict) else None
        fact = run.facts.get(side)
        names.append(name or (fact.get("name") if isinstance(fact, dict) else None))
    names = [str(Path(name).name) if name and Path(name).is_absolute() else name for name in names]
    return f"{names[0]} distilled from {names[1]}" if all(names) else f"Run {run.folder.resolve().name}"


def draw_curves(run: RunFiles) -> Curves:
    """Every series of metrics.jsonl is drawn once; what has no place of its own goes to `other`."""
    series = dict(run.series)
    series.pop("time/elapsed_seconds", None)
    taken: dict[str, plots.Plot] = {}

    def take(name: str, label: str, scale: float = 1.0, **options: Any) -> list[plots.Plot]:
        points = [(step, scale * value) for step, value in series.pop(name, [])]
        if points:
            taken[name] = plots.draw(f"plot{len(taken)}", label, points, **options)
        return [taken[name]] if points else []

    loss = take("train/loss", "Total loss")
    for name in _loss_terms(run):
        loss += take(name, _loss_label(run, name.removeprefix("train/loss_")))
    observed = draw_observed(series, [name.removeprefix("train/loss_") for name in _loss_terms(run)])
    speed = take("optim/lr", "Learning rate", log=False)
    speed += take("speed/images_per_second", "Images per second", zero=True)
    speed += take("data/wait_fraction", "Time spent waiting for data (%)", 100.0, zero=True, unit="\u00a0%")
    references = _teacher_values(run)
    evaluation = []
    for name in [name for name in series if name.startswith("eval/")]:
        evaluation += take(name, _evaluation_label(run, name), teacher=references.get(name), log=False)
    other = []
    for name in sorted(series):
        other += take(name, name)
    return Curves(loss, speed, observed, evaluation, other)


def _loss_terms(run: RunFiles) -> list[str]:
    """The logged terms in the order of the config, then those it does not name."""
    losses = run.config.get("losses")
    asked = [f"train/loss_{key}" for key in losses] if isinstance(losses, dict) else []
    logged = sorted(name for name in run.series if name.startswith("train/loss_"))
    return [name for name in asked if name in logged] + [name for name in logged if name not in asked]


def _loss_label(run: RunFiles, key: str) -> str:
    losses = run.config.get("losses")
    options = losses.get(key) if isinstance(losses, dict) else None
    if not isinstance(options, dict):
        return f"Term {key}"
    kind = options.get("kind", key)
    parts = ([] if kind == key else [str(kind)]) + ([f"weight {options['weight']}"] if "weight" in options else [])
    return f"Term {key}" + (f" ({', '.join(parts)})" if parts else "")


def _evaluation_names(run: RunFiles) -> dict[str, tuple[str, str]]:
    """'eval/scenes_top1' -> ('scenes', 'top1'), as far as evaluation.json knows the sets."""
    sets = run.evaluation["sets"] if run.evaluation else {}
    return {
        f"eval/{name}_{metric}": (name, metric)
        for name, entry in sets.items()
        for row in entry["rows"].values()
        for metric in row
    }


def _evaluation_label(run: RunFiles, key: str) -> str:
    known = _evaluation_names(run).get(key)
    return f"{known[0]}: {metric_label(known[1])}" if known else key.removeprefix("eval/").replace("_", " ")


def _teacher_values(run: RunFiles) -> dict[str, float]:
    """The dashed lines: what the teacher reaches on the same set and metric."""
    values = {}
    for key, (name, metric) in _evaluation_names(run).items():
        teacher = (run.evaluation or {})["sets"][name]["rows"].get("teacher", {})
        if metric in teacher:
            values[key] = teacher[metric]
    return values


def samples_summary(run: RunFiles, shown: int) -> str:
    """How often each side is right on the pictures of the page, which are a few of the set."""
    judged = [sample for sample in run.samples[:shown] if sample.truth is not None]
    parts = []
    for side in ("student", "teacher"):
        firsts = [(getattr(sample, side), sample.truth) for sample in judged if getattr(sample, side)]
        if firsts:
            right = sum(predictions[0][0] == truth for predictions, truth in firsts)
            parts.append(f"the {side} is right on {right} of {len(firsts)}")
    sentence = ", ".join(parts) + "." if parts else ""
    return (sentence[:1].upper() + sentence[1:]) + (
        f" {shown} of {len(run.samples)} pictures are shown." if shown < len(run.samples) else ""
    )


def facts(run: RunFiles) -> list[tuple[str, str, bool]]:
    """Label, text, and whether the text is code; the known facts first, then whatever else run.json holds."""
    known = {key: run.facts[key] for key in FACT_LABELS if key in run.facts}
    rest = {key: value for key, value in run.facts.items() if key not in {*FACT_LABELS, "versions", "git_dirty"}}
    return [
        (FACT_LABELS.get(key, key.replace("_", " ").capitalize()), _fact_text(run, key, value), key in CODE_FACTS)
        for key, value in {**known, **rest}.items()
    ]


def _fact_text(run: RunFiles, key: str, value: Any) -> str:
    if key == "git_commit" and isinstance(run.facts.get("git_dirty"), bool):
        return f"{value} ({'with uncommitted changes' if run.facts['git_dirty'] else 'clean'})"
    if isinstance(value, dict):
        return "; ".join(_part_text(name, part) for name, part in value.items())
    return plain_text(value)


def _part_text(name: str, part: Any) -> str:
    if name == "name":
        return str(part)
    words = name.replace("_", " ").replace("params", "parameters")
    if isinstance(part, dict):
        return f"{words}: " + ", ".join(f"{plain_text(value)} {key}" for key, value in part.items())
    return f"{words} {count_text(part)}" if name.endswith("_params") else f"{words} {plain_text(part)}"


def _versions(run: RunFiles) -> list[tuple[str, str]]:
    versions = run.facts.get("versions")
    return [(str(name), plain_text(value)) for name, value in versions.items()] if isinstance(versions, dict) else []

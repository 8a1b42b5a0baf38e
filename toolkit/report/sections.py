"""All that a page shows of results.json, drawn and worded."""

from dataclasses import dataclass

from toolkit.report.calibration import WORDS as CALIBRATION_WORDS
from toolkit.report.calibration import calibration_grid, calibration_plots
from toolkit.report.cost import cost_grid, cost_plots, headline_scores
from toolkit.report.details import detail_grid
from toolkit.report.grids import Grid, interval_text, percent_text
from toolkit.report.judged import Judgement
from toolkit.report.pairs import compositionality_grids, retrieval_grids
from toolkit.report.plots import Key, Plot
from toolkit.report.radar import FEWEST_SPOKES, draw_radar
from toolkit.report.recalls import Room, SetClasses, set_classes
from toolkit.report.robustness import Robustness, robustness
from toolkit.report.run_files import Sample
from toolkit.report.sets import SetBars, set_bars, set_grid
from toolkit.report.shots import shot_plots
from toolkit.report.wording import duration_text, plain_text


@dataclass(frozen=True)
class TaskView:
    """One way of judging: its table, its radar where there are sets enough, its bars."""

    grid: Grid
    radar: Plot | None
    bars: list[SetBars]
    details: Grid | None


@dataclass(frozen=True)
class Sections:
    """What judged.html shows; an empty part has no heading."""

    summary: str
    keys: list[Key]
    tasks: list[TaskView]
    robustness: Robustness | None
    calibration: list[Plot]
    calibration_words: str
    calibration_table: Grid | None
    shots: list[Plot]
    classes: list[SetClasses]
    pictures_refused: int
    sentences: list[Sample]
    retrieval: list[Grid]
    compositionality: list[Grid]
    cost: Grid | None
    cost_plots: list[Plot]
    models: list[tuple[str, str]]
    facts: list[tuple[str, str]]
    missing: list[tuple[str, str]]
    model: str


def build_sections(results: Judgement) -> Sections:
    """Draws every plot once."""
    room, numbers = Room(), results.numbers()
    return Sections(
        summary=summary(results),
        keys=[Key(numbers[name], name) for name in results.names()],
        tasks=[_task_view(results, task) for task in results.tasks()],
        robustness=robustness(results),
        calibration=calibration_plots(results),
        calibration_words=CALIBRATION_WORDS,
        calibration_table=calibration_grid(results),
        shots=shot_plots(results),
        sentences=room.take(results.sentences),
        classes=set_classes(results, room),
        pictures_refused=room.refused,
        retrieval=retrieval_grids(results),
        compositionality=compositionality_grids(results),
        cost=cost_grid(results),
        cost_plots=cost_plots(results),
        models=[(name, _model_words(results, name)) for name in results.names()],
        facts=_facts(results),
        missing=list(results.missing.items()),
        model=results.model,
    )


def _task_view(results: Judgement, task: str) -> TaskView:
    grid = set_grid(results, task)
    return TaskView(grid, task_radar(results, task, grid.title), set_bars(results, task), detail_grid(results, task))


def task_radar(results: Judgement, task: str, title: str) -> Plot | None:
    """None where fewer than three sets were judged."""
    judged = results.sets_of(task)
    if len(judged) < FEWEST_SPOKES:
        return None
    outlines = {
        name: [one.rows[name].score.value if name in one.rows else None for _, one in judged.values()]
        for name in results.names()
        if any(name in one.rows for _, one in judged.values())
    }
    spokes = [one.title for one, _ in judged.values()]
    remark = "One spoke per set, 0 in the middle, 100 outside, each in the set's own metric."
    place = f"radar-{results.tasks().index(task)}"
    return draw_radar(place, title, remark, spokes, outlines, results.numbers())


def summary(results: Judgement) -> str:
    """The first thing to say: the headline score of the model in question, with its interval, beside the others."""
    found = headline_scores(results)
    if found is None or results.model not in found[1]:
        return f"{results.model} beside {len(results.models) - 1} other models."
    where, scores = found
    parts = [
        f"{name} {percent_text(scores[name].value)} {interval_text(scores[name])}".strip()
        for name in results.names()
        if name in scores
    ]
    return f"Zero-shot, {where}: {'; '.join(parts)}."


def _model_words(results: Judgement, name: str) -> str:
    model = results.models[name]
    words = [
        model.what,
        f"width {plain_text(int(model.embed_dim))}" if model.embed_dim else "",
        f"pictures of {plain_text(int(model.image_size))} px" if model.image_size else "",
        f"sha256 {model.sha256[:12]}" if model.sha256 else "",
        f"licence: {model.licence}" if model.licence else "",
    ]
    return ", ".join(word for word in words if word)


def _facts(results: Judgement) -> list[tuple[str, str]]:
    found = []
    for name, value in results.facts.items():
        if isinstance(value, dict):
            text = ", ".join(f"{key} {plain_text(part)}" for key, part in value.items())
        else:
            text = duration_text(value) if name == "seconds" else plain_text(value)
        found.append(({"seconds": "Took", "git_commit": "Commit"}.get(name, name.replace("_", " ").capitalize()), text))
    return found

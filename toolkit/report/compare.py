"""`dime report A B C`: a page and a file that set several runs or benchmarks side by side."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toolkit.errors import ConfigError, DataError
from toolkit.report.compare_files import Compared, joined, read_compared
from toolkit.report.compare_merged import merged
from toolkit.report.compare_runs import differing_settings, overlaid, own_sets, settings_grid
from toolkit.report.compare_sets import Columns, compared_grid, mean_scores, set_rows, tasks_of
from toolkit.report.cost import cost_grid, cost_plots
from toolkit.report.grids import listed
from toolkit.report.judged import GROUP_SIZES, Judgement, task_title
from toolkit.report.page import page_environment, write_page
from toolkit.report.pairs import compositionality_grids, retrieval_grids
from toolkit.report.plots import Key
from toolkit.report.robustness import robustness
from toolkit.report.sections import task_radar
from toolkit.report.sets import set_bars
from toolkit.report.shots import shot_plots


def write_comparison(folders: Sequence[Path], out: Path | None) -> Path:
    """Writes comparison.html and comparison.json to `out`, by default the first folder; returns the page.

    The folders' own reports are left as they are. Raises DataError for a folder that is neither a run nor holds a
    benchmark, ConfigError where `out` is a file.
    """
    compared = read_compared([Path(folder) for folder in folders])
    target = Path(folders[0]) if out is None else out
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {target} cannot be a folder ({error.strerror}); name another one") from error
    columns = joined(compared)
    page = render_comparison(compared, columns)
    content = json.dumps(comparison_json(compared, columns), indent=2, allow_nan=False)
    write_page(target / "comparison.json", content + "\n")
    return write_page(target / "comparison.html", page)


def render_comparison(compared: Sequence[Compared], columns: Columns) -> str:
    """The page as text."""
    judgement, dropped = merged(columns) if columns else (None, [])
    numbers = judgement.numbers() if judgement else {one.name: place for place, one in enumerate(compared)}
    numbers |= {one.name: number for number, one in enumerate(compared, len(numbers)) if one.name not in numbers}
    own, curves, settings = own_sets(compared), overlaid(compared, numbers), settings_grid(compared)
    if not columns and own is None and not curves and settings is None:
        raise DataError(
            f"{listed(one.name for one in compared)}: nothing in them can be compared; train or evaluate first"
        )
    return (
        page_environment()
        .get_template("comparison.html")
        .render(
            title=f"Comparison of {listed(one.name for one in compared)}",
            folders=[(one.name, str(one.folder)) for one in compared],
            notes=[
                f"{one.name}: {note}" for one in compared for note in (*one.notes, *(one.run.notes if one.run else []))
            ],
            dropped=listed(dict.fromkeys(dropped)),
            tasks=_task_views(columns, judgement) if judgement else [],
            keys=[Key(numbers[name], name) for name in judgement.names()] if judgement else [],
            robustness=robustness(judgement) if judgement else None,
            shots=shot_plots(judgement) if judgement else [],
            retrieval=retrieval_grids(judgement) if judgement else [],
            compositionality=compositionality_grids(judgement) if judgement else [],
            cost=cost_grid(judgement) if judgement else None,
            cost_plots=cost_plots(judgement) if judgement else [],
            own=own,
            curves=curves,
            settings=settings,
            runs=sum(one.run is not None for one in compared),
        )
    )


def _task_views(columns: Columns, judgement: Judgement) -> list[dict[str, Any]]:
    """The table holds everything; radar and bars what was judged alike."""
    return [
        {
            "grid": compared_grid(columns, task),
            "radar": task_radar(judgement, task, task_title(task)),
            "bars": set_bars(judgement, task),
        }
        for task in tasks_of(columns)
    ]


def comparison_json(compared: Sequence[Compared], columns: Columns) -> dict[str, Any]:
    """What the page says, for programs: values by model, whether a set was judged alike, settings that differ."""
    tasks: dict[str, Any] = {}
    means: dict[str, Any] = {}
    for task in tasks_of(columns):
        tasks[task] = {
            row.name: {
                "title": row.title,
                "judged_alike": not row.unlike,
                "differs": row.unlike,
                "values": {name: asdict(pair[1].rows[columns[name][1]].score) for name, pair in row.found.items()},
            }
            for row in set_rows(columns, task)
        }
        found = {group: mean_scores(columns, task, group) for group in GROUP_SIZES}
        means[task] = {
            group: {name: asdict(one) for name, one in scores.items()} for group, scores in found.items() if scores
        }
    models = {
        name: {"folder": str(one.folder), "row": row, "sha256": one.judgement.models[row].sha256}
        for name, (one, row) in columns.items()
        if one.judgement
    }
    return {
        "format": 1,
        "units": "percent",
        "folders": {one.name: str(one.folder) for one in compared},
        "models": models,
        "tasks": tasks,
        "means": means,
        "own_sets": {one.name: one.run.evaluation["sets"] for one in compared if one.run and one.run.evaluation},
        "settings": differing_settings(compared),
    }

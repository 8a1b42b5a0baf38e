"""One judgement out of several files, of what they judged alike: then it is drawn like any other."""

from collections.abc import Mapping
from dataclasses import replace

from toolkit.report.compare_sets import Columns, mean_scores, set_rows, tasks_of
from toolkit.report.grids import listed
from toolkit.report.judged import GROUP_SIZES, JudgedSet, Judgement, Mean, Pairs, Row, Task


def merged(columns: Columns) -> tuple[Judgement, list[str]]:
    """Rows are columns. Also the titles of what is not in it, because the files judged it differently."""
    sets: dict[str, JudgedSet] = {}
    means: dict[str, dict[str, Mean]] = {}
    dropped: dict[str, str] = {}
    for task in tasks_of(columns):
        rows = set_rows(columns, task)
        for row in rows:
            if row.unlike:
                dropped[row.name] = row.title
            elif row.found:
                first, judged = next(iter(row.found.values()))
                known = sets.setdefault(row.name, replace(first, tasks={}, problems=[]))
                scores = {
                    name: _bare(row.found[name][1].rows[columns[name][1]]) for name in columns if name in row.found
                }
                known.tasks[task] = Task(judged.label, scores, {}, [], [])
        for group, size in GROUP_SIZES.items():
            found = mean_scores(columns, task, group)
            if found and not any(row.unlike for row in rows if row.group == group):
                means.setdefault(task, {})[group] = Mean(size, found, {})
    models = {name: one.judgement.models[row] for name, (one, row) in columns.items() if one.judgement}
    judgement = Judgement(
        model=next(iter(columns)),
        models=models,
        sets=sets,
        retrieval=_joined_pairs(columns, "retrieval"),
        compositionality=_joined_pairs(columns, "compositionality"),
        means=means,
        sentences=[],
        missing={name: "the files judged it differently." for name in dropped},
        facts={},
        notes=[],
        compared=True,
    )
    return judgement, list(dropped.values())


def _bare(row: Row) -> Row:
    """Without what only a page of one run shows."""
    return replace(row, per_class=[], more={})


def _joined_pairs(columns: Columns, kind: str) -> dict[str, Pairs]:
    """Retrieval or compositionality, by set; those judged differently say so and are not ranked."""
    files: dict[str, Mapping[str, Pairs]] = {
        name: getattr(one.judgement, kind) for name, (one, _) in columns.items() if one.judgement
    }
    joined = {}
    for key in dict.fromkeys(key for file in files.values() for key in file):
        found = {name: file[key] for name, file in files.items() if key in file and columns[name][1] in file[key].rows}
        if not found:
            continue
        first = next(iter(found.values()))
        sizes: dict[str, list[str]] = {}
        for name, one in found.items():
            size = f"{one.samples:,} samples" + (f", {one.captions:,} captions" if one.captions else "")
            sizes.setdefault(size if one.pictures else f"{size}, sentences alone", []).append(name)
        unlike = "; ".join(f"{listed(names)} {size}" for size, names in sizes.items()) if len(sizes) > 1 else ""
        problems = list(dict.fromkeys(problem for one in found.values() for problem in one.problems))
        joined[key] = replace(
            first,
            problems=([f"Judged differently: {unlike}"] if unlike else []) + problems,
            rows={name: one.rows[columns[name][1]] for name, one in found.items()},
            ranked=not unlike,
        )
    return joined

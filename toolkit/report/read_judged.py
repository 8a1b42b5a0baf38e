"""Reads results.json of a benchmark. It may come from anywhere: every value is checked before it reaches the page."""

from pathlib import Path

from toolkit.errors import DataError
from toolkit.report import judged
from toolkit.report.details import DETAILS
from toolkit.report.judged import Judgement
from toolkit.report.untrusted import Found, read_json

PART = "part: "
PLACES = ("benchmarks/results.json", "results.json")
"""Under a run, an import or an export; in a folder that holds a benchmark alone."""
FACTS = ("command", "written_at", "seconds", "data", "git_commit", "precision", "machine", "versions")


def find_results(folder: Path) -> Path | None:
    """The file of a folder, None where it has none."""
    return next((folder / place for place in PLACES if (folder / place).is_file()), None)


def read_judgement(path: Path) -> Judgement:
    """Raises DataError where the file is torn or of another kind."""
    whole = read_json(path)
    if not isinstance(whole.value, dict) or "sets" not in whole.value or "models" not in whole.value:
        raise DataError(f"{path.name} should hold a mapping with models and sets, as `dime evaluate --tasks` writes it")
    if whole.value.get("format") != 1 or whole.value.get("units", "percent") != "percent":
        found = f"format {whole.value.get('format')!r}, units {whole.value.get('units')!r}"
        raise DataError(f"{path.name}: this report reads format 1 in percent, found {found}; evaluate again")
    notes: list[str] = []
    models = {name: _model(one) for name, one in whole.items("models")}
    if not models:
        raise DataError(f"{path.name} names no model")
    model = whole.text("model", "student")
    if model not in models:
        raise DataError(f"{path.name}: model is {model!r}, which is not among its models ({', '.join(models)})")
    results = Judgement(
        model=model,
        models=models,
        sets={name: _set(one, model, notes) for name, one in whole.items("sets")},
        retrieval={name: _pairs(one) for name, one in whole.items("retrieval")},
        compositionality={name: _pairs(one) for name, one in whole.items("compositionality")},
        means=_means(whole),
        sentences=[one.picture(model) for one in whole.each("nearest_sentences")],
        missing={name: str(one.value) for name, one in whole.items("missing")},
        facts={name: whole.value[name] for name in FACTS if whole.value.get(name) is not None},
        notes=notes,
    )
    _only_known_rows(results, path)
    return results


def _only_known_rows(results: Judgement, path: Path) -> None:
    """A row whose model is not described would have no place in a plot."""
    rows = {row for one in results.sets.values() for task in one.tasks.values() for row in task.rows}
    rows |= {row for one in (*results.retrieval.values(), *results.compositionality.values()) for row in one.rows}
    rows |= {row for means in results.means.values() for mean in means.values() for row in mean.rows}
    strangers = sorted(rows - set(results.models))
    if strangers:
        raise DataError(f"{path.name}: rows of {', '.join(strangers)}, which models does not describe")


def _model(one: Found) -> judged.JudgedModel:
    cost = one.get("cost")
    return judged.JudgedModel(
        what=one.text("what"),
        sha256=one.text("sha256"),
        embed_dim=one.optional("embed_dim"),
        image_size=one.optional("image_size"),
        image_params=one.optional("image_params"),
        text_params=one.optional("text_params"),
        cost=_cost(cost) if cost else None,
        licence=one.text("licence"),
    )


def _cost(one: Found) -> judged.Cost:
    return judged.Cost(
        image_bytes=one.optional("image_bytes"),
        text_bytes=one.optional("text_bytes"),
        image_ms=_latencies(one, "image_ms"),
        text_ms=_latencies(one, "text_ms"),
        device=one.text("device"),
        precision=one.text("precision"),
    )


def _latencies(one: Found, key: str) -> dict[int, judged.Latency]:
    found = {}
    for batch, latency in one.items(key):
        if not batch.isdecimal():
            raise DataError(f"{latency.where}: a latency stands under its batch size, found {batch!r}")
        found[int(batch)] = judged.Latency(latency.need("p50").number(), latency.optional("p95"))
    return dict(sorted(found.items()))


def _set(one: Found, model: str, notes: list[str]) -> judged.JudgedSet:
    group = one.text("group", "yours")
    if group not in judged.GROUP_TITLES:
        raise DataError(f"{one.where}.group should be one of {', '.join(judged.GROUP_TITLES)}, found {group!r:.60}")
    classes = one.optional("classes")
    return judged.JudgedSet(
        title=one.text("title", one.where.rpartition("sets.")[2]),
        group=group,
        metric=one.text("metric", "top1"),
        samples=int(one.need("samples").number()),
        classes=None if classes is None else int(classes),
        classnames=one.texts("classnames"),
        copy=one.text("copy"),
        problems=one.texts("problems"),
        tasks={name: _task(task, model, notes) for name, task in one.items("tasks")},
    )


def _task(one: Found, model: str, notes: list[str]) -> judged.Task:
    rows = {}
    for name, row in one.items("rows"):
        if row.optional("value") is None:
            notes.append(f"{row.where} has no value and was left out.")
        else:
            rows[name] = _row(row)
    return judged.Task(
        label=one.text("label"),
        rows=rows,
        differences={name: _difference(row) for name, row in one.items("differences")},
        worst=[_worst(worst, model) for worst in one.each("worst")],
        pictures=[picture.picture(model) for picture in one.each("pictures")],
    )


def _interval(one: Found) -> judged.Interval:
    return judged.Interval(one.need("value").number(), one.optional("low"), one.optional("high"))


def _row(one: Found) -> judged.Row:
    calibration = one.get("calibration")
    bins = calibration.each("bins") if calibration else ()
    numbers = {name: value for name in DETAILS if (value := one.optional(name)) is not None}
    return judged.Row(
        score=_interval(one),
        per_class=[None if recall.value is None else recall.number() for recall in one.each("per_class")],
        ece=calibration.optional("ece") if calibration else None,
        bins=[judged.Bin(*(one.need(key).number() for key in ("confidence", "accuracy", "share"))) for one in bins],
        more=numbers,
        seeds=len(list(one.items("seeds"))),
        std=one.optional("std"),
    )


def _difference(one: Found) -> judged.Difference:
    return judged.Difference(_interval(one), one.optional("p_value"))


def _worst(one: Found, model: str) -> judged.Worst:
    return judged.Worst(
        name=one.text("name"),
        recall=one.need("recall").number(),
        teacher_recall=one.optional("teacher_recall"),
        confused=one.pairs("confused"),
        pictures=[picture.picture(model) for picture in one.each("pictures")],
    )


def _means(whole: Found) -> dict[str, dict[str, judged.Mean]]:
    return {
        task: {
            group: judged.Mean(
                sets=int(mean.need("sets").number()),
                rows={name: _interval(row) for name, row in mean.items("rows")},
                differences={name: _difference(row) for name, row in mean.items("differences")},
            )
            for group in groups.mapping()
            if (mean := groups.get(group)) is not None
        }
        for task, groups in whole.items("means")
    }


def _pairs(one: Found) -> judged.Pairs:
    """`parts` are put behind the metric they are parts of."""
    captions, pictures = one.optional("captions"), one.get("pictures")
    text_only = {name: inside for name, row in one.items("rows") if (inside := row.get("text_only"))}
    return judged.Pairs(
        title=one.text("title"),
        samples=int(one.need("samples").number()),
        captions=None if captions is None else int(captions),
        pictures=pictures is None or pictures.value is not False,
        problems=one.texts("problems"),
        rows={name: scores for name, row in one.items("rows") if (scores := _pair_scores(row))},
        text_only={name: _text_only(inside) for name, inside in text_only.items()},
    )


def _pair_scores(row: Found) -> dict[str, judged.Interval]:
    """Every number of a row, with its ends from `intervals` where it has them, then its parts."""
    ends = {}
    for name, pair in row.items("intervals"):
        low, high = pair.value if isinstance(pair.value, list) and len(pair.value) == 2 else (None, None)
        ends[name] = (Found(pair.where, low).number(), Found(pair.where, high).number())
    known = [key for key in row.mapping() if key not in ("parts", "intervals", "text_only") and row.get(key)]
    scores = {key: judged.Interval(row.need(key).number(), *ends.get(key, (None, None))) for key in known}
    return scores | {f"{PART}{part}": judged.Interval(value.number()) for part, value in row.items("parts")}


def _text_only(inside: Found) -> dict[str, float]:
    """Numbers of the text tower alone: those of the whole set, then `part: add att, mean_cosine` and so on."""
    scores = {key: inside.need(key).number() for key in inside.mapping() if key != "parts" and inside.get(key)}
    for part, values in inside.items("parts"):
        scores |= {f"{PART}{part}, {key}": values.need(key).number() for key in values.mapping() if values.get(key)}
    return scores

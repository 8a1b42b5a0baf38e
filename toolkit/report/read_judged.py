"""Reads results.json of a benchmark. It may come from anywhere: every value is checked before it reaches the page."""

from pathlib import Path

from toolkit.errors import DataError
from toolkit.report import judged
from toolkit.report.details import DETAILS
from toolkit.report.judged import Judgement
from toolkit.report.untrusted import Found, read_json

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
    rows |= {
        row for one in results.retrieval.values() for row in one.rows
    }  # compositionality has baselines without a model
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
    """`parts` are put behind the metric they are parts of; `text_only` numbers are no scores and say so."""
    rows: dict[str, dict[str, judged.Interval]] = {}
    for name, row in one.items("rows"):
        only, ends = row.get("text_only"), dict(row.items("intervals"))
        values = {
            key: _with_ends(row.need(key), ends.get(key)) for key in _numbers(row, ("parts", "text_only", "intervals"))
        }
        values |= {f"{judged.PART}{part}": judged.Interval(value.number()) for part, value in row.items("parts")}
        if only is not None:
            values |= {
                f"{judged.TEXT_ONLY}{key}": judged.Interval(only.need(key).number())
                for key in _numbers(only, ("parts",))
            }
        rows[name] = values
    captions, pictures = one.optional("captions"), one.get("pictures")
    return judged.Pairs(
        title=one.text("title"),
        samples=int(one.need("samples").number()),
        captions=None if captions is None else int(captions),
        pictures=pictures is None or pictures.value is not False,
        problems=one.texts("problems"),
        rows=rows,
    )


def _numbers(row: Found, others: tuple[str, ...]) -> list[str]:
    """Names of what must be numbers."""
    return [key for key, value in row.mapping().items() if key not in others and value is not None]


def _with_ends(value: Found, ends: Found | None) -> judged.Interval:
    """`ends` is [low, high]."""
    if ends is None:
        return judged.Interval(value.number())
    if not isinstance(ends.value, list) or len(ends.value) != 2:
        raise DataError(f"{ends.where} should be [low, high], found {ends.value!r:.60}")
    low, high = (Found(ends.where, end).number() for end in ends.value)
    return judged.Interval(value.number(), low, high)

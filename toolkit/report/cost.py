"""What each model costs: parameters, bytes, latency; and what accuracy that buys."""

from toolkit.report.dots import Dot, draw_dots
from toolkit.report.grids import Column, Entry, Grid, Line
from toolkit.report.judged import Interval, JudgedModel, Judgement, Latency
from toolkit.report.plots import Plot
from toolkit.report.wording import count_text

TASK = "zero_shot"
SIZE = "Parameters and bytes of the weights as they are held."
LATENCY = (
    "Latency of one forward of so many pictures or sentences, normalisation included: the median, and below it the 95th "
    "percentile."
)


def cost_grid(results: Judgement) -> Grid | None:
    """Quantities downwards, models across; a row only where a model has it; None where nothing is known."""
    models = {name: results.models[name] for name in results.names()}
    lines = [
        *_counts("Image parameters", [model.image_params for model in models.values()]),
        *_counts("Text parameters", [model.text_params for model in models.values()]),
        *_bytes("Image tower, MB", [model.cost.image_bytes if model.cost else None for model in models.values()]),
        *_bytes("Text tower, MB", [model.cost.text_bytes if model.cost else None for model in models.values()]),
        *_latency_lines("Pictures", "image_ms", list(models.values())),
        *_latency_lines("Sentences", "text_ms", list(models.values())),
    ]
    if not lines:
        return None
    costs = [model.cost for model in models.values() if model.cost]
    places = list(dict.fromkeys(f"{cost.device}, {cost.precision}".strip(", ") for cost in costs))
    words = [SIZE]
    if any(cost.image_ms or cost.text_ms for cost in costs):
        words += [LATENCY] + ([f"Measured on {' and '.join(places)}."] if any(places) else [])
        words += ["These differ, so latencies are not comparable between models."] if len(places) > 1 else []
    return Grid("Size and speed", " ".join(words), "", [Column(name) for name in models], lines)


def _counts(label: str, values: list[float | None]) -> list[Line]:
    return [Line(label, [Entry(count_text(value)) for value in values])] if any(v is not None for v in values) else []


def _bytes(label: str, values: list[float | None]) -> list[Line]:
    entries = [Entry() if value is None else Entry(f"{value / 1e6:,.1f}") for value in values]
    return [Line(label, entries)] if any(value is not None for value in values) else []


def _latency_lines(what: str, key: str, models: list[JudgedModel]) -> list[Line]:
    measured: list[dict[int, Latency]] = [getattr(model.cost, key) if model.cost else {} for model in models]
    batches = sorted({batch for one in measured for batch in one})
    return [
        Line(f"{what}, batch {batch}, ms", [_latency_entry(one.get(batch)) for one in measured]) for batch in batches
    ]


def _latency_entry(latency: Latency | None) -> Entry:
    if latency is None:
        return Entry()
    return Entry(milliseconds(latency.p50), "" if latency.p95 is None else f"p95 {milliseconds(latency.p95)}")


def milliseconds(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def headline_scores(results: Judgement) -> tuple[str, dict[str, Interval]] | None:
    """What accuracy stands for in one number: ImageNet, else the mean of ELEVATER, else the first set; zero-shot."""
    judged = results.sets_of(TASK)
    mean = results.means.get(TASK, {}).get("elevater")
    if "imagenet-1k" not in judged and mean is not None:
        return f"mean of ELEVATER ({mean.sets} sets)", mean.rows
    if not judged:
        return None
    one, task = judged.get("imagenet-1k") or next(iter(judged.values()))
    return one.title, {name: row.score for name, row in task.rows.items()}


def cost_plots(results: Judgement) -> list[Plot]:
    """Accuracy against image parameters and against the latency of one picture, where two models or more have both."""
    scores = headline_scores(results)
    if scores is None:
        return []
    sizes = {name: model.image_params / 1e6 for name, model in results.models.items() if model.image_params}
    times = {
        name: model.cost.image_ms[1].p50
        for name, model in results.models.items()
        if model.cost and 1 in model.cost.image_ms
    }
    plots = []
    for place, what, across, values in (
        ("size", "size of the image tower", "image parameters (million)", sizes),
        ("speed", "latency of one picture", "milliseconds per picture, batch 1", times),
    ):
        dots = [
            Dot(name, values[name], scores[1][name].value, results.numbers()[name])
            for name in results.names()
            if name in values and name in scores[1]
        ]
        if len(dots) > 1:
            title = f"Accuracy against {what}"
            remark = f"Zero-shot, {scores[0]}. Up and to the left is better."
            plots.append(
                draw_dots(f"cost-{place}", title, remark, dots, across=across, up="accuracy (%)", logarithmic=True)
            )
    return plots

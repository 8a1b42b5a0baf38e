"""Robustness against in-distribution accuracy: how much of ImageNet's accuracy survives another distribution."""

from dataclasses import dataclass, field

from toolkit.report.dots import Dot, draw_dots
from toolkit.report.grids import listed
from toolkit.report.judged import GROUP_SIZES, Judgement
from toolkit.report.plots import Plot
from toolkit.report.published_rows import published_for

IMAGENET = "imagenet-1k"
TASK = "zero_shot"
ACROSS = "ImageNet-1K zero-shot (%)"


@dataclass(frozen=True)
class Robustness:
    """The plots, or in `lack` why there are none."""

    plots: list[Plot] = field(default_factory=list)
    lack: str = ""
    sources: list[str] = field(default_factory=list)
    """Of the points that others published."""


def robustness(results: Judgement) -> Robustness | None:
    """None where no set of the group was judged: then nobody asked."""
    judged = results.sets_of(TASK)
    group = {name: pair for name, pair in judged.items() if pair[0].group == "robustness"}
    if not group:
        return None
    if IMAGENET not in judged:
        how = results.missing.get(IMAGENET, "")
        return Robustness(lack=f"The plot needs ImageNet-1K zero-shot, which is not here{f': {how}' if how else '.'}")
    x = {name: row.score.value for name, row in judged[IMAGENET][1].rows.items()}
    mean = results.means.get(TASK, {}).get("robustness")
    plots: list[Plot] = []
    sources: list[str] = []
    if mean is not None:
        y = {name: score.value for name, score in mean.rows.items()}
        title = f"Mean of {mean.sets} robustness sets against ImageNet-1K"
        plots += _plot(results, "robustness", title, "robustness", x, y, sources)
    for name, (one, task) in group.items():
        y = {model: row.score.value for model, row in task.rows.items()}
        plots += _plot(results, f"robust{len(plots)}", f"{one.title} against ImageNet-1K", name, x, y, sources)
    lack = ""
    if mean is None:
        titles = listed(one.title for one, _ in group.values())
        lack = f"{len(group)} of {GROUP_SIZES['robustness']} robustness sets are here ({titles}), so there is no mean."
    return Robustness(plots, lack, list(dict.fromkeys(sources)))


def _plot(results: Judgement, place: str, title: str, of: str, x: dict[str, float], y: dict[str, float],
          sources: list[str]) -> list[Plot]:  # fmt: skip
    """`sources` grows by those of the published points."""
    numbers = results.numbers()
    dots = [Dot(name, x[name], y[name], numbers[name]) for name in results.names() if name in x and name in y]
    if not dots:
        return []
    for model, scores in published_for(TASK, [IMAGENET, of]).items():
        if IMAGENET in scores and of in scores:
            dots.append(Dot(f"{model} (published)", scores[IMAGENET][0], scores[of][0]))
            sources += [f"{model}: {scores[where][1]}" for where in (IMAGENET, of)]
    remark = "Filled: measured here. Hollow: published, sources below. The dashed line is y\u00a0=\u00a0x."
    return [draw_dots(place, title, remark, dots, across=ACROSS, up="robustness (%)", diagonal=True)]

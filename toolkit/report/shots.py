"""Accuracy over the number of labelled pictures per class."""

from typing import TYPE_CHECKING

from toolkit.report.judged import Judgement, shots_of
from toolkit.report.lines import style
from toolkit.report.plots import Key, Plot, as_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def shot_plots(results: Judgement) -> list[Plot]:
    """One per set with k-shot values at two places or more, zero-shot (no picture) counted as 0."""
    plots: list[Plot] = []
    tasks = [(task, shots_of(task)) for task in results.tasks()]
    for one in results.sets.values():
        lines: dict[tuple[str, str], dict[int, float]] = {}
        for task, shots in tasks:
            if shots and task in one.tasks:
                for name, row in one.tasks[task].rows.items():
                    lines.setdefault((name, shots[1]), {})[shots[0]] = row.score.value
        zero = one.tasks.get("zero_shot")
        for (name, _), dots in lines.items():
            if zero and name in zero.rows:
                dots[0] = zero.rows[name].score.value
        if len({shots for dots in lines.values() for shots in dots}) > 1:
            plots.append(_draw(f"shots{len(plots)}", one.title, lines, results))
    return plots


def _draw(place: str, title: str, lines: dict[tuple[str, str], dict[int, float]], results: Judgement) -> Plot:
    numbers, ways = results.numbers(), sorted({how for _, how in lines})
    order = {name: number for number, name in enumerate(results.names())}
    drawn = sorted(lines.items(), key=lambda item: (ways.index(item[0][1]), order[item[0][0]]))
    looks = {key: numbers[key[0]] + 6 * ways.index(key[1]) for key, _ in drawn}
    """Colour by model, dashes also by the way of training."""
    labels = {key: key[0] + (f", {key[1].replace('_', ' ')}" if key[1] else ", linear probe") for key, _ in drawn}
    places = sorted({shots for _, dots in drawn for shots in dots})

    def paint(axes: "Axes") -> None:
        for key, dots in drawn:
            known = sorted(dots)
            across = [places.index(shots) for shots in known]
            axes.plot(
                across, [dots[shots] for shots in known], linewidth=1.8, marker="o", markersize=4, **style(looks[key])
            )
        axes.set_xticks(range(len(places)), [str(shots) for shots in places])
        axes.set_xlabel("pictures per class")
        axes.set_ylabel("percent")
        axes.grid(axis="y", linewidth=0.7)
        axes.tick_params(length=0)
        highest = max(value for _, dots in drawn for value in dots.values())
        axes.set_ylim(0, min(102.0, 1.15 * highest + 1))

    keys = tuple(Key(looks[key], labels[key], f"{dots[max(dots)]:.1f} at {max(dots)}") for key, dots in drawn)
    told = "; ".join(
        f"{labels[key]} " + ", ".join(f"{dots[n]:.1f} at {n}" for n in sorted(dots)) for key, dots in drawn
    )
    return Plot(title, "", f"Accuracy on {title} by pictures per class: {told}", as_svg(place, paint), keys)

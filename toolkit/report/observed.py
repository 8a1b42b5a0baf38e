"""Three plots of what the losses saw while training, one line per term."""

from collections.abc import Sequence

from toolkit.report.lines import draw_lines
from toolkit.report.plots import Plot
from toolkit.report.run_files import Points

PREFIX = "observed/"
OBSERVED_WORDS = (
    "Each term compares every row of a batch with all columns of it (pictures with sentences, or pictures with pictures). "
    "Measured on the steps that are logged, not averaged between them."
)
KINDS = {
    "target_entropy": (
        "Entropy of the teacher's targets (nats)",
        "How sharp they are: 0 where a row has a single match, higher the more columns share it. Depends on the batch size.",
        1.0, "", None,
    ),
    "top1_agreement": (
        "Student picks the teacher's first choice (%)",
        "Share of rows whose likeliest column is the same for both.",
        100.0, "\u00a0%", 102.0,
    ),
    "gradient_share": (
        "Share of the gradient (%)",
        "How much of the pull on the student's features comes from each weighted term: norms of their gradients, sum 100 %.",
        100.0, "\u00a0%", 102.0,
    ),
}  # fmt: skip
"""End of the name -> title, remark, factor, unit, top of the axis."""


def draw_observed(series: dict[str, Points], order: Sequence[str]) -> list[Plot]:
    """The plots that there is something for; what they show is taken out of `series`. `order` of the terms, if known."""
    found: dict[str, dict[str, Points]] = {}
    for kind, (_, _, factor, _, _) in KINDS.items():
        names = [name for name in series if name.startswith(PREFIX) and name.endswith(f"_{kind}")]
        for name in names:
            scaled = [(step, factor * value) for step, value in series.pop(name)]
            found.setdefault(kind, {})[name.removeprefix(PREFIX).removesuffix(f"_{kind}")] = scaled
    terms = {term for lines in found.values() for term in lines}
    ordered = sorted(terms, key=lambda term: (order.index(term) if term in order else len(order), term))
    numbers = {term: number for number, term in enumerate(ordered)}
    plots = []
    for kind, lines in found.items():
        title, remark, _, unit, top = KINDS[kind]
        shown = {term: lines[term] for term in ordered if term in lines}
        plots.append(draw_lines(f"observed-{kind}", title, remark, shown, numbers=numbers, unit=unit, top=top))
    return plots

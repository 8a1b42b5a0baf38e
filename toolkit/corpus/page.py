"""A selection as one self-contained page."""

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.corpus import words
from toolkit.corpus.words import Found
from toolkit.report.lines import style
from toolkit.report.page import page_environment
from toolkit.report.page import write_page as write_text
from toolkit.report.plots import Key, Plot, as_svg, axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_page(found: Found, path: Path) -> Path:
    """Written aside and renamed; returns the path."""
    text = page_environment(Path(__file__).parent).get_template("selection.html").render(
        headline=words.headline(found),
        method=words.method(found),
        filters=words.filters(found),
        mixes=words.mixes(found),
        coverage=words.coverage(found),
        notes=found["notes"],
        columns=words.COLUMNS,
        rows=words.rows(found),
        teacher=found["teacher"]["teacher"],
        plots=[
            draw_histogram("scores", "Best similarity of a sentence to an image", found["histograms"]["scores"],
                           {"pool": "pool", "chosen": "chosen"}, "share of the sentences (%)"),
            draw_histogram("coverage", "Similarity of an image to its best sentence", found["histograms"]["coverage"],
                           {"pool": "of the pool", "chosen": "of the corpus"}, "share of the images (%)"),
        ],
        examples={"Chosen": found["examples"]["chosen"], "Not chosen": found["examples"]["others"]},
    )  # fmt: skip
    return write_text(path, text)


def draw_histogram(name: str, title: str, bins: dict[str, list[float]], labels: dict[str, str], what: str) -> Plot:
    """Outlines over one set of bins; `labels` by the name in `bins`."""
    edges = bins["edges"]

    def paint(axes: "Axes") -> None:
        for number, key in enumerate(labels):
            axes.stairs([100 * share for share in bins[key]], edges, linewidth=1.8, **style(number))
        axis(axes, zero=True, logarithmic=False)
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("cosine")

    def peak(key: str) -> str:
        highest = max(range(len(bins[key])), key=bins[key].__getitem__)
        return f"{labels[key]} most often near {(edges[highest] + edges[highest + 1]) / 2:.3f}"

    keys = tuple(Key(number, label) for number, label in enumerate(labels.values()))
    return Plot(title, what, f"{title}: {'; '.join(map(peak, labels))}", as_svg(name, paint), keys)

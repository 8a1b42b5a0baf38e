"""A calibration as one self-contained page."""

from pathlib import Path

from toolkit.calibrate.measure import GRID, IMAGE, SCALE, Calibration
from toolkit.calibrate.words import COLUMNS, PAIR_NAMES, circumstances, headline, rows, verdict
from toolkit.report.lines import draw_sweep
from toolkit.report.page import page_environment
from toolkit.report.page import write_page as write_text
from toolkit.report.plots import Plot


def write_page(found: Calibration, path: Path) -> Path:
    """Written aside and renamed; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = page_environment(Path(__file__).parent).get_template("calibration.html").render(
        teacher=found.teacher,
        headline=headline(found),
        overrides=" ".join(found.overrides),
        verdict=verdict(found),
        circumstances=circumstances(found),
        notes=found.notes,
        columns=COLUMNS,
        rows=rows(found),
        plots=draw_plots(found),
    )  # fmt: skip
    return write_text(path, text)


def draw_plots(found: Calibration) -> list[Plot]:
    """Entropy over temperature, once per scale; the terms are marked on that of scale 100, the reference on the other."""
    plots = []
    for number, curve in enumerate(found.curves):
        lines = {
            PAIR_NAMES[pair]: list(zip(GRID, (value.entropy for value in values), strict=True))
            for pair, values in curve.values.items()
        }
        is_main = curve.scale == SCALE
        now: dict[str, list[tuple[float, float]]] = {}
        then: dict[str, list[tuple[float, float]]] = {}
        for term in found.terms if is_main else []:  # a point lies where its scale / temperature does
            for pair, value in term.now.items():
                now.setdefault(PAIR_NAMES[pair], []).append((SCALE * term.temperature / term.scale, value.entropy))
            if term.proposed is not None and term.then is not None:
                place = SCALE * term.proposed / term.scale
                then.setdefault(PAIR_NAMES[IMAGE[0]], []).append((place, term.then.entropy))
        if not is_main:
            now = {PAIR_NAMES[pair]: [(1.0, value.entropy)] for pair, value in found.reference.items()}
        marks = "● in use now, ◇ proposed" if is_main else "● temperature 1"
        title = f"Entropy at scale {curve.scale:.4g}{'' if is_main else ', the teacher’s own'} (nats)"
        level = found.target if found.reference else None
        remark = marks + ("; dashed across: the reference" if level is not None else "")
        plots.append(
            draw_sweep(
                f"sweep{number}", title, remark, lines, across="temperature", level=level, filled=now, hollow=then
            )
        )
    return plots

"""From a sample to numbers: the sharpness of each term now, curves over temperatures, and proposals."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from toolkit.calibrate.sample import Sample
from toolkit.calibrate.sharpness import RANGE, Sharpness, sharpness, temperature_with
from toolkit.config import LossOptions, Run

SCALE = 100.0
"""CLIP's saturated logit scale, that of the curves and of a teacher without one of its own."""
STEPS = 24
GRID = tuple(RANGE[0] * (RANGE[1] / RANGE[0]) ** (k / STEPS) for k in range(STEPS + 1))
TEXT, IMAGE = ("image_to_text", "text_to_image"), ("image_to_image",)
PAIRS_OF = {"vl": TEXT, "pvl": IMAGE, "udist": IMAGE}
"""Rows and columns of the targets of each kind of loss that has a temperature of this meaning."""


@dataclass(frozen=True)
class Term:
    """A configured loss, at its own scale."""

    name: str
    pairs: tuple[str, ...]
    weight: float
    scale: float
    temperature: float
    now: dict[str, Sharpness]
    proposed: float | None = None
    """Temperature, rounded to what is worth pasting; None where there is none to propose."""
    then: Sharpness | None = None
    """At the proposed temperature."""


@dataclass(frozen=True)
class Curve:
    """Each kind of pair over GRID at one scale."""

    scale: float
    values: dict[str, list[Sharpness]]


@dataclass(frozen=True)
class Calibration:
    """All that is printed, drawn and written."""

    teacher: str
    images: int
    sentences: int
    image_batch: int
    text_batch: int
    own_scale: float | None
    reference: dict[str, Sharpness]
    """Image-text pairs at temperature 1 and the teacher's own scale (else SCALE); empty without sentences."""
    terms: list[Term]
    curves: list[Curve]
    notes: list[str]

    @property
    def target(self) -> float:
        """Entropy of the reference: the mean of its two directions."""
        return sum(found.entropy for found in self.reference.values()) / len(self.reference)

    @property
    def overrides(self) -> list[str]:
        """Ready to paste behind a recipe."""
        return [f"losses.{t.name}.temperature={t.proposed:g}" for t in self.terms if t.proposed is not None]


def measure(run: Run, sample: Sample, teacher: str, own_scale: float | None) -> Calibration:
    """Everything about the sample; `own_scale` is the teacher's, exponentiated."""
    data, notes = run.data, list(sample.notes)
    matrices = {}
    if sample.sentences is not None:
        matrices["image_to_text"] = sample.images, sample.sentences
        matrices["text_to_image"] = sample.sentences, sample.images
    matrices["image_to_image"] = sample.images, sample.images
    scale = own_scale or SCALE
    reference = {pair: sharpness(*matrices[pair], [scale])[0] for pair in TEXT if pair in matrices}
    scales = [SCALE] if own_scale is None or math.isclose(own_scale, SCALE, rel_tol=1e-3) else [SCALE, own_scale]
    curves = [
        Curve(s, {pair: sharpness(*found, [s / t for t in GRID]) for pair, found in matrices.items()}) for s in scales
    ]
    terms = [
        term_of(name, options, matrices, reference, notes, own_scale)
        for name, options in run.losses.items()
        if options.kind in PAIRS_OF and set(PAIRS_OF[options.kind]) <= set(matrices)
    ]
    found = Calibration(
        teacher, len(sample.images), 0 if sample.sentences is None else len(sample.sentences), data.global_batch_size,
        data.text_batch_size or data.global_batch_size, own_scale, reference, terms, curves, notes,
    )  # fmt: skip
    notes += remarks(run, found)
    return found


def term_of(
    name: str,
    options: LossOptions,
    matrices: dict[str, tuple[Tensor, Tensor]],
    reference: dict[str, Sharpness],
    notes: list[str],
    own_scale: float | None,
) -> Term:
    """A term with its proposal, if it compares images with images; a note where there is none within RANGE."""
    chosen: Any = options  # all kinds of PAIRS_OF have these two
    scale = own_scale or SCALE if chosen.scale is None else float(chosen.scale)
    pairs, temperature = PAIRS_OF[options.kind], float(chosen.temperature)
    now = {pair: sharpness(*matrices[pair], [scale / temperature])[0] for pair in pairs}
    term = Term(name, pairs, float(options.weight), scale, temperature, now)
    if pairs != IMAGE or not reference:
        return term
    target = sum(found.entropy for found in reference.values()) / len(reference)
    wanted, found = temperature_with(target, *matrices[IMAGE[0]], scale)
    if wanted in RANGE:
        notes.append(
            f"losses.{name}: no temperature from {RANGE[0]:g} to {RANGE[1]:g} gives the entropy of the reference "
            f"({target:.3f}); at {wanted:g} it is {found.entropy:.3f}. No proposal."
        )
        return term
    rounded = float(f"{wanted:.4g}")
    (then,) = sharpness(*matrices[IMAGE[0]], [scale / rounded])
    return Term(name, pairs, float(options.weight), scale, temperature, now, rounded, then)


def remarks(run: Run, found: Calibration) -> list[str]:
    """What must be known to read the numbers, worst first."""
    said = []
    sizes = [("images", found.images, found.image_batch)]
    if found.reference:
        sizes.append(("sentences", found.sentences, found.text_batch))
    for what, here, there in sizes:
        if here < there:
            said.append(
                f"Warning: the sample has {here:,} {what} and a step of the run {there:,}: the run's entropies are higher "
                "than these. Raise --samples, or read the numbers as a first estimate."
            )
        elif here > there:
            said.append(
                f"The sample has {here:,} {what} and a step of the run {there:,}: the run's entropies are lower than these."
            )
    if run.teacher.pretrained == "random":
        said.append("Warning: the teacher has random weights; its similarities mean nothing.")
    if not found.reference:
        said.append("The run has no sentences (data.texts, data.pairs), so there is no reference and no proposal.")
    for term in found.terms:
        own, used = found.own_scale, term.scale / term.temperature
        if term.pairs == TEXT and own is not None and not math.isclose(own, used, rel_tol=0.02):
            side = "sharper" if used > own else "softer"
            said.append(
                f"losses.{term.name} multiplies cosines by {used:.4g}, {side} than the teacher was trained with ({own:.4g}); "
                f"losses.{term.name}.temperature={term.scale / own:.4g} would be the teacher's own."
            )
    others = [name for name, options in run.losses.items() if options.kind not in PAIRS_OF]
    if others:
        said.append(f"Not looked at, because they have no temperature of this kind: {', '.join(others)}.")
    return said

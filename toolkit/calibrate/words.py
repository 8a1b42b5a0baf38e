"""A calibration as lines and as rows of a table."""

import math

from toolkit.calibrate.measure import SCALE, Calibration

PAIR_NAMES = {
    "image_to_text": "image → text",
    "text_to_image": "text → image",
    "image_to_image": "image → image",
}
COLUMNS = ("term", "pairs", "weight", "scale", "temperature", "entropy", "matches", "top-1")


def as_text(found: Calibration) -> str:
    """What the terminal shows."""
    table = [COLUMNS, *rows(found)]
    widths = [max(len(row[k]) for row in table) for k in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    proposal = [f"Proposal: {' '.join(found.overrides)}"] if found.overrides else []
    return "\n".join(["", *lines, "", circumstances(found), *found.notes, "", *proposal, verdict(found)])


def rows(found: Calibration) -> list[tuple[str, ...]]:
    """One per term and kind of pair, a second one with the proposal; the reference last."""
    made: list[tuple[str, ...]] = []
    for term in found.terms:
        fixed = f"{term.weight:g}{'' if term.weight else ' (off)'}", f"{term.scale:g}"
        for pair, value in term.now.items():
            cells = f"{value.entropy:.3f}", f"{value.matches:.2f}", f"{value.top1:.3f}"
            made.append((term.name, PAIR_NAMES[pair], *fixed, f"{term.temperature:g}", *cells))
        if term.then is not None:
            cells = f"{term.then.entropy:.3f}", f"{term.then.matches:.2f}", f"{term.then.top1:.3f}"
            made.append((f"{term.name} proposed", PAIR_NAMES[term.pairs[0]], *fixed, f"{term.proposed:g}", *cells))
    for pair, value in found.reference.items():
        cells = f"{value.entropy:.3f}", f"{value.matches:.2f}", f"{value.top1:.3f}"
        made.append(("reference", PAIR_NAMES[pair], "", f"{found.own_scale or SCALE:.4g}", "1", *cells))
    return made


def circumstances(found: Calibration) -> str:
    """Sizes, and what depends on them."""
    with_sentences = f" and {found.sentences:,} sentences" if found.sentences else ""
    most = f"ln {found.images:,} = {math.log(found.images):.2f}"
    own = "has no logit scale of its own" if found.own_scale is None else f"has the logit scale {found.own_scale:.4g}"
    return (
        f"Teacher {found.teacher} {own}. Sample: {found.images:,} images{with_sentences}; a step of the run compares "
        f"{found.image_batch:,} images with {found.text_batch:,} sentences. Entropies are means over the rows, in nats, and "
        f"depend on the number of columns (at most {most} for {found.images:,}): they hold for a batch of this size. "
        "matches = exp(entropy), how many columns share the probability; top-1 is the mean probability of the likeliest."
    )


def headline(found: Calibration) -> str:
    """The proposal, beside what is in use."""
    proposed = [term for term in found.terms if term.proposed is not None]
    parts = [f"{term.name}: temperature {term.proposed:g} (now {term.temperature:g})" for term in proposed]
    return "; ".join(parts) or "Nothing to propose"


def verdict(found: Calibration) -> str:
    """What the proposal rests on."""
    if not found.overrides:
        return "Nothing to propose."
    whose = "the teacher's own scale" if found.own_scale is not None else f"scale {SCALE:g}, the teacher having none,"
    return (
        f"With it the image-image targets are as sharp as the image-text targets at temperature 1 and {whose} (entropy "
        f"{found.target:.3f}), as CLIP was trained. A place to start, not a measured optimum: compare it with the "
        "temperatures in use."
    )

"""A selection as lines and as rows of a table; everything is read from what selection.json holds."""

from typing import Any

from toolkit.corpus.request import METHODS

Found = dict[str, Any]
FILTER_WORDS = {
    "kept": "kept",
    "not_embedded": "not embedded (NaN or zero)",
    "no_text": "without text",
    "not_utf8": "not UTF-8",
    "empty_text": "empty",
    "too_short": "too short",
    "too_long": "too long",
    "too_many_tokens": "too many tokens",
    "duplicate": "duplicates",
}
QUANTILE_KEYS = ("q1", "q5", "q25", "q50", "q75", "q95", "q99")
COLUMNS = ("similarity", "count", "mean", *(f"{key[1:]} %" for key in QUANTILE_KEYS))


def as_text(found: Found) -> str:
    """What the terminal shows."""
    table = [COLUMNS, *rows(found)]
    widths = [max(len(row[k]) for row in table) for k in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    said = [f"  {entry['score']:.3f}  {shortened(entry['text'])}" for entry in found["examples"]["chosen"]]
    return "\n".join([
        "", headline(found), filters(found), *mixes(found), "", *lines, "", coverage(found), "Chosen, from best to worst:", *said,
        *found["notes"],
    ])  # fmt: skip


def headline(found: Found) -> str:
    """How many of how many, and how."""
    k = f", k {found['k']}" if found["k"] else ""
    return (
        f"{found['chosen']:,} of {found['pool']['sentences']:,} sentences chosen ({found['asked']['method']}{k}) for "
        f"{found['images']['embedded']:,} images"
    )


def method(found: Found) -> str:
    """What the method means."""
    name = found["asked"]["method"]
    return f"{name}: {METHODS[name]}."


def filters(found: Found) -> str:
    """What became of the pool before anything was compared."""
    counts = found["pool"]["by_filter"]
    said = f"Filters: {', '.join(f'{count:,} {FILTER_WORDS[name]}' for name, count in counts.items())}."
    if left_out := found["images"]["not_embedded"]:
        said += f" {left_out:,} images are not embedded and were left out."
    return said


def mixes(found: Found) -> list[str]:
    """One sentence per --mix."""
    return [f"Mixed in: {mix['samples']:,} samples of {mix['shards']} ({mix['of']:,} there)." for mix in found["mixed"]]


def coverage(found: Found) -> str:
    """Of the images."""
    return f"{100 * found['coverage']['best_sentence_in_corpus']:.1f} % of the images have their best sentence of the pool in the corpus."


def rows(found: Found) -> list[tuple[str, ...]]:
    """One per distribution."""
    spreads = {
        "sentences of the pool (best over images)": found["scores"]["pool"],
        "sentences chosen": found["scores"]["chosen"],
        "images to the pool (best sentence)": found["coverage"]["similarity_to_pool"],
        "images to the corpus": found["coverage"]["similarity_to_corpus"],
    }
    return [
        (
            name,
            f"{spread['count']:,}",
            *(f"{spread[key]:.3f}" if spread["count"] else "" for key in ("mean", *QUANTILE_KEYS)),
        )
        for name, spread in spreads.items()
    ]


def shortened(text: str, most: int = 120) -> str:
    """One printable line of the sentence, not more than `most` characters."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"

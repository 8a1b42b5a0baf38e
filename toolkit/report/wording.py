"""Numbers and names as the page says them."""

import math
import re
from typing import Any

DASH = "–"
FRACTIONS = ("mean_cosine",)
"""Metrics that are fractions; all others are percent."""

METRIC_LABELS = {
    "top1": "Top-1",
    "top5": "Top-5",
    "seen_top1": "Top-1, seen classes",
    "unseen_top1": "Top-1, unseen classes",
    "seen_top5": "Top-5, seen classes",
    "unseen_top5": "Top-5, unseen classes",
    "agreement_top1": "Same top-1 as the teacher",
    "mean_cosine": "Mean cosine to the teacher",
}
DIRECTIONS = {"image_to_text": "Image → text", "text_to_image": "Text → image"}
RECALL = re.compile(r"(image_to_text|text_to_image)_r(\d+)")


def is_number(value: Any) -> bool:
    """True for finite int and float, so not for NaN, True or '3'."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def metric_label(metric: str) -> str:
    """'image_to_text_r5' is 'Image → text R@5'; a metric nobody has named keeps its words."""
    recall = RECALL.fullmatch(metric)
    if recall:
        return f"{DIRECTIONS[recall[1]]} R@{recall[2]}"
    return METRIC_LABELS.get(metric) or metric.replace("_", " ").capitalize()


def metric_text(metric: str, value: Any) -> str:
    """One decimal for percents, three for fractions, a dash for what is not there."""
    if not is_number(value):
        return DASH
    return f"{value:.3f}" if metric.endswith(FRACTIONS) else f"{value:.1f}"


def share_text(part: Any, whole: Any) -> str:
    """`part` as percent of `whole`; never rounds 99.7 up to 100 nor 0.3 down to 0."""
    if not is_number(part) or not is_number(whole) or whole <= 0:
        return DASH
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return "under 0.1\u00a0%"
    if 99 <= percent < 100:
        return f"{min(percent, 99.9):.1f}\u00a0%"
    fine = 0 < percent < 10 or 100 < percent < 101
    return f"{percent:.{1 if fine else 0}f}\u00a0%"


def count_text(count: Any) -> str:
    """Parameters and samples: 88045824 is '88.0 M'."""
    if not is_number(count):
        return DASH
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if abs(count) >= size:
            return f"{count / size:.1f}\u00a0{letter}"
    return f"{count:,.0f}"


def duration_text(seconds: Any) -> str:
    """The two largest units: '1 h 12 min', '2 min 3 s', '8.4 s'."""
    if not is_number(seconds):
        return DASH
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}\u00a0s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}\u00a0min {whole % 60}\u00a0s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60}\u00a0h {minutes % 60}\u00a0min"
    return f"{minutes // 1440}\u00a0days {minutes % 1440 // 60}\u00a0h"


def plain_text(value: Any) -> str:
    """A fact of run.json as a reader expects it: yes/no, thousands separated, lists with commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(plain_text(item) for item in value) or DASH
    return DASH if value is None or value == "" else str(value)

"""How numbers are said."""

import math

import pytest

from toolkit.report.wording import count_text, duration_text, is_number, metric_label, metric_text, share_text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (24, 100, "24 %"),
        (89.2, 92.1, "97 %"),
        (99.97, 100, "99.9 %"),
        (100, 100, "100 %"),
        (100.2, 100, "100.2 %"),
        (0.3, 100, "0.3 %"),
        (0.001, 100, "under 0.1 %"),
        (0, 100, "0 %"),
        (120, 100, "120 %"),
        (1, 0, "–"),
        (None, 100, "–"),
        (math.nan, 100, "–"),
    ],
)
def test_a_share_never_rounds_up_to_all_nor_down_to_nothing(part: float, whole: float, text: str) -> None:
    assert share_text(part, whole).replace("\u00a0", " ") == text


def test_counts_durations_and_metrics() -> None:
    counts = [count_text(count) for count in (88_045_824, 1_200, 2_500_000_000, None)]
    assert [text.replace("\u00a0", " ") for text in counts] == ["88.0 M", "1,200", "2.5 B", "–"]
    durations = [duration_text(seconds) for seconds in (8.44, 59.97, 123.4, 3599.8, 4320, 200_000)]
    expected = ["8.4 s", "1 min 0 s", "2 min 3 s", "1 h 0 min", "1 h 12 min", "2 days 7 h"]
    assert [text.replace("\u00a0", " ") for text in durations] == expected
    assert [metric_text("top1", 92.14), metric_text("mean_cosine", 0.9314), metric_text("top1", None)] == [
        "92.1",
        "0.931",
        "–",
    ]
    assert [metric_label("text_to_image_r5"), metric_label("mean_per_class")] == ["Text → image R@5", "Mean per class"]
    assert not is_number(True) and not is_number(math.inf) and not is_number("3")

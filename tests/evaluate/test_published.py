"""The published numbers that ship: of sets that exist, once each, with a source, and means that are means."""

import pytest

from toolkit.data.benchmarks import entries
from toolkit.evaluate.published import MEANS, published, rows_for

FIVE = ["imagenetv2", "imagenet-r", "imagenet-a", "imagenet-sketch", "objectnet"]


def test_every_number_is_of_a_set_once_and_has_a_source() -> None:
    """A mistyped set would never be shown."""
    known = {*entries(), *MEANS}
    assert [one for one in published() if one.of not in known or not one.source or not 0 < one.percent < 100] == []
    places = [(one.model, one.task, one.of) for one in published()]
    assert len(places) == len(set(places)) == 68


def test_the_papers_rows() -> None:
    """What the authors give for their two students."""
    zero_shot = rows_for("zero_shot", ["imagenet-1k", "elevater", "robustness"])
    plain, aware = zero_shot["DIME-FM ViT-B/32"], zero_shot["DIME-FM ViT-B/32, task-aware"]
    assert {name: one.percent for name, one in plain.items()} == {
        "imagenet-1k": 66.5,
        "elevater": 56.4,
        "robustness": 50.2,
    }
    assert {name: one.percent for name, one in aware.items()} == {"imagenet-1k": 66.1, "elevater": 57.7}
    probes = rows_for("linear_probe", ["elevater"])
    assert [row["elevater"].percent for row in probes.values()] == [79.2, 79.4]


@pytest.mark.parametrize("model", ["CLIP ViT-B/32", "CLIP ViT-B/16", "CLIP ViT-L/14"])
def test_robustness_is_the_mean_of_five(model: str) -> None:
    """To the decimal that is printed."""
    row = rows_for("zero_shot", [*FIVE, "robustness"])[model]
    assert row["robustness"].percent == pytest.approx(sum(row[name].percent for name in FIVE) / 5, abs=0.051)

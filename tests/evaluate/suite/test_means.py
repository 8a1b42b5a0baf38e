"""Scores over a group of sets, and files for the leaderboard."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from set_copies import png, write_zip

from toolkit.data.benchmarks import entries
from toolkit.errors import DataError
from toolkit.evaluate.confidence import Comparison
from toolkit.evaluate.judged import Judged
from toolkit.evaluate.suite.command import evaluate
from toolkit.evaluate.suite.means import group_means
from toolkit.evaluate.suite.predictions import counts
from toolkit.evaluate.suite.request import Request

MakeRun = Callable[..., Path]


def rows(names: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Student 10, 11, 12, ...; teacher twice that; differences with draws around theirs."""
    sets, comparisons = {}, {}
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        value = 10.0 + number
        found = {
            who: {"value": k * value, "low": k * value - 1, "high": k * value + 2}
            for who, k in (("student", 1), ("teacher", 2))
        }
        sets[name] = {"tasks": {"zero_shot": {"rows": found}}}
        comparisons[name] = {"zero_shot": {"teacher": Comparison(-value, -value + rng.normal(size=200))}}
    return sets, comparisons


@pytest.mark.parametrize(("group", "count"), [("elevater", 20), ("robustness", 5)])
def test_mean_only_where_all_sets_are_there(group: str, count: int) -> None:
    """Unweighted; intervals of independent sets add as squares; one set less and there is no such number."""
    names = [name for name, entry in entries().items() if entry.group == group]
    assert len(names) == count
    found = group_means(*rows(names))["zero_shot"]
    assert list(found) == [group]
    one = found[group]["rows"]["student"]
    assert one["value"] == pytest.approx(np.mean(10 + np.arange(count)))
    assert one["value"] - one["low"] == pytest.approx(1 / np.sqrt(count))
    assert one["high"] - one["value"] == pytest.approx(2 / np.sqrt(count))
    assert found[group]["differences"]["teacher"]["value"] == pytest.approx(-one["value"])
    assert group_means(*rows(names[1:])) == {}
    sets, _ = rows(names)
    assert group_means(sets, {}, {"zero_shot": found})["zero_shot"] == found  # of an earlier command
    sets[names[0]]["tasks"]["zero_shot"]["rows"]["student"]["value"] += 1
    assert group_means(sets, {}, {"zero_shot": found})["zero_shot"][group]["differences"] == {}


def memes(data: Path, pictures: int) -> None:
    """hateful-memes in ELEVATER's layout: 500 test pictures in the protocol, the metric is ROC-AUC."""
    folder = data / "classification/hateful_memes_20211014"
    write_zip(folder / "img.zip", [(f"{row}.png", png(row % 7)) for row in range(pictures)])
    images = [{"id": row + 1, "file_name": f"img.zip@{row}.png"} for row in range(pictures)]
    notes = [{"id": row + 1, "image_id": row + 1, "category_id": 1 + row % 2} for row in range(pictures)]
    index = {"images": images, "annotations": notes, "categories": [{"id": 1, "name": "0"}, {"id": 2, "name": "1"}]}
    (folder / "test_meta.json").write_text(json.dumps(index))


def test_submission_files(image_run: MakeRun, tmp_path: Path) -> None:
    """Written for the protocol's sets; probabilities are those of the softmax over 100 x cosine."""
    memes(tmp_path / "data", 500)
    asked = Request(
        str(image_run()), tmp_path / "data", sets=("elevater",), cache=tmp_path / "cache", workers=0, cost=False,
        predictions=tmp_path / "predictions",
    )  # fmt: skip
    results = evaluate(asked)
    content = json.loads((tmp_path / "predictions/zero_shot/hateful-memes.json").read_text())
    assert (content["n_shot"], content["rnd_seeds"], content["num_trainable_params"]) == (0, [0], 0)
    given = np.array(content["predictions"])
    assert given.shape == (1, 500, 2)
    from sklearn.metrics import roc_auc_score

    value = results["sets"]["hateful-memes"]["tasks"]["zero_shot"]["rows"]["student"]["value"]
    assert 100 * roc_auc_score(np.arange(500) % 2, given[0, :, 1]) == pytest.approx(
        value, abs=0.5
    )  # rounded to 6 decimals
    assert len(results["missing"]) == 19


def test_wrong_count_is_told_and_not_submitted(image_run: MakeRun, tmp_path: Path) -> None:
    """Judged, with the problem beside it; refused for the leaderboard before anything is computed."""
    memes(tmp_path / "data", 20)
    run = image_run()
    asked = Request(
        str(run), tmp_path / "data", sets=("hateful-memes",), cache=tmp_path / "cache", workers=0, cost=False
    )
    assert evaluate(asked)["sets"]["hateful-memes"]["problems"] == ["test: 20 pictures, the protocol has 500"]
    with pytest.raises(DataError, match=r"hateful-memes is not whole .test: 20 pictures, the protocol has 500"):
        evaluate(Request(str(run), tmp_path / "data", sets=("hateful-memes",), predictions=tmp_path / "x"))


def test_parameters_count_once() -> None:
    """What fine-tuning trains is the tower that is counted anyway, and the head."""
    judged = object.__new__(Judged)
    judged.embed_dim, judged.image_params, judged.text_params = 16, 1000, 500
    head = 3 * 17
    for trained, classes, wanted in ((0, 0, 1500), (head, 3, 1000 + head), (1000 + head, 3, 1000 + head)):
        found = counts(judged, trained, classes)
        assert (found["num_params"], found["num_trainable_params"]) == (wanted, trained)
        assert found["num_params"] >= found["num_backbone_params"] == (1000 if classes else 1500)


def test_no_mean_over_different_searches() -> None:
    """Five learning rates on one set and six on the others are no score."""
    names = [name for name, entry in entries().items() if entry.group == "robustness"]
    sets, comparisons = rows(names)
    for name in names:
        sets[name]["tasks"]["zero_shot"]["settings"] = {"learning_rates": [0.1]}
    assert group_means(sets, comparisons)
    sets[names[2]]["tasks"]["zero_shot"]["settings"] = {"learning_rates": [0.1, 1.0]}
    assert group_means(sets, comparisons) == {}

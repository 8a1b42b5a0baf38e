"""Prediction files: the exact format, every violation named, and the zip read back by json and zipfile alone."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.errors import DataError
from toolkit.evaluate import submission
from toolkit.evaluate.submission import (
    Expected,
    check_predictions,
    combine_predictions,
    expected_sets,
    write_predictions,
)

SMALL = {"mnist": Expected(6, 3), "dtd": Expected(4, 2), "voc-2007-classification": Expected(5, 4, multi_label=True)}
COUNTS = {"num_trainable_params": 10, "num_params": 100, "num_visual_params": 60, "num_backbone_params": 90}


@pytest.fixture(autouse=True)
def small_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three sets of a few pictures instead of twenty."""
    monkeypatch.setattr(submission, "expected_sets", lambda: SMALL)


def probabilities(name: str, seed: int = 0) -> np.ndarray:
    """Rows that sum to 1, but not where pictures have several classes."""
    drawn = np.random.default_rng(seed).random((SMALL[name].pictures, SMALL[name].classes)).astype(np.float32)
    return drawn if SMALL[name].multi_label else drawn / drawn.sum(axis=1, keepdims=True)


def write(folder: Path, name: str, *, seed: int = 0, n_shot: int = 5, **changed: Any) -> Path:
    facts = {"model_name": "student", "dataset_name": name, "n_shot": n_shot, "seed": seed, **COUNTS} | changed
    return write_predictions(folder, facts.pop("scores", probabilities(name, seed)), **facts)


def test_the_twenty_sets() -> None:
    """The protocol's totals: 192,677 test pictures, 1,151 classes; one set has several classes per picture."""
    sets = expected_sets()
    assert len(sets) == 20
    assert sum(one.pictures for one in sets.values()) == 192_677
    assert sum(one.classes for one in sets.values()) == 1_151
    assert [name for name, one in sets.items() if one.multi_label] == ["voc-2007-classification"]


def test_a_file(tmp_path: Path) -> None:
    """Fields, shape, six decimals, names."""
    path = write(tmp_path / "new", "mnist", seed=2)
    assert path == tmp_path / "new" / "seed2_mnist.json" and [path] == list(path.parent.iterdir())
    content = json.loads(path.read_text())
    predictions = content.pop("predictions")
    assert content == {"model_name": "student", "dataset_name": "mnist", "n_shot": 5, "rnd_seeds": [2], **COUNTS}
    assert np.asarray(predictions).shape == (1, 6, 3)
    assert np.asarray(predictions)[0] == pytest.approx(probabilities("mnist", 2), abs=6e-7)
    assert all(len(str(value).split(".")[-1]) <= 6 or "e" in str(value) for row in predictions[0] for value in row)
    assert write(tmp_path, "dtd", n_shot=0).name == "dtd.json"
    assert write(tmp_path, "voc-2007-classification", n_shot=-1).name == "seed0_voc-2007-classification.json"


def test_combined(tmp_path: Path) -> None:
    """Seeds of a set in order, trainable parameters averaged, one object per set; the same bytes again."""
    for name in SMALL:
        for seed in (10, 2, 1):
            write(tmp_path, name, seed=seed, num_trainable_params=10 + seed)
    made = combine_predictions(tmp_path)
    assert made == tmp_path / "all_predictions.zip"
    before = made.read_bytes()
    with zipfile.ZipFile(made) as archive:
        assert archive.namelist() == ["all_predictions.json"]
        content = json.loads(archive.read("all_predictions.json"))
    assert list(content) == ["data"]
    by_name = {one["dataset_name"]: one for one in content["data"]}
    assert set(by_name) == set(SMALL) and len(content["data"]) == 3
    for name, one in by_name.items():
        assert one["rnd_seeds"] == [1, 2, 10] and one["num_trainable_params"] == pytest.approx(10 + 13 / 3)
        assert (one["model_name"], one["n_shot"], one["num_params"]) == ("student", 5, 100)
        for seed, rows in zip(one["rnd_seeds"], one["predictions"], strict=True):
            assert np.asarray(rows) == pytest.approx(probabilities(name, seed), abs=6e-7)
    assert combine_predictions(tmp_path).read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_zero_shot_counts_stay_whole(tmp_path: Path) -> None:
    """One file per set: nothing to average."""
    for name in SMALL:
        write(tmp_path, name, n_shot=0, num_trainable_params=0)
    with zipfile.ZipFile(combine_predictions(tmp_path)) as archive:
        content = json.loads(archive.read("all_predictions.json"))
    assert [str(one["num_trainable_params"]) for one in content["data"]] == ["0"] * 3


def spoil(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """A good content with one change."""
    content = {"model_name": "m", "dataset_name": "mnist", **COUNTS, "n_shot": 5, "rnd_seeds": [0]}
    content["predictions"] = [probabilities("mnist").astype(np.float64).tolist()]
    check_predictions(content, where="good")
    change(content)
    return content


def set_to(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content.update({key: value})


def put(picture: int, row: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content["predictions"][0].__setitem__(picture, row)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.pop("n_shot"), r"missing: \['n_shot'\]"),
        (set_to("extra", 1), r"unknown: \['extra'\]"),
        (set_to("dataset_name", "mnits"), "did you mean mnist"),
        (set_to("dataset_name", ["mnist"]), "none of the 20"),
        (set_to("model_name", ""), "model_name must be"),
        (set_to("num_visual_params", None), "num_visual_params must be a number of parameters"),
        (set_to("num_params", -1), "num_params must be"),
        (set_to("num_params", 1.5), "num_params must be"),
        (set_to("num_trainable_params", True), "num_trainable_params must be"),
        (set_to("num_trainable_params", float("nan")), "num_trainable_params must be"),
        (set_to("n_shot", -2), "n_shot must be"),
        (set_to("n_shot", "5"), "n_shot must be"),
        (set_to("rnd_seeds", 0), "rnd_seeds must be a list"),
        (set_to("rnd_seeds", []), "rnd_seeds must be a list"),
        (set_to("rnd_seeds", [0.0]), "rnd_seeds must be a list"),
        (set_to("rnd_seeds", [1, 1]), "names a seed twice"),
        (set_to("rnd_seeds", [0, 1]), r"shape \(1, 6, 3\), must have .* \(2, 6, 3\)"),
        (lambda content: content["predictions"][0].pop(), r"shape \(1, 5, 3\)"),
        (put(2, [0.5, 0.5]), "unequal length"),
        (put(2, ["a", "b", "c"]), "must be numbers"),
        (put(2, [None, 0, 1]), "must be numbers"),
        (put(4, [-0.1, 0.6, 0.5]), r"1 predictions lie outside 0..1, the first at .* \(0, 4, 0\)"),
        (put(4, [0.0, 0.0, 1.1]), r"\(0, 4, 2\): 1.1"),
        (put(4, [float("nan"), 0.5, 0.5]), "outside 0..1"),
        (put(3, [0.3, 0.3, 0.3]), r"1 rows do not sum to 1 within 0.001, the first at .* \(0, 3\): 0.9"),
        (put(3, [0.3, 0.3, 0.3988]), "sum to 1"),
    ],
)
def test_violations(change: Callable[[dict[str, Any]], Any], said: str) -> None:
    """Each is one sentence that begins with the file."""
    with pytest.raises(DataError, match=said) as caught:
        check_predictions(spoil(change), where="here.json")
    assert str(caught.value).startswith("here.json: ")


def test_tolerance() -> None:
    """Within a thousandth is well."""
    check_predictions(spoil(put(3, [0.3, 0.3, 0.3992])), where="x")


def test_not_json(tmp_path: Path) -> None:
    """Torn files and other things are named."""
    for text, said in (("{", "no predictions file"), ("[]", "one JSON object")):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(DataError, match=said):
            combine_predictions(tmp_path)


def test_logits_are_not_written(tmp_path: Path) -> None:
    """Checked before the file is made."""
    with pytest.raises(DataError, match="not logits"):
        write(tmp_path, "mnist", scores=np.full((6, 3), 2.0))
    with pytest.raises(DataError, match="shape"):
        write(tmp_path, "mnist", scores=probabilities("dtd"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"model_name": "other"}, "model_name is 'other', but 'student'"),
        ({"n_shot": 20}, "n_shot is 20, but 5"),
        ({"num_params": 101}, "num_params is 101, but 100"),
    ],
)
def test_files_that_do_not_belong_together(tmp_path: Path, second: dict[str, Any], said: str) -> None:
    """Another model, other shots, another size."""
    write(tmp_path, "mnist", seed=0)
    write(tmp_path, "mnist", seed=1, **second)
    with pytest.raises(DataError, match=said):
        combine_predictions(tmp_path, partial=True)
    assert not (tmp_path / "all_predictions.zip").exists()


def test_missing_sets_and_seeds(tmp_path: Path) -> None:
    """Twenty sets with the same seeds each, or an open wish for less."""
    with pytest.raises(DataError, match="for 3 of 20"):
        combine_predictions(tmp_path, partial=True)
    write(tmp_path, "mnist", seed=0)
    with pytest.raises(DataError, match="dtd, voc-2007"):
        combine_predictions(tmp_path)
    assert combine_predictions(tmp_path, partial=True).is_file()
    path = write(tmp_path, "dtd", seed=1)
    with pytest.raises(DataError, match=r"dtd has the seeds \[1\], mnist has \[0\]"):
        combine_predictions(tmp_path, partial=True)
    path.rename(tmp_path / "a.json")
    write(tmp_path, "dtd", seed=1)
    with pytest.raises(DataError, match="seed 1 of dtd is in another file"):
        combine_predictions(tmp_path, partial=True)

"""Compositionality on features made by hand, against loops written from the definitions."""

import json
import math
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from caption_copies import write_sugar
from torch import Tensor
from torch.nn.functional import normalize

from toolkit.config import Preprocess
from toolkit.data.pairs import CompositionSet, open_compositions
from toolkit.errors import DataError
from toolkit.evaluate import compositionality
from toolkit.evaluate.compositionality import (
    BAG_OF_WORDS,
    bag_of_words_row,
    compositionality_result,
    compositionality_row,
)
from toolkit.evaluate.zero_shot import encode_texts


class Table:
    """An encoder that looks sentences up; they come as numbers of its list."""

    def __init__(self, features: dict[str, Tensor]) -> None:
        self.preprocess = Preprocess(image_size=4)
        self.texts, self.features = list(features), torch.stack(list(features.values()))

    def tokenizer(self):
        return lambda texts: torch.tensor([[self.texts.index(text)] for text in texts])

    def encode_image(self, images: Tensor) -> Tensor:
        raise AssertionError("pictures come as features")

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.features[tokens[:, 0]]


def a_set(captions: list[str], negatives: list[str], part_of: list[int], picture_of: list[int]) -> CompositionSet:
    """Parts a, b, c, of which c is not in the mean."""
    return CompositionSet(
        "made", "Made", Path("x"), captions, negatives, ["a", "b", "c"], np.array(part_of), [True, True, False], None,
        np.array(picture_of), ["one"],
    )  # fmt: skip


def random_case(seed: int) -> tuple[CompositionSet, dict[str, Tensor], Tensor]:
    """30 cases over 9 pictures and few sentences, so that captions, negatives and features coincide in many ways."""
    rng = np.random.default_rng(seed)
    captions, negatives = ([f"{name} {n}" for n in rng.integers(0, 14, 30)] for name in ("caption", "negative"))
    found = a_set(
        captions,
        negatives,
        rng.permutation([0, 1, 2] * 10).tolist(),
        [*range(9), *rng.integers(0, 9, 21).tolist()],
    )
    sentences = dict.fromkeys([*captions, *negatives])
    features = {one: normalize(torch.from_numpy(rng.integers(-1, 2, 3) + 0.5), dim=0).float() for one in sentences}
    return found, features, normalize(torch.from_numpy(rng.integers(-1, 2, (9, 3)) + 0.5)).float()


def dot(a: Tensor, b: Tensor) -> float:
    """In float64."""
    return math.fsum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_accuracy_equals_loops(seed: int) -> None:
    """A tie is wrong; the mean is over the parts that count, micro over all cases."""
    found, features, images = random_case(seed)
    row = compositionality_row(found, partial(encode_texts, Table(features)), images)
    right: dict[str, list[bool]] = {"a": [], "b": [], "c": []}
    for k in range(30):
        image = images[found.picture_of[k]]
        difference = dot(image, features[found.captions[k]]) - dot(image, features[found.negatives[k]])
        right[found.parts[found.part_of[k]]].append(difference > 1e-6)
    wanted = {part: 100 * sum(hits) / len(hits) for part, hits in right.items()}
    assert row["parts"] == pytest.approx(wanted) and row["accuracy"] == pytest.approx((wanted["a"] + wanted["b"]) / 2)
    assert row["accuracy_micro"] == pytest.approx(100 * sum(map(sum, right.values())) / 30)
    assert 0 < row["accuracy"] < 100


@pytest.mark.parametrize("seed", range(4))
def test_what_texts_alone_show_equals_loops(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours are looked for in the part alone; copies of the caption or of its negative are no other sentence."""
    monkeypatch.setattr(compositionality, "ROWS", 4)
    found, features, _ = random_case(seed)
    row = compositionality_row(found, partial(encode_texts, Table(features)), None)
    assert list(row) == ["text_only"]
    for number, part in enumerate(found.parts):
        rows = [k for k in range(30) if found.part_of[k] == number]
        own = [dot(features[found.captions[k]], features[found.negatives[k]]) for k in rows]
        pool = {text for k in rows for text in (found.captions[k], found.negatives[k])}
        apart = []
        for k, cosine in zip(rows, own, strict=True):
            others = pool - {found.captions[k], found.negatives[k]}
            apart.append(any(dot(features[found.captions[k]], features[text]) > cosine + 1e-6 for text in others))
        wanted = {
            "mean_cosine": sum(own) / len(own),
            "indistinguishable": 100 * sum(cosine > 1 - 1e-6 for cosine in own) / len(own),
            "told_apart": 100 * sum(apart) / len(apart),
        }
        assert row["text_only"]["parts"][part] == pytest.approx(wanted, abs=1e-5)
    for name in ("mean_cosine", "indistinguishable", "told_apart"):
        parts = row["text_only"]["parts"]
        assert row["text_only"][name] == pytest.approx((parts["a"][name] + parts["b"][name]) / 2)


def test_a_tower_without_order_is_wrong_with_any_picture() -> None:
    """Where captions and negatives have one embedding, no picture has a say."""
    captions, negatives = ["dog bites man", "man sees dog"], ["man bites dog", "dog sees man"]
    found = a_set(captions, negatives, [0, 1], [0, 1])
    features = {text: normalize(torch.tensor([1.0, len(text)]), dim=0) for text in [*captions, *negatives]}
    found = replace(found, parts=["a", "b"], in_mean=[True, True])
    row = compositionality_row(found, partial(encode_texts, Table(features)), normalize(torch.randn(2, 2)))
    assert row["accuracy"] == row["accuracy_micro"] == 0.0
    assert row["text_only"]["indistinguishable"] == 100.0 and row["text_only"]["told_apart"] == 0.0
    assert row["text_only"]["mean_cosine"] == pytest.approx(1.0)


def test_the_baseline_counts_words(tmp_path: Path) -> None:
    """Against counts by hand, on texts whose words change places (cosine 1) and others."""
    found = open_compositions("sugar-crepe", write_sugar(tmp_path).parent)
    text_only = bag_of_words_row(found)["text_only"]
    assert text_only["indistinguishable"] == 100.0 and text_only["mean_cosine"] == pytest.approx(1.0)
    found = a_set(["A red, red dog.", "one"], ["a red DOG", "two"], [0, 1], [0, 0])
    found = replace(found, parts=["a", "b"], in_mean=[True, True])
    parts = bag_of_words_row(found)["text_only"]["parts"]
    ours, theirs = Counter({"a": 1, "red": 2, "dog": 1}), Counter({"a": 1, "red": 1, "dog": 1})
    cosine = sum(ours[word] * theirs[word] for word in ours) / math.sqrt(6 * 3)
    assert parts["a"]["mean_cosine"] == pytest.approx(cosine) and parts["b"]["mean_cosine"] == 0.0


def test_the_entry_of_the_results(tmp_path: Path) -> None:
    """As JSON; accuracy is absent without pictures, and the baseline never has one."""
    found = open_compositions("sugar-crepe", write_sugar(tmp_path).parent)
    sentences = dict.fromkeys([*found.captions, *found.negatives])
    encoder = Table({text: normalize(torch.randn(4), dim=0) for text in sentences})
    rows = {"student": compositionality_row(found, partial(encode_texts, encoder), normalize(torch.randn(2, 4)))}
    entry = json.loads(json.dumps(compositionality_result(found, rows), allow_nan=False))
    assert (entry["title"], entry["samples"], entry["pictures"]) == ("SugarCrepe", 14, True)
    assert set(entry["rows"]) == {"student", BAG_OF_WORDS} and set(entry["rows"]["student"]["parts"]) == set(
        found.parts
    )
    assert set(entry["rows"][BAG_OF_WORDS]) == {"text_only"} and entry["problems"] == found.problems
    assert compositionality_result(replace(found, pictures=None), {})["pictures"] is False


def test_no_part_that_counts() -> None:
    """Then there is no mean, rather than a zero."""
    found = replace(a_set(["x"], ["y"], [0], [0]), parts=["a"], in_mean=[False])
    row = compositionality_row(
        found, partial(encode_texts, Table({"x": torch.eye(2)[0], "y": torch.eye(2)[1]})), torch.eye(2)[:1]
    )
    assert "accuracy" not in row and row["accuracy_micro"] == 100.0 and set(row["text_only"]) == {"parts"}


def test_features_that_cannot_be_judged() -> None:
    """Not numbers, or of other pictures."""
    found, features, images = random_case(0)
    with pytest.raises(DataError, match="1 of 9 image features are not finite"):
        compositionality_row(
            found, partial(encode_texts, Table(features)), images.index_fill(0, torch.tensor(3), float("nan"))
        )
    with pytest.raises(DataError, match="8 image features for its pictures"):
        compositionality_row(found, partial(encode_texts, Table(features)), images[:8])
    features[found.captions[0]] = torch.full((3,), float("inf"))
    with pytest.raises(DataError, match="text features are not finite"):
        compositionality_row(found, partial(encode_texts, Table(features)), images)

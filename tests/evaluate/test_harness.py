"""Sets of shards through the harness: padding, errors, and the same pictures for every model."""

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit import distributed
from toolkit.config import EvalSet, Evaluation, Preprocess
from toolkit.data.images import decode_image, plain_view
from toolkit.errors import ConfigError, DataError
from toolkit.evaluate import Harness, flat_metrics
from toolkit.evaluate.sets import EvalData, rank_loader, read_classes

MakeShards = Callable[..., Path]
CLASSES = {"classnames": ["red", "green", "blue"], "templates": ["a {}", "the {}"], "groups": {"warm": [0]}}


class Pixels:
    """An encoder that sees the first pixels, and for words their letters."""

    def __init__(self, side: int = 4) -> None:
        self.preprocess = Preprocess(image_size=side)
        self.calls = 0

    def tokenizer(self):
        return lambda texts: torch.tensor([[ord(letter) for letter in text.ljust(12)[:12]] for text in texts])

    def encode_image(self, images: Tensor) -> Tensor:
        self.calls += 1
        return torch.nn.functional.normalize(images[:, :, 0].flatten(1).float() - 128, dim=-1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        turned = torch.sin(tokens.float() * torch.arange(1, 13))
        return torch.nn.functional.normalize(turned[:, : 3 * self.preprocess.image_size], dim=-1)


@pytest.fixture
def classes(tmp_path: Path) -> str:
    """Path of a classes file of three."""
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    return str(tmp_path / "classes.json")


@pytest.fixture
def sets(make_shards: MakeShards, classes: str) -> dict[str, EvalSet]:
    """11 samples each: prime, so that no world divides it."""
    folder = str(make_shards("set", 11, fields=("png", "txt", "cls")))
    return {
        "colours": EvalSet(shards=folder, classes=classes),
        "captions": EvalSet(shards=folder, kind="retrieval"),
    }


def indices(data: EvalData, world: int, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What each rank gets."""
    monkeypatch.setattr(distributed, "world", lambda: world)
    found = []
    for rank in range(world):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        found.append([int(index) for batch in rank_loader(data, 3, 0) for index in batch["index"]])
    return found


@pytest.mark.parametrize("world", [1, 2, 3, 4, 11, 20])
def test_ranks_share_a_set_evenly(world: int, sets: dict[str, EvalSet], monkeypatch: pytest.MonkeyPatch) -> None:
    """Equally many on each, so that collectives match; in order, and only the last one is repeated."""
    data = EvalData("colours", sets["colours"], {"model": Preprocess(image_size=4)})
    shares = indices(data, world, monkeypatch)
    assert {len(share) for share in shares} == {-(-11 // world)}
    joined = [index for share in shares for index in share]
    assert joined[:11] == list(range(11)) and set(joined[11:]) <= {10}


@pytest.mark.parametrize("world", [2, 4])
def test_padding_does_not_change_the_result(
    world: int, sets: dict[str, EvalSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks played one after the other, their rows joined as the collectives would join them."""
    alone = Harness(Evaluation(batch_size=3, sets=sets)).judge({"student": Pixels()})
    shares: list[dict[str, list[Any]]] = []
    for rank in range(world):
        seen: dict[str, list[Any]] = {"tensors": [], "strings": []}

        def gather_rows(rows: Tensor, seen: dict[str, list[Any]] = seen) -> Tensor:
            seen["tensors"].append(rows)
            return rows.repeat(world, *[1] * (rows.dim() - 1))

        def gather_strings(values: list[str], seen: dict[str, list[Any]] = seen) -> list[str]:
            seen["strings"].append(values)
            return values * world

        monkeypatch.setattr(distributed, "world", lambda: world)
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "gather_rows", gather_rows)
        monkeypatch.setattr(distributed, "gather_strings", gather_strings)
        Harness(Evaluation(batch_size=3, sets=sets)).judge({"student": Pixels()})
        shares.append(seen)
    rows = iter([torch.cat(parts) for parts in zip(*(share["tensors"] for share in shares), strict=True)])
    words = iter([list(chain(*parts)) for parts in zip(*(share["strings"] for share in shares), strict=True)])
    monkeypatch.setattr(distributed, "gather_rows", lambda _: next(rows))
    monkeypatch.setattr(distributed, "gather_strings", lambda _: next(words))
    assert Harness(Evaluation(batch_size=3, sets=sets)).judge({"student": Pixels()}) == alone
    assert alone["colours"]["samples"] == alone["captions"]["samples"] == 11


def test_labels_and_pictures_belong_together(sets: dict[str, EvalSet], png: Callable[[int], bytes]) -> None:
    """A model that knows the pictures by heart is always right; shifted by one it is not."""

    class ByHeart(Pixels):
        shift = 0

        def encode_image(self, images: Tensor) -> Tensor:
            views = [plain_view(decode_image(png(k), 10**6), self.preprocess) for k in range(11)]
            numbers = [next(k for k, view in enumerate(views) if torch.equal(view, image)) for image in images]
            return torch.eye(3)[[(number + self.shift) % 3 for number in numbers]]

        def tokenizer(self):
            names = CLASSES["classnames"]
            return lambda texts: torch.tensor([[names.index(text.split()[-1])] for text in texts])  # type: ignore[attr-defined]

        def encode_text(self, tokens: Tensor) -> Tensor:
            return torch.eye(3)[tokens[:, 0]]

    only = Evaluation(batch_size=4, sets={"colours": sets["colours"]})
    assert flat_metrics(Harness(only).judge({"student": ByHeart()}), "student")["colours_top1"] == 100.0
    ByHeart.shift = 1
    assert flat_metrics(Harness(only).judge({"student": ByHeart()}), "student")["colours_top1"] == 0.0


def test_the_teacher_is_encoded_once(sets: dict[str, EvalSet]) -> None:
    """And the student each time, beside it, with agreement."""
    harness = Harness(Evaluation(batch_size=4, sets=sets))
    teacher, student = Pixels(), Pixels(side=3)
    first = harness.judge({"teacher": teacher, "student": student})
    calls = teacher.calls
    assert harness.judge({"teacher": teacher, "student": student}) == first
    assert teacher.calls == calls == 6 and student.calls == 12
    assert set(first["colours"]["rows"]["student"]) == {"top1", "top5", "warm_top1", "agreement_top1"}
    assert "agreement_top1" not in first["colours"]["rows"]["teacher"]
    assert first["colours"]["classes"] == 3 and "classes" not in first["captions"]
    same = harness.judge({"teacher": teacher, "student": Pixels()})["colours"]["rows"]["student"]
    assert same["agreement_top1"] == 100.0 and same["mean_cosine"] == pytest.approx(1.0)


def test_max_samples(sets: dict[str, EvalSet]) -> None:
    """The first so many."""
    chosen = EvalSet(shards=sets["captions"].shards, kind="retrieval", max_samples=5)
    found = Harness(Evaluation(sets={"few": chosen})).judge({"student": Pixels()})
    assert found["few"]["samples"] == 5


def test_samples_for_the_report(sets: dict[str, EvalSet]) -> None:
    """Drawn from the set, the same each time, with each model's three best, probabilities in falling order."""
    harness = Harness(Evaluation(batch_size=4, sets=sets))
    models = {"teacher": Pixels(), "student": Pixels()}
    harness.judge(models)
    shown = harness.samples(models, count=3)
    assert len({one["png"] for one in shown}) == 3 and shown == harness.samples(models, count=3)
    everything = harness.samples(models, count=1000)
    assert [one["truth"] for one in everything] == [CLASSES["classnames"][k % 3] for k in range(len(everything))]
    for one in shown:
        assert one["student"] == one["teacher"] and len(one["student"]) == 3
        probabilities = [probability for _, probability in one["student"]]
        assert probabilities == sorted(probabilities, reverse=True) and sum(probabilities) == pytest.approx(1, abs=1e-3)


WRONG_CLASSES = {
    "{": "is no classes file",
    "[]": "is no classes file",
    '{"classnames": ["a"]}': "is no classes file",
    '{"classnames": [], "templates": ["{}"]}': "needs at least one class name",
    '{"classnames": ["a"], "templates": []}': "needs at least one class name",
    '{"classnames": ["a"], "templates": ["a photo"]}': "found 'a photo'",
    '{"classnames": ["a"], "templates": "a photo of {}"}': "needs at least one class name and templates",
    '{"classnames": ["a"], "templates": ["{}"], "groups": {"g": [1]}}': "group g must be a list of class numbers in 0..0",
    '{"classnames": ["a"], "templates": ["{}"], "groups": {"g": ["a"]}}': "group g must be a list of class numbers",
    '{"classnames": ["a"], "templates": ["{}"], "groups": {"g": 0}}': "group g must be a list of class numbers",
}


@pytest.mark.parametrize("content", WRONG_CLASSES)
def test_a_wrong_classes_file(content: str, tmp_path: Path) -> None:
    """At the start of a run, with the setting that named it."""
    (tmp_path / "c.json").write_text(content)
    chosen = EvalSet(shards="unread", classes=str(tmp_path / "c.json"))
    with pytest.raises(DataError) as caught:
        Harness(Evaluation(sets={"mine": chosen}))
    said = str(caught.value).replace("['a photo']", "'a photo'")
    assert said.startswith("evaluation.sets.mine.classes=") and WRONG_CLASSES[content] in said
    with pytest.raises(DataError, match="is no classes file"):
        read_classes(str(tmp_path / "missing.json"), asked_by="x")


WRONG_SAMPLES: dict[str, tuple[dict[str, bytes | None], str]] = {
    "no picture": ({"png": None}, "it has cls, png, txt and needs a picture and 'cls'"),
    "no label": ({"cls": None}, "needs a picture and 'cls'"),
    "a label that is no number": ({"cls": b"three"}, "invalid literal for int"),
    "no caption": ({"txt": None}, "needs a picture and 'txt'"),
    "an empty caption": ({"txt": b" "}, "empty_text"),
    "a broken picture": ({"png": b"x"}, "undecodable"),
}


@pytest.mark.parametrize(("what", "workers"), [*((what, 0) for what in WRONG_SAMPLES), ("no label", 1)])
def test_a_sample_that_cannot_be_judged(what: str, workers: int, make_shards: MakeShards, classes: str) -> None:
    """Stops the evaluation with its place: a replaced sample would be another test set. No traceback from a worker."""
    broken, expected = WRONG_SAMPLES[what]
    folder = make_shards("set", 6, fields=("png", "txt", "cls"), broken={5: broken})
    kind: Any = "retrieval" if "caption" in what else "classification"
    chosen = EvalSet(shards=str(folder), kind=kind, classes=classes)
    with pytest.raises(DataError) as caught:
        Harness(Evaluation(sets={"mine": chosen}), workers).judge({"student": Pixels()})
    said = str(caught.value)
    assert said.startswith("evaluation.sets.mine: sample ") and "00001.tar:0005 cannot be judged" in said
    assert expected in said and "Traceback" not in said


@pytest.mark.parametrize("label", [b"3", b"-1"])
def test_a_label_without_a_class(label: bytes, make_shards: MakeShards, classes: str) -> None:
    """Would count as wrong for ever."""
    folder = make_shards("set", 6, fields=("png", "cls"), broken={2: {"cls": label}})
    with pytest.raises(DataError, match=rf"mine: 1 of 6 labels lie outside 0\.\.2, the first is {label.decode()}"):
        Harness(Evaluation(sets={"mine": EvalSet(shards=str(folder), classes=classes)})).judge({"student": Pixels()})


def test_missing_shards(classes: str) -> None:
    """With the setting."""
    with pytest.raises(DataError, match=r"evaluation\.sets\.mine\.shards=none: 1 of 1 shards do not exist"):
        Harness(Evaluation(sets={"mine": EvalSet(shards="none", classes=classes)})).judge({"student": Pixels()})


def test_a_student_without_text_needs_a_teacher() -> None:
    """To borrow its text tower from."""
    from toolkit.evaluate import StudentEncoder
    from toolkit.models import Model

    model = Model(torch.nn.Linear(2, 2), Preprocess(), "mine:net", 2)
    with pytest.raises(ConfigError, match=r"mine:net has no text tower and there is no teacher"):
        StudentEncoder(model, lambda *_: None, torch.device("cpu"), text_tower=False, teacher=None)

"""What the page is told: the probabilities of both models, over real HTTP, against a computation by hand."""

import io
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from demo.asking import ask, picture, question
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from toolkit.config import Preprocess
from toolkit.demo.classify import Classifier, Side, agreement
from toolkit.demo.request import Question
from toolkit.demo.server import DemoServer
from toolkit.errors import ConfigError
from toolkit.evaluate.loading import SCALE, models_of_run, scale_of
from toolkit.playground.prepare import TEACHER
from toolkit.playground.towers import scene_clip, scene_student

LABELS = ["red circle", "blue square", "a green star"]


def by_hand(images: Any, texts: Any, scale: float) -> list[float]:
    """softmax(scale * cosine) in plain loops of floats."""
    image = images.detach().double()[0].tolist()
    length = math.sqrt(sum(v * v for v in image))
    logits = []
    for row in texts.detach().double().tolist():
        dot = sum(a * b for a, b in zip(image, row, strict=True))
        logits.append(scale * dot / length / math.sqrt(sum(v * v for v in row)))
    total = sum(math.exp(logit) for logit in logits)
    return [math.exp(logit) / total for logit in logits]


def tokens_of(sentences: list[str]) -> Tensor:
    """The embedded vocabulary, its end token, zeros up to 24."""
    words = sentencepiece.SentencePieceProcessor(model_file=str(TEACHER / "tokenizer.model"))
    rows = [[*words.encode(sentence), words.eos_id()] for sentence in sentences]
    return torch.tensor([row + [0] * (24 - len(row)) for row in rows])


def test_both_models_by_hand(server: DemoServer, run_folder: Path) -> None:
    """To 1e-6, from the weights' files: the student without a scale or sentences of its own takes the teacher's."""
    status, _, found = ask(server, "POST", "/classify", question(LABELS))
    assert status == 200
    teacher: Any = scene_clip()
    teacher.load_state_dict(load_file(TEACHER / "student.safetensors"))
    student: Any = scene_student(width=8)
    student.load_state_dict(load_file(run_folder / "checkpoints/step_00000003/student.safetensors"))
    pixels = np.asarray(Image.open(io.BytesIO(picture()))).astype(np.float32).transpose(2, 0, 1)[None]
    images = torch.tensor((pixels / 255 - 0.6) / 0.2)
    texts = teacher.encode_text(tokens_of([f"a {label} here" for label in LABELS]))
    scale = math.exp(float(teacher.logit_scale.detach()))
    for name, module in {"student": student, "teacher": teacher}.items():
        right = by_hand(module.encode_image(images), texts, scale)
        given = found["models"][name]
        assert given["probabilities"] == pytest.approx(right, abs=1e-6, rel=0)
        assert given["top"] == right.index(max(right)) and given["image_ms"] > 0
    assert found["labels"] == LABELS and found["picture"]["width"] == 32
    about = ask(server, "GET", "/about")[2]
    assert [model["name"] for model in about["models"]] == ["student", "teacher"] and about["alone"] == ""
    assert about["models"][0]["own_text"] is False and about["models"][1]["image_params"] == 671_408


def test_sentences_are_encoded_once(server: DemoServer) -> None:
    """The second time none is new, and the answer is the same; labels given twice count once, and that is said."""
    first = ask(server, "POST", "/classify", question(["cat", "dog"]))[2]
    assert first["models"]["teacher"]["new_sentences"] == 2 and first["notes"] == []
    again = ask(server, "POST", "/classify", question(["dog ", "", "cat", "dog", "cow"]))[2]
    assert again["labels"] == ["dog", "cat", "cow"] and again["notes"] == ["1 repeated label is counted once."]
    for name in ("student", "teacher"):
        old, new = (dict(zip(f["labels"], f["models"][name]["probabilities"], strict=True)) for f in (first, again))
        assert again["models"][name]["new_sentences"] == 1
        assert old["cat"] / old["dog"] == pytest.approx(new["cat"] / new["dog"], rel=1e-9)


def test_a_student_alone(serve: Callable[..., DemoServer], lonely_folder: Path, run_folder: Path) -> None:
    """With the reason why; one without sentences of its own cannot be, and an override gives either a teacher."""
    server = serve(lonely_folder)
    about = ask(server, "GET", "/about")[2]
    assert [model["name"] for model in about["models"]] == ["student"] and "names no teacher" in about["alone"]
    assert about["models"][0]["own_text"] and about["models"][0]["logit_scale"] == pytest.approx(1 / 0.07)
    found = ask(server, "POST", "/classify", question(LABELS))[2]
    assert set(found["models"]) == {"student"} and found["agreement"] == ""
    assert sum(found["models"]["student"]["probabilities"]) == pytest.approx(1)
    with pytest.raises(ConfigError, match="has no text tower and there is no teacher"):
        models_of_run(run_folder, "newest", ["teacher.name=''"])
    both = models_of_run(lonely_folder, "newest", [f"teacher.name={TEACHER}"])
    assert both.logit_scales == {"teacher": pytest.approx(31.438, abs=1e-3), "student": pytest.approx(1 / 0.07)}


def test_models_of_a_run(run_folder: Path, lonely_folder: Path) -> None:
    """Objects as well as encoders; a model without a scale has 100, as the protocol has it."""
    found = models_of_run(run_folder, "newest", [])
    assert list(found.encoders) == ["teacher", "student"] and found.encoders["teacher"] is found.teacher
    assert found.checkpoint.name == "step_00000003" and not found.text_tower
    assert found.student.image_params == sum(p.numel() for p in found.student.module.parameters())
    assert found.logit_scales["student"] == found.logit_scales["teacher"]
    lonely = models_of_run(lonely_folder, "newest", [])
    assert lonely.teacher is None and list(lonely.encoders) == ["student"] and lonely.text_tower
    assert scale_of(None, SCALE) == 100


class Slow:
    """Counts who is inside; a wrong answer for whoever is not alone."""

    preprocess = Preprocess(image_size=4)

    def __init__(self) -> None:
        self.inside, self.threads, self.crowded = 0, set[int](), False
        self.pause = threading.Event()

    def tokenizer(self) -> Any:
        return lambda texts: torch.tensor([[len(text)] for text in texts])

    def encode_text(self, tokens: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(tokens[:, 0] % 3, 3).float()

    def encode_image(self, images: Tensor) -> Tensor:
        self.inside += 1
        self.threads.add(threading.get_ident())
        self.crowded |= self.inside > 1
        self.pause.wait(0.01)
        self.inside -= 1
        return torch.eye(3)[:1]


def test_one_forward_at_a_time() -> None:
    """Eight at once: never two inside, all on one thread."""
    encoder = Slow()
    classifier = Classifier([Side("student", "made up", encoder, 10.0, 1, 1)])
    asked = [
        threading.Thread(target=classifier.answer, args=(Question(picture(), ("a", "bb"), "{}"),)) for _ in range(8)
    ]
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join()
    classifier.close()
    assert not encoder.crowded and len(encoder.threads) == 1


class Counted(Slow):
    """Writes down when it was asked."""

    def __init__(self, name: str, order: list[str]) -> None:
        super().__init__()
        self.name, self.order = name, order

    def encode_image(self, images: Tensor) -> Tensor:
        self.order.append(self.name)
        return torch.eye(3)[:1]


def test_pictures_are_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine times each, the two taking turns; once where there is no time for more."""
    for most_ms, runs in ((1e9, 9), (0.0, 1)):
        monkeypatch.setattr("toolkit.demo.classify.FORWARDS_MS", most_ms)
        order: list[str] = []
        sides = [Side(name, "made up", Counted(name, order), 1.0, 1, 1) for name in ("student", "teacher")]
        classifier = Classifier(sides)
        found = classifier.answer(Question(picture(), ("a", "bb"), "{}"))["models"]
        classifier.close()
        assert order == ["student", "teacher"] * runs and found["student"]["image_runs"] == runs


def test_known_sentences_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ones used last stay, and those of the question itself are there even when they are more."""
    monkeypatch.setattr("toolkit.demo.classify.KEPT_SENTENCES", 2)
    side = Side("student", "made up", Slow(), 10.0, 1, 1)
    classifier = Classifier([side])
    for labels in (("a", "bb"), ("a", "ccc")):
        classifier.answer(Question(picture(), labels, "{}"))
    assert list(side.sentences) == ["a", "ccc"]
    found = classifier.answer(Question(picture(), ("a", "bb", "ccc"), "{}"))
    classifier.close()
    assert len(found["models"]["student"]["probabilities"]) == 3 and len(side.sentences) == 2


def test_agreement_in_words() -> None:
    """Same answer, another answer with its place, one label, no teacher."""
    labels = ("cat", "dog", "cow")
    same = agreement(labels, {"student": [0.5, 0.3, 0.2], "teacher": [0.6, 0.3, 0.1]})
    assert same == "Both say “cat”. Their probabilities overlap by 90 %."
    other = agreement(labels, {"student": [0.5, 0.3, 0.2], "teacher": [0.1, 0.2, 0.7]})
    assert other == (
        "They disagree: the student says “cat”, the teacher “cow”, which is number 3 of 3 for the student. "
        "Their probabilities overlap by 50 %."
    )
    assert "type more" in agreement(("cat",), {"student": [1.0], "teacher": [1.0]})
    assert agreement(labels, {"student": [0.5, 0.3, 0.2]}) == ""

"""Times by a clock of our own, counted forwards, bytes by hand."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from toolkit.config import Preprocess, Teacher
from toolkit.errors import ConfigError
from toolkit.evaluate.cost import cost_of, costs_of
from toolkit.evaluate.judged import Judged
from toolkit.models import build_teacher
from toolkit.playground.prepare import TEACHER


@dataclass
class Hands:
    """A clock that stands still but when a forward moves it; and who ran when."""

    now: float = 0.0
    ran: list[tuple[str, str, int]] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now


class Sleeper:
    """A forward takes the next of its `times` seconds per row (the last one for ever)."""

    preprocess = Preprocess(image_size=8)

    def __init__(self, name: str, hands: Hands, *times: float, words: bool = True) -> None:
        self.name, self.hands, self.times, self.words = name, hands, list(times), words

    def tokenizer(self) -> Any:
        if not self.words:
            raise ConfigError("it has no tokenizer")
        return lambda texts: torch.ones(len(texts), 5, dtype=torch.int64)

    def take(self, kind: str, rows: Tensor) -> Tensor:
        self.hands.ran.append((self.name, kind, len(rows)))
        self.hands.now += len(rows) * (self.times.pop(0) if len(self.times) > 1 else self.times[0])
        return torch.ones(len(rows), 2)

    def encode_image(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8 and images.shape[1:] == (3, 8, 8)
        return self.take("image", images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.take("text", tokens)


def judged(encoder: Any, **more: Any) -> Judged:
    """Of a made-up encoder."""
    return Judged(getattr(encoder, "name", "teacher"), "made up", encoder, "", 2, **more)


def test_percentiles_and_runs() -> None:
    """Warm-up forwards do not count, and the percentiles are numpy's of what is left: here by hand."""
    hands = Hands()
    times = [9.0, *[0.05] * 19, 0.1, 0.1]  # the warm-up ends after one slow forward; 20 forwards make a second
    cost = costs_of({"a": judged(Sleeper("a", hands, *times))}, clock=hands)["a"]
    first = cost["image_ms"]["1"]
    assert first["runs"] == 20 and first["p50"] == pytest.approx(50)
    assert first["p95"] == pytest.approx(50 + 0.05 * 50)  # between ranks 18 and 19 of 0..19, at 18.05


def test_how_often() -> None:
    """A fast one 200 times, a middling one for a second or 20 times, a slow one for 8 seconds, a very slow one 3 times."""
    for seconds, runs in ((0.0001, 200), (0.01, 100), (0.125, 20), (0.5, 16), (2.0, 4), (60.0, 3)):
        hands = Hands()
        cost = costs_of({"a": judged(Sleeper("a", hands, seconds))}, clock=hands)["a"]
        assert cost["image_ms"]["1"]["runs"] == pytest.approx(runs, abs=1), seconds
        assert cost["text_ms"]["1"]["p50"] == pytest.approx(1000 * seconds)
        assert cost["text_ms"]["32"]["p50"] == pytest.approx(32_000 * seconds)


def test_in_turn() -> None:
    """After the warm-up the models alternate, and the faster one, which needs more runs, goes on alone."""
    hands = Hands()
    lines: list[str] = []
    models = {"student": judged(Sleeper("student", hands, 1 / 64)), "teacher": judged(Sleeper("teacher", hands, 0.25))}
    costs = costs_of(models, lines.append, clock=hands)
    first = [name for name, kind, rows in hands.ran if (kind, rows) == ("image", 1)]
    assert first[:6] == ["student"] * 3 + ["teacher"] * 3
    runs = costs["teacher"]["image_ms"]["1"]["runs"]
    assert runs == 20 and first[6 : 6 + 2 * runs] == ["student", "teacher"] * runs
    assert set(first[6 + 2 * runs :]) == {"student"}
    assert len(lines) == 4 and lines[0] == (
        "image, batch 1: student 15.6 ms (p95 15.6, 64 runs), teacher 250 ms (p95 250, 20 runs)"
    )


def test_slow_ones_in_words() -> None:
    """Whole ms, not an exponent."""
    hands = Hands()
    lines: list[str] = []
    costs_of({"a": judged(Sleeper("a", hands, 1.25))}, lines.append, clock=hands)
    assert lines[0] == "image, batch 1: a 1,250 ms (p95 1,250, 7 runs)"


def test_without_words() -> None:
    """No text times, and that is said; nothing becomes zero."""
    hands = Hands()
    lines: list[str] = []
    cost = costs_of({"a": judged(Sleeper("a", hands, 1.0, words=False))}, lines.append, clock=hands)["a"]
    assert "text_ms" not in cost and "text_bytes" not in cost and "precision" not in cost
    assert "no text times of a: it has no tokenizer" in lines
    facts = {"image_bytes": 7, "text_bytes": 8, "precision": "int8", "device": "CPU, onnxruntime, 2 threads"}
    cost = costs_of({"a": judged(Sleeper("a", hands, 1.0), facts=facts)}, clock=hands)["a"]
    assert {key: cost[key] for key in facts} == facts


def test_of_the_embedded_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real forwards: four bytes a number, two in bf16, everything that is not the image tower is text."""
    monkeypatch.setattr("toolkit.evaluate.cost.MAX_RUNS", 2)
    for precision, width in (("fp32", 4), ("bf16", 2)):
        teacher = build_teacher(Teacher(name=str(TEACHER)), precision, torch.device("cpu"))
        cost = cost_of(judged(teacher))
        assert cost["image_bytes"] == width * teacher.image_params
        assert cost["text_bytes"] == width * teacher.text_params
        assert cost["precision"] == precision and cost["device"].startswith("CPU, ")
        for kind in ("image_ms", "text_ms"):
            for batch in ("1", "32"):
                found = cost[kind][batch]
                assert found["runs"] == 2 and 0 < found["p50"] <= found["p95"]


def test_shared_memory_counts_once() -> None:
    """A tied weight is held once."""
    from toolkit.evaluate.cost import held

    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3))
    module[1].weight = module[0].weight
    assert held(module) == 9 * 4 + 4 * 3 * 4 + 8  # the weight; scale, shift, mean, variance; an int64 count

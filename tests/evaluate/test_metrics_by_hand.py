"""Zero-shot, retrieval and agreement on features made by hand, against loops written from the definitions."""

import math

import pytest
import torch
from torch import Tensor

from toolkit.config import Preprocess
from toolkit.embeddings import unit
from toolkit.evaluate import retrieval
from toolkit.evaluate.agreement import agreement_metrics
from toolkit.evaluate.retrieval import retrieval_metrics
from toolkit.evaluate.sets import Classes
from toolkit.evaluate.table import as_text
from toolkit.evaluate.zero_shot import PROMPTS_PER_FORWARD, class_head, encode_texts, zero_shot_metrics


def scores_as_features(rows: list[list[float]]) -> tuple[Tensor, Tensor]:
    """Features and a head whose product is exactly `rows`."""
    return torch.tensor(rows), torch.eye(len(rows[0]))


def test_top1_and_top5() -> None:
    """Six classes; the right one comes first, second, fifth and last."""
    falling = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    features, head = scores_as_features([falling] * 4)
    found = zero_shot_metrics(features, head, torch.tensor([0, 1, 4, 5]), {})
    assert found == {"top1": 25.0, "top5": 75.0}


def test_groups_look_at_their_own_pictures_over_all_classes() -> None:
    """A picture of the group that is taken for a class outside it is wrong."""
    features, head = scores_as_features([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1.0]])
    labels = torch.tensor([0, 1, 1, 2])
    found = zero_shot_metrics(features, head, labels, {"seen": [0, 2], "unseen": [1], "none here": []})
    assert found == {"top1": 75.0, "top5": 100.0, "seen_top1": 100.0, "unseen_top1": 50.0}


def test_fewer_than_five_classes() -> None:
    """Top 5 of three classes is always right."""
    features, head = scores_as_features([[1, 2, 3.0]])
    assert zero_shot_metrics(features, head, torch.tensor([0]), {}) == {"top1": 0.0, "top5": 100.0}


class Words:
    """An encoder whose embedding of a prompt can be looked up; it notes what it was asked."""

    preprocess = Preprocess()

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.most = 0

    def tokenizer(self):
        def tokenize(texts: list[str]) -> Tensor:
            self.most = max(self.most, len(texts))
            numbers = range(len(self.seen), len(self.seen) + len(texts))
            self.seen += texts
            return torch.tensor([[number] for number in numbers])

        return tokenize

    def encode_image(self, images: Tensor) -> Tensor:
        raise AssertionError("no pictures here")

    def encode_text(self, tokens: Tensor) -> Tensor:
        angles = [embed_angle(self.seen[int(row[0])]) for row in tokens]
        return torch.tensor([[math.cos(a), math.sin(a)] for a in angles])


def embed_angle(text: str) -> float:
    return (sum(map(ord, text)) % 100) / 30


def test_class_head_is_normalise_average_normalise() -> None:
    """Per class over all templates, in the order of the class names."""
    classes = Classes(["cat", "dog", "a {curly} one"], ["a {}.", "the {} here", "{} and {}"], {})
    encoder = Words()
    head = class_head(encoder, classes)
    assert (
        encoder.seen[:4] == ["a cat.", "the cat here", "cat and cat", "a dog."] and "a a {curly} one." in encoder.seen
    )
    for number, name in enumerate(classes.classnames):
        angles = [embed_angle(template.replace("{}", name)) for template in classes.templates]
        x, y = sum(map(math.cos, angles)) / 3, sum(map(math.sin, angles)) / 3
        expected = [x / math.hypot(x, y), y / math.hypot(x, y)]
        assert head[number].tolist() == pytest.approx(expected, abs=1e-6)


def test_prompts_are_encoded_in_chunks() -> None:
    """1,000 classes x 80 templates at once would not fit."""
    encoder = Words()
    texts = [f"text {n}" for n in range(2 * PROMPTS_PER_FORWARD + 3)]
    assert encode_texts(encoder, texts).shape == (len(texts), 2)
    assert encoder.seen == texts and encoder.most == PROMPTS_PER_FORWARD


def recall_by_loops(queries: Tensor, gallery: Tensor, captions: list[str], k: int) -> float:
    """Share of queries whose best right answer has fewer than k wrong ones at least as good."""
    hits = 0
    for i in range(len(queries)):
        scores = [float((queries[i] * gallery[j]).sum()) for j in range(len(gallery))]
        right = max(score for j, score in enumerate(scores) if captions[j] == captions[i])
        wrong = sum(1 for j, score in enumerate(scores) if captions[j] != captions[i] and score >= right)
        hits += wrong < k
    return 100 * hits / len(queries)


@pytest.mark.parametrize("seed", range(4))
def test_retrieval_equals_brute_force(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many ties (coarse features) and duplicate captions, in chunks that do not divide the number of queries."""
    monkeypatch.setattr(retrieval, "ROWS", 7)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(-2, 3, (30, 3), generator=generator).float()
    texts = torch.randint(-2, 3, (30, 3), generator=generator).float()
    captions = [f"caption {int(n)}" for n in torch.randint(0, 12, (30,), generator=generator)]
    found = retrieval_metrics(images, texts, captions)
    for k in (1, 5, 10):
        assert found[f"image_to_text_r{k}"] == pytest.approx(recall_by_loops(images, texts, captions, k))
        assert found[f"text_to_image_r{k}"] == pytest.approx(recall_by_loops(texts, images, captions, k))
    assert 0 < found["image_to_text_r1"] < found["image_to_text_r10"] <= 100


def test_ties_count_against() -> None:
    """A model that gives everything the same embedding finds nothing."""
    same = torch.ones(20, 2)
    assert set(retrieval_metrics(same, same, [str(n) for n in range(20)]).values()) == {0.0}


def test_the_right_answers_do_not_stand_in_each_others_way() -> None:
    """Copies of one caption are one answer."""
    found = retrieval_metrics(torch.ones(3, 1), torch.ones(3, 1), ["same", "same", "same"])
    assert set(found.values()) == {100.0}


def test_the_two_directions_are_not_mixed_up() -> None:
    """Every picture finds its text; one text is nearest to another's picture."""
    found = retrieval_metrics(torch.tensor([[2.0, 1.0], [3.0, 4.0]]), torch.eye(2), ["a", "b"])
    assert (found["image_to_text_r1"], found["text_to_image_r1"]) == (100.0, 50.0)


def test_agreement() -> None:
    """Right or wrong does not matter; the cosine only where the widths are equal."""
    teacher = unit(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    student = unit(torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0]]))
    head, other = torch.tensor([[1.0, 0.1], [0.1, 1.0]]), torch.tensor([[1.0, 0.2], [0.0, 1.0]])
    found = agreement_metrics(student, teacher, head, other)
    assert found["mean_cosine"] == pytest.approx(2 / 3) and found["agreement_top1"] == pytest.approx(200 / 3)


def test_agreement_at_another_width() -> None:
    """Predictions can be compared, embeddings cannot."""
    found = agreement_metrics(torch.eye(2, 3), torch.eye(2), torch.eye(2, 3), torch.eye(2))
    assert found == {"agreement_top1": 100.0}
    assert agreement_metrics(torch.eye(2), torch.eye(2), None, None) == {"mean_cosine": 1.0}


def test_table() -> None:
    """Every model a line, a dash where it has no such number."""
    rows = {"teacher": {"top1": 50.0}, "student": {"top1": 25.125, "mean_cosine": 0.5}}
    text = as_text({"scenes": {"samples": 1234, "classes": 10, "rows": rows}})
    assert text.splitlines()[0] == "scenes (1,234 samples, 10 classes)"
    assert text.splitlines()[2].split() == ["teacher", "50.00", "-"]
    assert text.splitlines()[3].split() == ["student", "25.12", "0.50"]

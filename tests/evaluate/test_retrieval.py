"""Recalls with several captions per picture, against loops written from the definition and against torchmetrics."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from caption_copies import write_flickr
from torch import Tensor

from toolkit.config import Preprocess
from toolkit.data.pairs import open_pairs
from toolkit.embeddings import unit
from toolkit.errors import DataError
from toolkit.evaluate import retrieval
from toolkit.evaluate.retrieval import (
    caption_retrieval_metrics,
    ranks,
    recall_intervals,
    retrieval_metrics,
    retrieval_result,
    retrieval_row,
)
from toolkit.evaluate.zero_shot import encode_texts


def by_loops(images: Tensor, texts: Tensor, captions: list[str], owner: list[int], k: int) -> tuple[float, float]:
    """Percent of pictures, and of captions, with fewer than k wrong answers at least as good as their best right one."""
    own = [{captions[j] for j in range(len(captions)) if owner[j] == i} for i in range(len(images))]
    scores = [[float(sum(a * b for a, b in zip(image, text))) for text in texts.tolist()] for image in images.tolist()]  # noqa: B905
    found_texts = found_images = 0
    for i in range(len(images)):
        best = max(scores[i][j] for j in range(len(texts)) if captions[j] in own[i])
        found_texts += sum(scores[i][j] >= best for j in range(len(texts)) if captions[j] not in own[i]) < k
    for j in range(len(texts)):
        best = max(scores[i][j] for i in range(len(images)) if captions[j] in own[i])
        found_images += sum(scores[i][j] >= best for i in range(len(images)) if captions[j] not in own[i]) < k
    return 100 * found_texts / len(images), 100 * found_images / len(texts)


@pytest.mark.parametrize("seed", range(6))
def test_recalls_equal_loops(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many ties (coarse features), one to several captions in mixed order, captions shared within and between pictures."""
    monkeypatch.setattr(retrieval, *(("ROWS", 7) if seed % 2 else ("CELLS", 120)))
    rng = np.random.default_rng(seed)
    owner = rng.permutation(np.concatenate([np.arange(17), rng.integers(0, 17, 23)]))
    captions = [f"caption {n}" for n in rng.integers(0, 30, 40)]
    images, texts = (torch.from_numpy(rng.integers(-2, 3, (n, 3))).float() for n in (17, 40))
    found = caption_retrieval_metrics(images, texts, captions, owner)
    for k in (1, 5, 10):
        wanted = by_loops(images, texts, captions, owner.tolist(), k)
        assert (found[f"image_to_text_r{k}"], found[f"text_to_image_r{k}"]) == pytest.approx(wanted, abs=1e-9)
    assert list(found) == [f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]
    assert (
        found["image_to_text_r1"] < found["image_to_text_r10"]
        and found["text_to_image_r1"] < found["text_to_image_r10"]
    )


@pytest.mark.parametrize("seed", range(2))
def test_recalls_equal_torchmetrics(seed: int) -> None:
    """Its hit rate at k of each query; no ties and no equal captions, of which it knows nothing."""
    from torchmetrics.retrieval import RetrievalHitRate

    rng = np.random.default_rng(seed)
    owner = np.concatenate([np.arange(20), rng.integers(0, 20, 30)])
    images, texts = (unit(torch.from_numpy(rng.normal(size=(n, 6)))) for n in (20, 50))
    found = caption_retrieval_metrics(images, texts, [f"caption {n}" for n in range(50)], owner)
    right = torch.from_numpy(owner)[None, :] == torch.arange(20)[:, None]
    for name, scores, target in (
        ("image_to_text", images @ texts.T, right),
        ("text_to_image", texts @ images.T, right.T),
    ):
        queries = torch.arange(len(scores))[:, None].expand_as(scores)
        for k in (1, 5, 10):
            theirs = RetrievalHitRate(top_k=k)(scores.flatten(), target.flatten(), indexes=queries.flatten())
            assert found[f"{name}_r{k}"] == pytest.approx(100 * float(theirs), abs=1e-4)


def test_one_caption_each_is_the_plain_case() -> None:
    """The function of the harness is this one."""
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(12, 4, generator=generator), torch.randn(12, 4, generator=generator)
    captions = [str(n % 9) for n in range(12)]
    assert retrieval_metrics(images, texts, captions) == caption_retrieval_metrics(
        images, texts, captions, np.arange(12)
    )


def test_any_caption_of_a_picture_is_right() -> None:
    """Picture 0 finds its second caption; its first one lies at picture 1 and finds that."""
    images = torch.eye(2)
    texts = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.9]])
    found = caption_retrieval_metrics(images, texts, ["a", "b", "c"], np.array([0, 0, 1]))
    assert found["image_to_text_r1"] == 50.0 and found["text_to_image_r1"] == pytest.approx(200 / 3)


def test_what_is_no_number_counts_against() -> None:
    """A broken model finds nothing; it does not find everything."""
    broken = torch.full((20, 2), float("nan"))
    names = [str(n) for n in range(20)]
    assert set(caption_retrieval_metrics(broken, torch.ones(20, 2), names, np.arange(20)).values()) == {0.0}
    assert set(caption_retrieval_metrics(torch.ones(20, 2), broken, names, np.arange(20)).values()) == {0.0}
    one = torch.eye(20)
    one[3] = float("nan")
    assert caption_retrieval_metrics(one, torch.eye(20), names, np.arange(20))["image_to_text_r1"] == 95.0


@pytest.mark.parametrize(
    ("texts", "owner"), [(3, [0, 1]), (2, [0, 0]), (2, [0, 2]), (2, [-1, 1]), (3, [0, 1, 1, 1]), (0, [])]
)
def test_what_does_not_go_together(texts: int, owner: list[int]) -> None:
    """Two pictures; each needs a caption, and each caption one of them."""
    with pytest.raises(DataError, match=r"give one each|needs a caption"):
        caption_retrieval_metrics(torch.eye(2), torch.ones(texts, 2), ["x"] * len(owner), np.array(owner, np.int64))


def test_intervals_over_pictures() -> None:
    """Against a plain bootstrap that draws pictures one by one; a model that is always right has no spread."""
    rng = np.random.default_rng(5)
    owner = np.concatenate([np.arange(60), rng.integers(0, 60, 60)])
    images, texts = (torch.from_numpy(rng.normal(size=(n, 3))) for n in (60, 120))
    captions = [str(n) for n in range(120)]
    near = texts + 2 * images[owner]
    rank = ranks(images, near, captions, owner)
    found = recall_intervals(rank, owner, draws=4000)
    hits = [[float(by_one(images, near, owner, j)) for j in np.flatnonzero(owner == i)] for i in range(60)]
    drawn = []
    for _ in range(2000):
        chosen = [hit for i in rng.integers(0, 60, 60) for hit in hits[i]]
        drawn.append(100 * sum(chosen) / len(chosen))
    assert found["text_to_image_r1"] == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=1.5)
    value = caption_retrieval_metrics(images, near, captions, owner)
    for name, (low, high) in found.items():
        assert low < value[name] < high
    assert recall_intervals(rank, owner, draws=4000) == found
    right = recall_intervals(ranks(torch.eye(4), torch.eye(4), list("abcd"), np.arange(4)), np.arange(4))
    assert right == {"image_to_text_r1": (100.0, 100.0), "text_to_image_r1": (100.0, 100.0)}


class Letters:
    """An encoder that sees a caption's first letter."""

    preprocess = Preprocess(image_size=4)
    broken = False

    def tokenizer(self):
        return lambda texts: torch.tensor([["123".index(text[0])] for text in texts])

    def encode_image(self, images: Tensor) -> Tensor:
        raise AssertionError("pictures come as features")

    def encode_text(self, tokens: Tensor) -> Tensor:
        return torch.eye(3)[tokens[:, 0]] / (0 if self.broken else 1)


def test_the_entry_of_the_results(tmp_path: Path) -> None:
    """A set read from disk, through an encoder, as JSON: two of three pictures are where their captions are."""
    write_flickr(tmp_path)
    found, encoder = open_pairs("flickr30k", tmp_path), Letters()
    images = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.9, 0.0]])
    rows = {"student": retrieval_row(found, partial(encode_texts, encoder), images)}
    entry = json.loads(json.dumps(retrieval_result(found, rows), allow_nan=False))
    row = entry.pop("rows")["student"]
    assert entry == {
        "title": "Flickr30k, Karpathy's test split", "samples": 3, "captions": 15, "problems": found.problems
    }  # fmt: skip
    assert row["image_to_text_r1"] == row["text_to_image_r1"] == pytest.approx(200 / 3)
    assert row["text_to_image_r5"] == 100.0 and set(row["intervals"]) == {"image_to_text_r1", "text_to_image_r1"}
    encoder.broken = True
    with pytest.raises(DataError, match="15 of 15 text features are not finite"):
        retrieval_row(found, partial(encode_texts, encoder), images)


def by_one(images: Tensor, texts: Tensor, owner: np.ndarray, j: int) -> bool:
    """Does caption j find its picture?"""
    return int((images @ texts[j]).argmax()) == owner[j]

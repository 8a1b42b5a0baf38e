"""Pictures held in memory and pictures read again are the same, in whatever order they are asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tune_cases import Tower, text_head

from toolkit.config import Preprocess
from toolkit.data.benchmarks import Split
from toolkit.data.benchmarks.split import Arrays
from toolkit.evaluate.metrics import METRICS
from toolkit.evaluate.tune import TuneSettings, fine_tune, pictures_of, tuned_images
from toolkit.evaluate.tune.pictures import HeldViews, LabelledViews, ReadViews

PREPROCESS = Preprocess(image_size=6)
ROWS = [torch.tensor([4, 0]), torch.tensor([69, 3, 3]), torch.tensor([68])]


def split_of(count: int, seed: int = 0) -> Split:
    """Noise of 9 x 7, brighter for the odd ones."""
    pixels = np.random.default_rng(seed).integers(0, 200, (count, 7, 9, 3), dtype=np.uint8)
    labels = np.arange(count) % 2
    return Split("made-up", "train", "folders", Path("here"), ["a", "b"], labels,
                 Arrays(pixels + 50 * labels[:, None, None, None].astype(np.uint8)))  # fmt: skip


def test_held_or_read_by_the_budget() -> None:
    """70 pictures of 108 bytes: one byte less and they are read each time."""
    told: list[tuple[int, int]] = []
    split = split_of(70)
    held = pictures_of(split, PREPROCESS, False, 0, lambda read, count: told.append((read, count)), 70 * 108)
    read = pictures_of(split, PREPROCESS, False, budget=70 * 108 - 1)
    assert isinstance(held, HeldViews) and isinstance(read, ReadViews) and len(held) == len(read) == 70
    assert told == [(64, 70), (70, 70)] and held.views.dtype == torch.uint8
    for _ in range(2):
        for rows, one, other in zip(ROWS, held.batches(ROWS), read.batches(ROWS), strict=True):
            assert one.shape == (len(rows), 3, 6, 6) and torch.equal(one, other)
    squashed = pictures_of(split, PREPROCESS, True)
    assert isinstance(squashed, HeldViews) and not torch.equal(squashed.views, held.views)


def test_rows_of_rows() -> None:
    """Labels and pictures stay together."""
    views = HeldViews(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 3, 2, 2))
    part = LabelledViews(views, torch.arange(10)).at([9, 7, 5, 3]).at([3, 0])
    assert part.labels.tolist() == [3, 9] and len(part) == 2
    ((found, labels),) = part.batches([torch.tensor([1, 0])])
    assert found[:, 0, 0, 0].tolist() == labels.tolist() == [9, 3]


def test_a_fine_tuning_from_a_split_is_the_same_either_way() -> None:
    """From PNGs to the number."""
    settings = TuneSettings(METRICS["top1"], learning_rates=(1e-2,), trial_epochs=1, final_epochs=1, batch_size=16)
    results = []
    for budget in (2**20, 0):
        images = tuned_images(split_of(16), split_of(10, seed=1), PREPROCESS, False, budget=budget)
        results.append(fine_tune(images, 2, settings, module_factory=Tower, text_head=text_head(2)))
    assert results[0].curve == results[1].curve and torch.equal(results[0].probabilities, results[1].probabilities)
    assert results[0].tried == results[1].tried


@pytest.mark.slow
def test_workers_stay_and_a_walk_may_be_left() -> None:
    """Two worker processes: the same pictures, twice, also after a walk that was given up."""
    split = split_of(70)
    alone, busy = (pictures_of(split, PREPROCESS, False, workers, budget=0) for workers in (0, 2))
    next(busy.batches(ROWS))
    for rows in (ROWS, ROWS[::-1], [torch.arange(70)]):
        for one, other in zip(alone.batches(rows), busy.batches(rows), strict=True):
            assert torch.equal(one, other)

"""Pictures of a split as a model sees them: held in memory where they fit, else read again each time they are asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from toolkit import heartbeat
from toolkit.config import Preprocess
from toolkit.data.benchmarks import Split
from toolkit.data.benchmarks.views import SplitViews
from toolkit.data.streams import data_worker, without_worker_traceback, worker_context

BUDGET = 4 * 2**30
"""Bytes of one split that a process holds; 28,000 pictures of 224 x 224."""
READ_AT_ONCE = 64


@runtime_checkable
class Views(Protocol):
    """uint8 pictures of one size by row number."""

    def __len__(self) -> int:
        """How many."""
        ...

    def batches(self, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """[b, 3, h, w] for each of these lists of row numbers, in order; what comes first is not waiting for the rest."""
        ...


@dataclass(frozen=True)
class HeldViews:
    """All in memory."""

    views: UInt8[Tensor, "n 3 h w"]

    def __len__(self) -> int:
        """How many."""
        return len(self.views)

    def batches(self, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """Copies."""
        for one in rows:
            yield self.views[one]


class ReadViews:
    """Read and decoded again each time, by worker processes that stay from one time to the next."""

    def __init__(self, dataset: SplitViews, workers: int) -> None:
        """`workers` 0: by this process."""
        self.dataset = dataset
        self._asked: list[list[int]] = []
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=self._asked,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # the workers' seeds are not drawn from anybody's generator
            worker_init_fn=data_worker,
            multiprocessing_context=worker_context() if workers else None,
        )

    def __len__(self) -> int:
        """How many."""
        return len(self.dataset)

    def batches(self, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """One such walk at a time. Raises DataError naming a picture that cannot be read."""
        self._asked[:] = [one.tolist() for one in rows]
        for batch in without_worker_traceback(self._loader):
            yield batch["images"]


def pictures_of(
    split: Split,
    preprocess: Preprocess,
    squash: bool,
    workers: int = 0,
    report: Callable[[int, int], None] = lambda read, all_of_them: None,
    budget: int = BUDGET,
) -> Views:
    """The pictures of a split, held when they fit into `budget` bytes; `report` is then told how many are read, of how many.

    Every process that calls this holds its own. Raises DataError naming a picture that cannot be read.
    """
    dataset = SplitViews(split, preprocess, squash)
    reader = ReadViews(dataset, workers)
    first: Tensor = dataset[0]["images"]
    if first.numel() * len(dataset) > budget:
        return reader
    held = torch.empty(len(dataset), *first.shape, dtype=torch.uint8)
    chunks = torch.arange(len(dataset)).split(READ_AT_ONCE)
    for rows, views in zip(chunks, reader.batches(chunks), strict=True):
        held[rows] = views
        heartbeat.alive()
        report(int(rows[-1]) + 1, len(dataset))
    return HeldViews(held)


@dataclass(frozen=True)
class LabelledViews:
    """Pictures with their labels: class numbers [n], or a 0/1 matrix [n, k]."""

    views: Views
    labels: Tensor
    rows: Tensor | None = None
    """Which of the views these are, int64 [n]; None: all."""

    def __len__(self) -> int:
        """Pictures."""
        return len(self.labels)

    @property
    def multi_label(self) -> bool:
        """Whether a picture may show several classes."""
        return self.labels.ndim == 2

    def at(self, rows: Sequence[int]) -> "LabelledViews":
        """These pictures, in this order; nothing is copied but labels."""
        index = torch.tensor(rows, dtype=torch.int64)
        return LabelledViews(self.views, self.labels[index], index if self.rows is None else self.rows[index])

    def batches(self, positions: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """(views, labels) of each of these lists of positions among these pictures."""
        rows = positions if self.rows is None else [self.rows[one] for one in positions]
        for one, views in zip(positions, self.views.batches(rows), strict=True):
            yield views, self.labels[one]


@dataclass(frozen=True)
class TunedImages:
    """What a model is fine-tuned on and judged on."""

    train: LabelledViews
    test: LabelledViews
    preprocess: Preprocess
    """Of the model; the views are not yet normalised."""


def tuned_images(
    train: Split,
    test: Split,
    preprocess: Preprocess,
    squash: bool,
    workers: int = 0,
    report: Callable[[int, int], None] = lambda read, all_of_them: None,
    budget: int = BUDGET,
) -> TunedImages:
    """Both splits of a set by `pictures_of`; `squash` where the set's entry says `resize="squash"`."""

    def labelled(split: Split) -> LabelledViews:
        views = pictures_of(split, preprocess, squash, workers, report, budget)
        return LabelledViews(views, torch.from_numpy(split.labels.copy()))

    return TunedImages(labelled(train), labelled(test), preprocess)

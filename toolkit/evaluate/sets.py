"""Labelled and paired sets of shards, read once and spread evenly over ranks."""

import json
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from toolkit import config, distributed
from toolkit.config import Preprocess
from toolkit.data.cache import ShardCache
from toolkit.data.decode import BadSample
from toolkit.data.shards import expand_shards, scan_shard
from toolkit.data.streams import data_worker, without_worker_traceback, worker_context
from toolkit.data.texts import decode_text
from toolkit.data.views import PlainViews
from toolkit.errors import DataError

IMAGES = ("jpg", "jpeg", "png", "webp")
MAX_PIXELS = 89_478_485


@dataclass(frozen=True)
class Classes:
    """Names, prompt templates with one `{}`, and named groups of class numbers."""

    classnames: list[str]
    templates: list[str]
    groups: dict[str, list[int]]


def read_classes(path: str, *, asked_by: str) -> Classes:
    """Read a classes file; raises DataError naming what is wrong with it."""
    try:
        content = json.loads(Path(path).read_text())
        names, templates = list(content["classnames"]), list(content["templates"])
        groups = dict(content.get("groups", {}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{asked_by}={path} is no classes file ({error!r}); it is JSON with classnames, templates and optional groups"
        ) from error
    wrong = [template for template in templates if "{}" not in str(template)]
    if not names or not templates or wrong:
        raise DataError(
            f"{asked_by}={path}: needs at least one class name and templates with {{}} in each; found {wrong[:1] or 'none'}"
        )
    for group, numbers in groups.items():
        known = range(len(names))
        if not isinstance(numbers, list) or any(not isinstance(n, int) or n not in known for n in numbers):
            raise DataError(f"{asked_by}={path}: group {group} must be a list of class numbers in 0..{len(names) - 1}")
    return Classes([str(name) for name in names], [str(template) for template in templates], groups)


class EvalData(Dataset[dict[str, Any]]):
    """Every sample of a set once, in order: views for each model, and its label or caption."""

    def __init__(
        self, name: str, chosen: config.EvalSet, views: dict[str, Preprocess], cache: ShardCache | None = None
    ) -> None:
        """`views` by model name; `cache` is for remote shards; raises DataError for a sample without picture, label or caption."""
        self.name, self.kind = name, chosen.kind
        self.views = PlainViews(views, MAX_PIXELS)
        self.shards = [
            scan_shard(path)
            for path in expand_shards(chosen.shards, asked_by=f"evaluation.sets.{name}.shards", cache=cache)
        ]
        places = [(s, row) for s, shard in enumerate(self.shards) for row in range(shard.count)]
        self.places = places[: chosen.max_samples]
        if not self.places:
            raise DataError(f"evaluation.sets.{name}.shards={chosen.shards} holds no samples; correct the pattern")

    def __len__(self) -> int:
        """Samples of the set."""
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Views, `index`, and `label` (int) or `caption` (str)."""
        number, row = self.places[index]
        shard = self.shards[number]
        extension = shard.extension_of(row, IMAGES)
        wanted = "cls" if self.kind == "classification" else "txt"
        try:
            if extension is None or shard.extension_of(row, [wanted]) is None:
                raise BadSample(f"it has {', '.join(shard.extensions)} and needs a picture and '{wanted}'")
            sample: dict[str, Any] = {"index": index, **self.views(shard.read(row, extension))}
            text = decode_text(shard.read(row, wanted))
            sample |= {"label": int(text)} if wanted == "cls" else {"caption": text}
        except (BadSample, ValueError) as error:
            raise DataError(
                f"evaluation.sets.{self.name}: sample {shard.path}:{shard.keys[row]} cannot be judged: {error}"
            ) from error
        return sample


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack tensors and numbers, list strings."""
    first = samples[0]
    return {
        name: torch.stack([s[name] for s in samples])
        if isinstance(value, Tensor)
        else ([s[name] for s in samples] if isinstance(value, str) else torch.tensor([s[name] for s in samples]))
        for name, value in first.items()
    }


def rank_loader(data: Sized, batch_size: int, workers: int) -> Iterator[dict[str, Any]]:
    """Batches of this rank's share: the same number of samples on every rank, the last ones repeated where it does not divide."""
    rank, world = distributed.rank(), distributed.world()
    each = -(-len(data) // world)
    mine = np.minimum(np.arange(rank * each, (rank + 1) * each), len(data) - 1).tolist()
    loader: DataLoader[Any] = DataLoader(
        data,  # type: ignore[arg-type]  # a Dataset with a length
        batch_size=batch_size,
        sampler=mine,
        num_workers=workers,
        generator=torch.Generator(),  # judging draws nothing from the training's generator
        collate_fn=collate,
        worker_init_fn=data_worker,
        multiprocessing_context=worker_context() if workers else None,
    )
    return without_worker_traceback(loader)

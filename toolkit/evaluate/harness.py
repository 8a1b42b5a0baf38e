"""One harness for teacher, student and any other model: the same sets, pictures and metrics for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from toolkit import config, distributed, heartbeat
from toolkit.config import Preprocess
from toolkit.data.cache import ShardCache
from toolkit.errors import DataError
from toolkit.evaluate.agreement import agreement_metrics
from toolkit.evaluate.models import Encoder
from toolkit.evaluate.retrieval import retrieval_metrics
from toolkit.evaluate.sets import Classes, EvalData, rank_loader, read_classes
from toolkit.evaluate.zero_shot import class_head, encode_texts, zero_shot_metrics


@dataclass
class Encoded:
    """A model's features on one set, all rows on every rank."""

    images: Tensor
    """[n, e]"""
    texts: Tensor
    """[k, e]: class head, or one caption per picture."""


class Harness:
    """Judges models on the sets of a run; the teacher's features are computed once and kept."""

    def __init__(self, evaluation: config.Evaluation, workers: int = 0, cache: ShardCache | None = None) -> None:
        """Reads the class files at once, so that a mistake in them shows at the start; `cache` is for remote shards."""
        self.evaluation, self.workers, self.cache = evaluation, workers, cache
        self.classes: dict[str, Classes] = {
            name: read_classes(chosen.classes, asked_by=f"evaluation.sets.{name}.classes")
            for name, chosen in evaluation.sets.items()
            if chosen.kind == "classification"
        }
        self._data: dict[tuple[str, Preprocess], EvalData] = {}
        self._labels: dict[str, Any] = {}
        self._teacher: dict[str, Encoded] = {}

    def judge(self, models: Mapping[str, Encoder]) -> dict[str, Any]:
        """Metrics of each model on each set; a collective. The model called `teacher` is the one agreed with."""
        sets: dict[str, Any] = {}
        for name, chosen in self.evaluation.sets.items():
            encoded = {who: self._encoded(name, who, encoder) for who, encoder in models.items()}
            facts: dict[str, Any] = {"kind": chosen.kind, "samples": len(next(iter(encoded.values())).images)}
            if name in self.classes:
                facts["classes"] = len(self.classes[name].classnames)
            sets[name] = {**facts, "rows": {who: self._metrics(name, who, encoded) for who in encoded}}
        return sets

    def _metrics(self, name: str, who: str, encoded: dict[str, Encoded]) -> dict[str, float]:
        """One row of a set's table."""
        own, teacher = encoded[who], encoded.get("teacher")
        classes = self.classes.get(name)
        if classes is not None:
            metrics = zero_shot_metrics(own.images, own.texts, self._labels[name], classes.groups)
        else:
            metrics = retrieval_metrics(own.images, own.texts, self._labels[name])
        if teacher is not None and who != "teacher":
            heads = (own.texts, teacher.texts) if classes is not None else (None, None)
            metrics |= agreement_metrics(own.images, teacher.images, *heads)
        return metrics

    def _encoded(self, name: str, who: str, encoder: Encoder) -> Encoded:
        """Features of a model on a set, from memory for the teacher."""
        if who == "teacher" and name in self._teacher:
            return self._teacher[name]
        images = self._images(name, encoder)
        classes = self.classes.get(name)
        texts = class_head(encoder, classes) if classes is not None else encode_texts(encoder, self._labels[name])
        found = Encoded(images, texts.to(images.device))
        if who == "teacher":
            self._teacher[name] = found
        return found

    @torch.no_grad()
    def _images(self, name: str, encoder: Encoder) -> Tensor:
        """Image features [n, e] of a whole set, computed in shares and gathered; notes labels or captions on the way."""
        key = (name, encoder.preprocess)
        if key not in self._data:
            self._data[key] = EvalData(name, self.evaluation.sets[name], {"model": encoder.preprocess}, self.cache)
        data = self._data[key]
        features, labels, captions = [], [], []
        for batch in rank_loader(data, self.evaluation.batch_size, self.workers):
            heartbeat.alive()
            features.append(encoder.encode_image(batch["model_images"]))
            labels.append(batch.get("label", torch.zeros(0, dtype=torch.int64)))
            captions += batch.get("caption", [])
        images = distributed.gather_rows(torch.cat(features))[: len(data)]
        if name in self.classes:
            device = images.device
            self._labels[name] = distributed.gather_rows(torch.cat(labels).to(device))[: len(data)]
            check_labels(self._labels[name], len(self.classes[name].classnames), name)
        else:
            self._labels[name] = distributed.gather_strings(captions)[: len(data)]
        return images

    def samples(self, models: Mapping[str, Encoder], count: int = 24) -> list[dict[str, Any]]:
        """A grid of pictures of the first classification set with each model's top three; a collective.

        The same pictures each time; probabilities are softmax(100 cos).
        """
        from toolkit.evaluate.pictures import picture_grid

        name = next(iter(self.classes), None)
        if name is None:
            return []
        encoded = {who: self._encoded(name, who, encoder) for who, encoder in models.items()}
        data = next(data for (set_name, _), data in self._data.items() if set_name == name)
        scored = {who: (100 * found.images @ found.texts.T).softmax(-1) for who, found in encoded.items()}
        return picture_grid(data, self.classes[name].classnames, self._labels[name].tolist(), scored, count)


def check_labels(labels: Tensor, classes: int, name: str) -> None:
    """Raise DataError for a label that is no class of the set; it would count as a wrong answer for ever."""
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise DataError(
            f"evaluation.sets.{name}: {len(wrong)} of {len(labels)} labels lie outside 0..{classes - 1}, the first is "
            f"{int(wrong[0])}; mend the shards or evaluation.sets.{name}.classes"
        )


def flat_metrics(sets: dict[str, Any], who: str) -> dict[str, float]:
    """`{"scenes_top1": 55.2, ...}` of one model over all sets."""
    return {f"{name}_{metric}": value for name, found in sets.items() for metric, value in found["rows"][who].items()}

"""Retrieval and compositionality of every model, from features that are computed once."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from toolkit.data.benchmarks.split import Pictures, Split
from toolkit.data.pairs import CompositionSet, PairedSet, open_compositions, open_pairs
from toolkit.evaluate.compositionality import compositionality_result, compositionality_row
from toolkit.evaluate.judged import Judged
from toolkit.evaluate.retrieval import retrieval_result, retrieval_row
from toolkit.evaluate.suite.embedded import Embedder
from toolkit.evaluate.suite.request import Request


def retrieval(name: str, request: Request, models: Mapping[str, Judged], embedder: Embedder) -> dict[str, Any]:
    """The set's entry in results.json; a collective."""
    found = open_pairs(name, request.data)
    rows, split = {}, as_split(found, found.pictures)
    for who, judged in models.items():
        images = embedder.images(judged, split, squash=False)
        rows[who] = retrieval_row(found, partial(embedder.texts, judged, what=name), images)
    return retrieval_result(found, rows)


def compositionality(name: str, request: Request, models: Mapping[str, Judged], embedder: Embedder) -> dict[str, Any]:
    """The set's entry in results.json; a collective."""
    found = open_compositions(name, request.data)
    rows = {}
    split = None if found.pictures is None else as_split(found, found.pictures)
    for who, judged in models.items():
        images = None if split is None else embedder.images(judged, split, squash=False)
        rows[who] = compositionality_row(found, partial(embedder.texts, judged, what=name), images)
    return compositionality_result(found, rows)


def as_split(found: PairedSet | CompositionSet, pictures: Pictures) -> Split:
    """Pictures alone, for the features."""
    labels = np.zeros(len(pictures), dtype=np.int64)
    return Split(found.name, "test", "pairs", found.where, [], labels, pictures)

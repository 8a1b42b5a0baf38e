"""The sentences nearest to sample pictures, for student and teacher."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from toolkit.data.benchmarks.split import Split
from toolkit.errors import DataError
from toolkit.evaluate.judged import Judged
from toolkit.evaluate.suite.embedded import Embedder
from toolkit.evaluate.suite.shown import SAMPLES, sample_rows, thumbnail

NEAREST = 3
MOST_SENTENCES = 200_000


def read_sentences(path: Path) -> list[str]:
    """A sentence per line, each once; DataError where there are none, or more than can be compared at once."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"--sentences {path} cannot be read ({error}); give a text file with a sentence per line"
        ) from error
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not NEAREST <= len(found) <= MOST_SENTENCES:
        raise DataError(f"--sentences {path} holds {len(found):,} sentences; give {NEAREST} to {MOST_SENTENCES:,}")
    return found


def nearest_sentences(
    sentences: list[str], split: Split, models: Mapping[str, Judged], pictures: Mapping[str, Tensor], embedder: Embedder
) -> list[dict[str, Any]]:
    """`[{"png", "student": [[sentence, cosine], ...], ...}, ...]` of the set's sample pictures; a collective.

    `pictures` holds the features [n, e] of all of `split` by model.
    """
    rows = sample_rows(len(split))[:SAMPLES]
    found: list[dict[str, Any]] = [{"png": thumbnail(split, row)} for row in rows]
    for who, features in pictures.items():
        texts = embedder.texts(models[who], sentences, "sentences")
        top = (features[rows] @ texts.T).topk(NEAREST, dim=-1)
        for entry, values, numbers in zip(found, top.values.tolist(), top.indices.tolist(), strict=True):
            entry[who] = [[sentences[number], round(value, 4)] for value, number in zip(values, numbers, strict=True)]
    return found

"""Compositionality: does a model prefer a caption to a hard negative of nearly the same words?

With pictures there is an accuracy. Without them there is none, only what the text tower alone shows, in percent but for the
cosine, and none of it is a score:

* `mean_cosine` of a caption and its hard negative: 1 means that no picture can tell them apart;
* `indistinguishable`: share of pairs of cosine 1 up to rounding. Such a tower is wrong on these cases with any picture;
* `told_apart`: share of captions whose nearest neighbour among all other captions and negatives of the part is another
  sentence than their hard negative. A negative differs by a word or two, so that a small share is no fault; 0 is.

A model that borrows its teacher's text tower has the teacher's text-only numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from toolkit.data.pairs import CompositionSet
from toolkit.errors import DataError
from toolkit.evaluate.models import Encoder
from toolkit.evaluate.retrieval import ROWS
from toolkit.evaluate.zero_shot import encode_texts, percent

SAME = 1e-6
"""Cosines that differ by no more are a tie: fp32 embeddings of one sentence differ by this much from batch to batch."""
BAG_OF_WORDS = "bag of words"
"""Row of the baseline: cosine of word counts."""


def compositionality_row(
    found: CompositionSet, encoder: Encoder, image_features: Float[Tensor, "p e"] | None
) -> dict[str, Any]:
    """A model's row in results.json; `image_features` are of `found.pictures`, None where there are none.

    With pictures `accuracy`, `accuracy_micro` and `parts`; always `text_only`. DataError for features that are not finite.
    """
    sentences = list(dict.fromkeys([*found.captions, *found.negatives]))
    features = encode_texts(encoder, sentences)
    number = {sentence: row for row, sentence in enumerate(sentences)}
    captions = features[[number[one] for one in found.captions]]
    negatives = features[[number[one] for one in found.negatives]]
    row = {"text_only": text_only(found, captions, negatives)}
    return row if image_features is None else {**accuracies(found, captions, negatives, image_features), **row}


def compositionality_result(found: CompositionSet, rows: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The set's entry in results.json; the baseline's row comes last."""
    return {
        "title": found.title,
        "samples": len(found),
        "pictures": found.pictures is not None,
        "problems": list(found.problems),
        "rows": {**rows, BAG_OF_WORDS: bag_of_words_row(found)},
    }


def accuracies(
    found: CompositionSet,
    captions: Float[Tensor, "n e"],
    negatives: Float[Tensor, "n e"],
    image_features: Float[Tensor, "p e"],
) -> dict[str, Any]:
    """Percent of cases whose picture is nearer to the caption than to the negative; ties count as wrong.

    `parts` for each part, `accuracy` their mean as the benchmark has it (SugarCrepe: over parts; ARO: over relations that
    are not symmetric, or attribute pairs of 25 cases; absent where there is none), `accuracy_micro` over all cases.
    """
    check_finite(image_features, "image")
    if len(image_features) != int(found.picture_of.max()) + 1:
        raise DataError(f"{found.name}: {len(image_features)} image features for its pictures; encode each once, in order")
    images = image_features.to(captions.device)[torch.from_numpy(found.picture_of).to(captions.device)]
    right = (images * captions).sum(-1) - (images * negatives).sum(-1) > SAME
    return {
        **in_mean(found, "accuracy", per_part(found, right, percent)),
        "accuracy_micro": percent(right),
        "parts": per_part(found, right, percent),
    }


def text_only(found: CompositionSet, captions: Float[Tensor, "n e"], negatives: Float[Tensor, "n e"]) -> dict[str, Any]:
    """`mean_cosine`, `indistinguishable` and `told_apart`: means over the parts that accuracy is a mean over, and `parts`."""
    check_finite(captions, "text")
    check_finite(negatives, "text")
    cosine = (captions * negatives).sum(-1)
    apart = torch.zeros_like(cosine, dtype=torch.bool)
    for part in range(len(found.parts)):
        rows = np.flatnonzero(found.part_of == part)
        chosen = torch.from_numpy(rows).to(captions.device)
        apart[chosen] = told_apart(
            captions[chosen], negatives[chosen], [found.captions[k] for k in rows], [found.negatives[k] for k in rows]
        )
    values = {
        "mean_cosine": per_part(found, cosine, lambda some: float(some.double().mean())),
        "indistinguishable": per_part(found, cosine >= 1 - SAME, percent),
        "told_apart": per_part(found, apart, percent),
    }
    means: dict[str, Any] = {}
    for name, of_part in values.items():
        means |= in_mean(found, name, of_part)
    return {**means, "parts": {part: {name: values[name][part] for name in values} for part in found.parts}}


def told_apart(
    captions: Float[Tensor, "n e"], negatives: Float[Tensor, "n e"], texts: Sequence[str], wrong: Sequence[str]
) -> Bool[Tensor, " n"]:
    """Is another sentence of the part strictly nearer to each caption than its negative is? Copies of either do not count."""
    number = {sentence: k for k, sentence in enumerate(dict.fromkeys([*texts, *wrong]))}
    mine = torch.tensor([number[one] for one in texts], device=captions.device)
    theirs = torch.tensor([number[one] for one in wrong], device=captions.device)
    gallery, numbers = torch.cat([captions, negatives]), torch.cat([mine, theirs])
    parts = []
    for start in range(0, len(captions), ROWS):
        rows = slice(start, start + ROWS)
        near = captions[rows] @ gallery.T
        own = (numbers == mine[rows, None]) | (numbers == theirs[rows, None])
        best = near.masked_fill(own, -torch.inf).amax(dim=1)
        parts.append(best > (captions[rows] * negatives[rows]).sum(-1) + SAME)
    return torch.cat(parts)


def bag_of_words_row(found: CompositionSet) -> dict[str, Any]:
    """What a tower sees that knows how often each word occurs and nothing of their order: text-only numbers."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import normalize

    counted = CountVectorizer(token_pattern=r"\w+").fit_transform([*found.captions, *found.negatives])
    dense = torch.from_numpy(normalize(counted.astype(np.float32)).toarray())
    return {"text_only": text_only(found, dense[: len(found)], dense[len(found) :])}


def per_part(found: CompositionSet, values: Tensor, mean: Callable[[Tensor], float]) -> dict[str, float]:
    """The mean of each part's cases."""
    return {
        part: mean(values[torch.from_numpy(found.part_of == number).to(values.device)])
        for number, part in enumerate(found.parts)
    }


def in_mean(found: CompositionSet, name: str, of_part: Mapping[str, float]) -> dict[str, float]:
    """{name: mean over the parts that count}, or nothing where none does."""
    counting = [of_part[part] for part, counts in zip(found.parts, found.in_mean, strict=True) if counts]
    return {name: float(np.mean(counting))} if counting else {}


def check_finite(features: Tensor, what: str) -> None:
    """DataError where a model gave no numbers."""
    wrong = int((~torch.isfinite(features)).any(dim=-1).sum())
    if wrong:
        raise DataError(f"{wrong} of {len(features)} {what} features are not finite; mend the model")

"""Compositionality: does a model prefer a caption to a hard negative of nearly the same words?

With pictures there is an accuracy. Without them there is none, only what the text tower alone shows, in percent but for the
cosine, and none of it is a score:

* `mean_cosine` of a caption and its hard negative: 1 means that no picture can tell them apart;
* `indistinguishable`: share of pairs with one embedding up to rounding, because the tower ignores order, does not know a
  word, or ends before they differ. These cases are wrong with any picture;
* `told_apart`: share of captions whose nearest neighbour among all other captions and negatives of the part is another
  sentence than their hard negative. A negative differs by a word or two, so that a small share is no fault, and a tower
  to which unrelated sentences are near has a large one: read it beside the mean cosine.

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
from toolkit.evaluate.retrieval import ROWS, Encode, check_finite
from toolkit.evaluate.zero_shot import percent

SAME = 1e-6
"""Cosines that differ by no more are a tie: fp32 embeddings of one sentence differ by this much from batch to batch."""
BAG_OF_WORDS = "bag of words"
"""Row of the baseline: cosine of word counts."""
FeaturesOf = Callable[[np.ndarray], tuple[Tensor, Tensor]]
"""Numbers of cases [r] -> unit-norm embeddings of their captions and of their negatives [r, e]."""


def compositionality_row(
    found: CompositionSet, encode: Encode, image_features: Float[Tensor, "p e"] | None
) -> dict[str, Any]:
    """A model's row in results.json; `image_features` are of `found.pictures`, None where there are none.

    With pictures `accuracy`, `accuracy_micro` and `parts`; always `text_only`. DataError for features that are not finite.
    """
    sentences = list(dict.fromkeys([*found.captions, *found.negatives]))
    features = encode(sentences)
    number = {sentence: row for row, sentence in enumerate(sentences)}
    captions = features[[number[one] for one in found.captions]]
    negatives = features[[number[one] for one in found.negatives]]
    row = {"text_only": text_only(found, lambda rows: (captions[rows], negatives[rows]))}
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
        raise DataError(
            f"{found.name}: {len(image_features)} image features for its pictures; encode each once, in order"
        )
    images = image_features.to(captions.device)[found.picture_of]
    right = (images * captions).sum(-1) - (images * negatives).sum(-1) > SAME
    parts = {part: percent(right[found.part_of == number]) for number, part in enumerate(found.parts)}
    return {**in_mean(found, "accuracy", parts), "accuracy_micro": percent(right), "parts": parts}


def text_only(found: CompositionSet, features_of: FeaturesOf) -> dict[str, Any]:
    """`mean_cosine`, `indistinguishable`, `told_apart` of each of `parts`, and means over those that accuracy is a mean of."""
    parts: dict[str, dict[str, float]] = {}
    for number, part in enumerate(found.parts):
        rows = np.flatnonzero(found.part_of == number)
        captions, negatives = features_of(rows)
        check_finite(torch.cat([captions, negatives]), "text")
        cosine = (captions * negatives).sum(-1)
        texts, wrong = [found.captions[k] for k in rows], [found.negatives[k] for k in rows]
        parts[part] = {
            "mean_cosine": float(cosine.double().mean()),
            "indistinguishable": percent((captions - negatives).norm(dim=-1) <= SAME),
            "told_apart": percent(told_apart(captions, negatives, texts, wrong)),
        }
    means: dict[str, Any] = {}
    for name in ("mean_cosine", "indistinguishable", "told_apart"):
        means |= in_mean(found, name, {part: values[name] for part, values in parts.items()})
    return {**means, "parts": parts}


def told_apart(
    captions: Float[Tensor, "n e"], negatives: Float[Tensor, "n e"], texts: Sequence[str], wrong: Sequence[str]
) -> Bool[Tensor, " n"]:
    """Is another sentence of the part strictly nearer to each caption than its negative is? Copies of the caption do not count."""
    number = {sentence: k for k, sentence in enumerate(dict.fromkeys([*texts, *wrong]))}
    mine = torch.tensor([number[one] for one in texts], device=captions.device)
    theirs = torch.tensor([number[one] for one in wrong], device=captions.device)
    gallery, numbers = torch.cat([captions, negatives]), torch.cat([mine, theirs])
    parts = []
    for start in range(0, len(captions), ROWS):
        rows = slice(start, start + ROWS)
        near = captions[rows] @ gallery.T
        best = near.masked_fill(numbers == mine[rows, None], -torch.inf).amax(dim=1)
        parts.append(best > (captions[rows] * negatives[rows]).sum(-1) + SAME)
    return torch.cat(parts)


def bag_of_words_row(found: CompositionSet) -> dict[str, Any]:
    """What a tower sees that knows how often each word occurs and nothing of their order: text-only numbers."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import normalize

    def counts(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        texts = [sentences[k] for sentences in (found.captions, found.negatives) for k in rows]
        counted = CountVectorizer(token_pattern=r"\w+", dtype=np.float32).fit_transform(texts)
        dense = torch.from_numpy(normalize(counted).toarray())  # of one part: the whole set would take half a GiB
        return dense[: len(rows)], dense[len(rows) :]

    return {"text_only": text_only(found, counts)}


def in_mean(found: CompositionSet, name: str, of_part: Mapping[str, float]) -> dict[str, float]:
    """{name: mean over the parts that count}, or nothing where none does."""
    counting = [of_part[part] for part, counts in zip(found.parts, found.in_mean, strict=True) if counts]
    return {name: float(np.mean(counting))} if counting else {}

"""Image-text retrieval: recall at 1, 5 and 10, both ways, for any number of captions per picture."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from toolkit.data.pairs import PairedSet
from toolkit.errors import DataError
from toolkit.evaluate.zero_shot import percent

ROWS = 1024
"""Queries scored at a time, so that memory stays flat on large sets."""
CELLS = 1 << 25
"""Scores at a time, fewer queries where the other side is large: about 400 MiB with what goes with them."""
RECALLS = (1, 5, 10)
DRAWS = 1000

Encode = Callable[[Sequence[str]], Tensor]
"""Sentences -> unit-norm features [m, e]."""
Belongs = Int[Tensor, "2 _"]
"""Rows, and the number of a caption of each: a caption's text has one number, however often it occurs."""
Ranks = tuple[Int[Tensor, " p"], Int[Tensor, " m"]]
"""Of each picture among the captions, and of each caption among the pictures; 0 is found at once."""


def retrieval_metrics(
    image_features: Float[Tensor, "n e"], text_features: Float[Tensor, "n e"], captions: Sequence[str]
) -> dict[str, float]:
    """`image_to_text_r1` ... `text_to_image_r10` in percent, for row i of both belonging together.

    Equal captions count as one: whichever of their pictures (or copies of the text) is found is right.
    """
    return caption_retrieval_metrics(image_features, text_features, captions, np.arange(len(captions)))


def caption_retrieval_metrics(
    image_features: Float[Tensor, "p e"],
    text_features: Float[Tensor, "m e"],
    captions: Sequence[str],
    picture_of: Int[np.ndarray, " _"],
) -> dict[str, float]:
    """The same where caption j belongs to picture `picture_of[j]`; a picture finds right whichever of its captions it finds.

    As the field has it for Flickr30k and COCO. Ties, and scores that are no number, count against. DataError for a
    picture without a caption.
    """
    return recalls(ranks(image_features, text_features, captions, picture_of))


def retrieval_row(found: PairedSet, encode: Encode, image_features: Float[Tensor, "p e"]) -> dict[str, Any]:
    """A model's row in results.json: recalls, and `intervals` of those at 1; `image_features` are of `found.pictures`.

    DataError for features that are not finite.
    """
    text_features = encode(found.captions).to(image_features.device)
    check_finite(image_features, "image")
    check_finite(text_features, "text")
    rank = ranks(image_features, text_features, found.captions, found.picture_of)
    intervals = recall_intervals(rank, found.picture_of)
    return {**recalls(rank), "intervals": {name: list(ends) for name, ends in intervals.items()}}


def retrieval_result(found: PairedSet, rows: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The set's entry in results.json."""
    return {
        "title": found.title,
        "samples": len(found),
        "captions": len(found.captions),
        "problems": list(found.problems),
        "rows": dict(rows),
    }


def recalls(rank: Ranks) -> dict[str, float]:
    """Percent, by direction and K."""
    return {
        f"{name}_r{k}": percent(one < k)
        for name, one in zip(("image_to_text", "text_to_image"), rank, strict=True)
        for k in RECALLS
    }


def ranks(
    image_features: Float[Tensor, "p e"],
    text_features: Float[Tensor, "m e"],
    captions: Sequence[str],
    picture_of: Int[np.ndarray, " _"],
) -> Ranks:
    """For each picture, then for each caption: how many wrong entries score at least as high as its best right one."""
    check(len(image_features), len(text_features), captions, picture_of)
    device = image_features.device
    number_of = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    numbers = torch.tensor([number_of[caption] for caption in captions], device=device)
    owner = torch.from_numpy(np.asarray(picture_of, dtype=np.int64)).to(device)
    pictures = torch.stack([owner, numbers]).unique(dim=1)
    texts = torch.stack([torch.arange(len(captions), device=device), numbers])
    found = []
    for queries, gallery, asking, asked in (
        (image_features, text_features, pictures, texts),
        (text_features, image_features, texts, pictures),
    ):
        parts = []
        step = max(1, min(ROWS, CELLS // len(gallery)))
        for start in range(0, len(queries), step):
            chunk = queries[start : start + step]
            parts.append(rank_of_first_hit(chunk, gallery, *shared(asking, asked, start, len(chunk))))
        found.append(torch.cat(parts))
    return found[0], found[1]


def check(pictures: int, texts: int, captions: Sequence[str], picture_of: np.ndarray) -> None:
    """DataError where captions, their features and their pictures do not go together."""
    if not len(captions) == len(picture_of) == texts:
        raise DataError(
            f"{texts} text features for {len(captions)} captions of {len(picture_of)} pictures; give one each"
        )
    there = np.bincount(picture_of, minlength=pictures) if len(picture_of) and picture_of.min() >= 0 else np.zeros(0)
    if len(there) != pictures or not (there > 0).all():
        raise DataError(
            f"each of the {pictures} pictures needs a caption, and each caption one of them; correct the set"
        )


def shared(asking: Belongs, asked: Belongs, start: int, rows: int) -> tuple[Int[Tensor, " r"], Int[Tensor, " r"]]:
    """Pairs (query, gallery row) with a caption in common, for the queries start, start + 1, ..., counted from 0.

    Each comes once: one of the two sides is texts, and a text has one number.
    """
    inside = (asking[0] >= start) & (asking[0] < start + rows)
    query, number = asking[0][inside] - start, asking[1][inside]
    order = asked[1].argsort(stable=True)
    gallery, sorted_numbers = asked[0][order], asked[1][order]
    first = torch.searchsorted(sorted_numbers, number)
    each = torch.searchsorted(sorted_numbers, number, right=True) - first
    before = (each.cumsum(0) - each).repeat_interleave(each)  # of the pairs of a caption, where its first one stands
    place = first.repeat_interleave(each) + torch.arange(len(before), device=each.device) - before
    return query.repeat_interleave(each), gallery[place]


def rank_of_first_hit(
    queries: Float[Tensor, "q e"], gallery: Float[Tensor, "g e"], query: Int[Tensor, " r"], right: Int[Tensor, " r"]
) -> Int[Tensor, " q"]:
    """How many wrong gallery entries score at least as high as the best right one (ties count against).

    The right ones are pairs (`query`, `right`).
    """
    scores = queries @ gallery.T
    found = scores[query, right]
    best = torch.full_like(scores[:, 0], -torch.inf).scatter_reduce(0, query, found, "amax")
    above = (~(scores < best[:, None])).sum(dim=1)
    return above.index_add(0, query, (~(found < best[query])).long(), alpha=-1)


def recall_intervals(
    rank: Ranks, picture_of: Int[np.ndarray, " _"], *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """`image_to_text_r1` and `text_to_image_r1` -> (low, high): percentile bootstrap over pictures, percent.

    A draw takes pictures with all their captions as queries; what is searched stays the whole set.
    """
    pictures, texts = rank
    count = len(pictures)
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    owned = np.bincount(picture_of, minlength=count)
    found = np.bincount(picture_of, weights=(texts < 1).cpu().numpy(), minlength=count)
    drawn = {
        "image_to_text_r1": times @ (pictures < 1).cpu().numpy() / count,
        "text_to_image_r1": (times @ found) / (times @ owned),
    }
    ends = [(1 - level) / 2, (1 + level) / 2]
    return {name: tuple((100 * np.quantile(values, ends)).tolist()) for name, values in drawn.items()}


def check_finite(features: Tensor, what: str) -> None:
    """DataError where a model gave no numbers."""
    wrong = int((~torch.isfinite(features)).any(dim=-1).sum())
    if wrong:
        raise DataError(f"{wrong} of {len(features)} {what} features are not finite; mend the model")

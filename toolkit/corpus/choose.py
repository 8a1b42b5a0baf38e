"""From similarities to the sentences of the corpus, in order of rank; a byte per sentence of the pool is held, no more."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.corpus.compare import NOWHERE, Part, TopK, best_blocks
from toolkit.corpus.request import Request

NO_LEVEL = 255
BLOCK = 2**22


@dataclass(frozen=True)
class Choice:
    """Places in the pool by rank, the first the best."""

    places: np.ndarray
    scores: np.ndarray
    """Best similarity of each over all images, float32."""
    k: int | None
    """What k became; None for methods without."""
    union: dict[int, int]
    """Sentences that are among the best k of some image, by k."""
    notes: list[str]


def choose(request: Request, parts: Sequence[Part], top: TopK) -> Choice:
    """The method that was asked for."""
    if request.method == "grounded":
        return choose_grounded(request, parts, top)
    if request.method == "threshold":
        least = -np.inf if request.threshold is None else request.threshold
        places, scores = highest(parts, request.size, lambda _, best: np.where(best >= least, best, -np.inf))
        wanted = (
            f"with a best similarity of at least {least:g}"
            if request.threshold is not None
            else "that pass the filters"
        )
    else:
        draw = np.random.default_rng(request.seed).random
        places, _ = highest(
            parts, request.size, lambda _, best: np.where(np.isfinite(best), draw(len(best), np.float32), -np.inf)
        )
        scores, wanted = best_of(parts, places), "that pass the filters"
    return Choice(places, scores, None, {}, shortfall(request, len(places), wanted))


def choose_grounded(request: Request, parts: Sequence[Part], top: TopK) -> Choice:
    """Union of the best k per image, by best similarity; where that is too small, k + 1 and so on until it is not.

    What a smaller k gave stands before what a larger one adds, so raising k takes no image's best sentence away.
    """
    levels = levels_of(top, parts[-1].stop)
    held = np.bincount(levels, minlength=NO_LEVEL + 1)
    union = {k: int(held[1 : k + 1].sum()) for k in range(1, request.max_k + 1)}
    used = next((k for k in range(request.k, request.max_k + 1) if union[k] >= request.size), request.max_k)
    levels[(levels != NO_LEVEL) & (levels < request.k)] = request.k
    found: list[tuple[np.ndarray, np.ndarray]] = []
    missing = request.size
    for level in [*range(request.k, used + 1), *([NO_LEVEL] if request.fill else [])]:
        here = min(missing, int((levels == level).sum()))
        if here:
            found.append(highest(parts, here, lambda start, best, level=level: masked(levels, level, start, best)))  # type: ignore[misc]
            missing -= len(found[-1][0])
    places, scores = (np.concatenate([pair[k] for pair in found]) for k in (0, 1))
    notes = []
    if used > request.k:
        notes.append(
            f"k was raised from {request.k} to {used}: the best {request.k} of each image are {union[request.k]:,} sentences, "
            f"{request.size:,} were asked for."
        )
    if union[used] < request.size and request.fill and len(places) > union[used]:
        notes.append(
            f"{len(places) - union[used]:,} sentences are no image's best {used}; they fill up by best similarity (--fill)."
        )
    notes += shortfall(
        request, len(places), f"that are among the best {used} of an image", "raise --max-k, or --fill up by score"
    )
    return Choice(places, scores, used, union, notes)


def masked(levels: np.ndarray, level: int, start: int, best: np.ndarray) -> np.ndarray:
    """Best similarities of one level."""
    return np.where(levels[start : start + len(best)] == level, best, -np.inf)


def levels_of(top: TopK, total: int) -> np.ndarray:
    """The smallest k at which each sentence of the pool is among the best of an image, NO_LEVEL where it never is."""
    levels = np.full(total, NO_LEVEL, np.uint8)
    for rank in reversed(range(top.places.shape[1])):
        places = top.places[:, rank].numpy()
        levels[places[places != NOWHERE]] = rank + 1
    return levels


def highest(
    parts: Sequence[Part], count: int, score: Callable[[int, np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Places and scores of the `count` highest of the pool, -inf never; of equals the first. `score` of (start, best)."""
    places, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
    for start, values in in_large_blocks(best_blocks(parts)):
        scored = score(start, values).astype(np.float32)
        least = scores[-1] if len(scores) == count else -np.inf
        new = np.flatnonzero(scored > least)
        places, scores = np.concatenate([places, new + start]), np.concatenate([scores, scored[new]])
        order = np.argsort(-scores, kind="stable")[:count]
        places, scores = places[order], scores[order]
    return places, scores


def best_of(parts: Sequence[Part], places: np.ndarray) -> np.ndarray:
    """Best similarity of each of these sentences."""
    scores = np.empty(len(places), np.float32)
    for start, values in best_blocks(parts):
        here = (places >= start) & (places < start + len(values))
        scores[here] = values[places[here] - start]
    return scores


def in_large_blocks(blocks: Iterable[tuple[int, np.ndarray]]) -> Iterable[tuple[int, np.ndarray]]:
    """The same rows, joined to BLOCK or so, because each costs a sort."""
    held: list[np.ndarray] = []
    first = count = 0
    for start, values in blocks:
        if not held:
            first = start
        held.append(values)
        count += len(values)
        if count >= BLOCK:
            yield first, np.concatenate(held)
            held, count = [], 0
    if held:
        yield first, np.concatenate(held)


def shortfall(request: Request, found: int, wanted: str, remedy: str = "") -> list[str]:
    """A sentence where there are fewer than were asked for."""
    if found >= request.size:
        return []
    tail = f"; {remedy}" if remedy and not request.fill else "; enlarge the pool or loosen what limits it"
    return [f"Warning: {request.size:,} sentences were asked for, the pool holds {found:,} {wanted}{tail}."]

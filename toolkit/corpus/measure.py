"""What was chosen, in numbers: scores of the pool and of the corpus, and how well the images are covered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from toolkit.corpus.choose import Choice
from toolkit.corpus.compare import NOWHERE, Part, TopK, best_blocks, image_blocks, text_blocks
from toolkit.corpus.jobs import Progress, run_jobs
from toolkit.corpus.request import Sizes
from toolkit.data.stored import StoredPool

FINE = 20_000
"""Bins from -1 to 1: quantiles are good to 0.0001."""
BINS = 60
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
COVER_IMAGES = 16_384
"""Images per job of the second comparison."""


@dataclass
class Spread:
    """A distribution of similarities, counted as it goes by."""

    counts: np.ndarray = field(default_factory=lambda: np.zeros(FINE, np.int64))
    total: float = 0.0

    def add(self, values: np.ndarray) -> None:
        """What is not finite is left out."""
        finite = values[np.isfinite(values)].astype(np.float64)
        self.counts += np.bincount(np.clip(((finite + 1) * (FINE / 2)).astype(np.int64), 0, FINE - 1), minlength=FINE)
        self.total += float(finite.sum())

    @property
    def count(self) -> int:
        """Values so far."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """Middle of the bin in which it lies."""
        wanted = min(max(1, int(np.ceil(share * self.count))), self.count)
        return round(float((np.searchsorted(np.cumsum(self.counts), wanted) + 0.5) / (FINE / 2) - 1), 5)

    def as_dict(self) -> dict[str, float | int | None]:
        """Count, mean and quantiles by name."""
        if not self.count:
            return {"count": 0, "mean": None}
        named = {f"q{100 * share:g}": self.quantile(share) for share in QUANTILES}
        return {"count": self.count, "mean": round(self.total / self.count, 5), **named}


def histogram(spreads: Mapping[str, Spread]) -> dict[str, list[float]]:
    """The same BINS bins for all of them: `edges`, and the share of values in each by name."""
    held = np.flatnonzero(sum(spread.counts for spread in spreads.values()))
    first, last = (int(held[0]), int(held[-1])) if len(held) else (0, 0)
    step = -(-(last + 1 - first) // BINS)
    edges = [round((first + step * k) / (FINE / 2) - 1, 5) for k in range(BINS + 1)]
    shares = {
        name: [
            round(float(spread.counts[first + step * k : first + step * (k + 1)].sum()) / max(1, spread.count), 6)
            for k in range(BINS)
        ]
        for name, spread in spreads.items()
    }
    return {"edges": edges, **shares}


@dataclass(frozen=True)
class Measures:
    """All that the summary, the page and selection.json show."""

    pool: Spread
    chosen: Spread
    images: int
    images_left_out: int
    """Not embedded."""
    best_in_corpus: int
    """Images whose best sentence of the whole pool is in the corpus."""
    to_pool: Spread
    """Each image's similarity to the best sentence of the pool,"""
    to_corpus: Spread
    """and to the best of the corpus."""

    @property
    def coverage(self) -> float:
        """Share of the images."""
        return self.best_in_corpus / max(1, self.images)


def measure(parts: Sequence[Part], top: TopK, choice: Choice, workers: int) -> Measures:
    """One pass over what is known; images none of whose best k was chosen are compared with the corpus."""
    taken = np.zeros(parts[-1].stop, bool)
    taken[choice.places] = True
    scores, places = top.scores.numpy(), top.places.numpy()
    inside = (places != NOWHERE) & taken[places]
    valid = places[:, 0] != NOWHERE
    found = np.where(inside.any(1), scores[np.arange(len(scores)), inside.argmax(1)], -np.inf).astype(np.float32)
    unknown = np.flatnonzero(valid & ~inside.any(1))
    if len(unknown) and len(choice.places):
        found[unknown] = best_in(parts[0], unknown, np.sort(choice.places), workers)
    pool, chosen, to_pool, to_corpus = Spread(), Spread(), Spread(), Spread()
    for _, best in best_blocks(parts):
        pool.add(best)
    chosen.add(choice.scores)
    to_pool.add(scores[valid, 0])
    to_corpus.add(found[valid])
    return Measures(pool, chosen, int(valid.sum()), int((~valid).sum()), int(inside[:, 0].sum()), to_pool, to_corpus)


def best_in(part: Part, images: np.ndarray, places: np.ndarray, workers: int) -> np.ndarray:
    """Similarity of some images to the best of some sentences."""
    step = max(part.sizes.image_rows, COVER_IMAGES)
    jobs = [images[start : start + step] for start in range(0, len(images), step)]
    one = partial(best_of_images, part.images, part.texts, places, part.sizes, part.device)
    progress = Progress("measured the coverage of", "images", len(images))
    return np.concatenate(run_jobs(one, [(job, len(job)) for job in jobs], workers, progress))


def best_of_images(
    images: StoredPool, texts: StoredPool, places: np.ndarray, sizes: Sizes, device: str, chosen: np.ndarray
) -> np.ndarray:
    """Similarity of each of the chosen images, all embedded, to the best of the sentences at `places`."""
    best = torch.full((len(chosen),), -torch.inf)
    for here, sentences in text_blocks(texts, places, sizes, device):
        done = 0
        for rows, pictures in image_blocks(images, chosen, sizes, device):
            similarity = (pictures @ sentences.T)[: len(rows), : len(here)].amax(1).cpu()
            best[done : done + len(rows)] = torch.maximum(best[done : done + len(rows)], similarity)
            done += len(rows)
    return best.numpy()


def examples(parts: Sequence[Part], choice: Choice) -> dict[str, list[tuple[float, int, float]]]:
    """(quantile, place, score) of the sentences that lie closest to the quantiles, chosen ones and others."""
    taken = np.zeros(parts[-1].stop, bool)
    taken[choice.places] = True
    order = np.lexsort((choice.places, choice.scores))
    ranks = [round(share * (len(order) - 1)) for share in QUANTILES]
    picked = [
        (share, int(choice.places[order[rank]]), float(choice.scores[order[rank]]))
        for share, rank in zip(QUANTILES, ranks, strict=True)
    ]
    rest = Spread()
    for start, best in best_blocks(parts):
        rest.add(best[~taken[start : start + len(best)]])
    others: list[tuple[float, int, float]] = []
    for share in QUANTILES if rest.count else ():
        wanted, closest = rest.quantile(share), (np.inf, 0, 0.0)
        for start, best in best_blocks(parts):
            distance = np.where(taken[start : start + len(best)], np.inf, np.abs(best - wanted))
            row = int(distance.argmin())
            if distance[row] < closest[0]:
                closest = (float(distance[row]), start + row, float(best[row]))
        others.append((share, closest[1], closest[2]))
    return {"chosen": unique(picked), "others": unique(others)}


def unique(found: list[tuple[float, int, float]]) -> list[tuple[float, int, float]]:
    """Each sentence once, highest first."""
    seen: dict[int, tuple[float, int, float]] = {}
    for entry in found:
        seen.setdefault(entry[1], entry)
    return sorted(seen.values(), key=lambda entry: (-entry[2], entry[1]))

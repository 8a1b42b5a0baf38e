"""Every sentence with every picture, a block at a time: the best sentences of each picture, the best picture of each sentence.

Exact products in fp32; the matrix of images x sentences never exists. Ties go to the sentence that comes first in the pool.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from toolkit.corpus.filters import KEPT, is_embedded, load, save_aside
from toolkit.corpus.request import Sizes
from toolkit.data.stored import StoredPool

PART_PRODUCTS = 1e12
"""Multiplications between two partial results: ten seconds to a minute of a core."""
MOST_PARTS = 256
"""Bounds the disk that partial results take."""
CHUNK = 128
"""Columns that are looked at together for what enters a top-k."""
NOWHERE = -1
"""Position in a top-k that is not full."""


@dataclass(frozen=True)
class Part:
    """Some consecutive sentences of the pool against all images."""

    number: int
    start: int
    stop: int
    work: Path
    images: StoredPool
    texts: StoredPool
    k: int
    sizes: Sizes
    device: str

    def path(self, what: str) -> Path:
        """Of `scores` and `places` (both [images, k]) and of `best` ([sentences of the part]); whole where it is there."""
        return self.work / f"{what}-{self.number:05d}.npy"

    @property
    def is_done(self) -> bool:
        """By an earlier run."""
        return all(self.path(what).is_file() for what in ("scores", "places", "best"))


def parts_of(images: StoredPool, texts: StoredPool, work: Path, k: int, sizes: Sizes, device: str) -> list[Part]:
    """The pool in parts that depend on nothing but the sizes."""
    step = sizes.part_rows or part_rows(len(images), len(texts), texts.width, sizes.text_rows)
    starts = range(0, len(texts), step)
    return [
        Part(number, start, min(start + step, len(texts)), work, images, texts, k, sizes, device)
        for number, start in enumerate(starts)
    ]


def part_rows(images: int, texts: int, width: int, text_rows: int) -> int:
    """A multiple of `text_rows` worth PART_PRODUCTS, more where there would be more than MOST_PARTS parts."""
    wanted = max(PART_PRODUCTS / max(1, images * width), texts / MOST_PARTS)
    return max(1, -int(-wanted // text_rows)) * text_rows


class TopK:
    """The k best sentences of each picture so far: scores descending, places ascending among equals."""

    def __init__(self, images: int, k: int, device: str = "cpu") -> None:
        """12 bytes for each picture and k."""
        self.scores = torch.full((images, k), -torch.inf, device=device)
        self.places = torch.full((images, k), NOWHERE, dtype=torch.int64, device=device)

    def update(self, similarity: Float[Tensor, "b m"], rows: Int[Tensor, " b"], places: Int[Tensor, " m"]) -> None:
        """Take in sentences that come later in the pool than all before; `rows` says whose similarities these are.

        What enters is struck out of `similarity`. One fast pass gives the best of every CHUNK columns; what enters is then
        looked for among those: the first of equals, which torch.topk does not promise.
        """
        k = self.scores.shape[1]
        chunks = in_chunks(similarity)
        tops = chunks.amax(2)
        better = (tops.amax(1) > self.scores[rows, -1]).nonzero()[:, 0]
        if not len(better):
            return
        mine = rows[better]
        tops, worst = tops[better], self.scores[mine, -1]
        scores, found = [self.scores[mine]], [self.places[mine]]
        for _ in range(min(k, similarity.shape[1])):
            score, chunk = tops.max(1, keepdim=True)
            if not (score[:, 0] > worst).any():
                break
            inside = chunks[better, chunk[:, 0]]
            column = inside.argmax(1, keepdim=True)
            scores.append(score)
            found.append(places[(chunk * CHUNK + column).clamp_(max=len(places) - 1)])
            inside.scatter_(1, column, -torch.inf)
            chunks[better, chunk[:, 0]] = inside
            tops.scatter_(1, chunk, inside.amax(1, keepdim=True))
        joined = torch.cat(scores, 1)
        kept, order = joined.sort(dim=1, descending=True, stable=True)
        self.scores[mine] = kept[:, :k]
        self.places[mine] = torch.cat(found, 1).gather(1, order)[:, :k]


def in_chunks(similarity: Float[Tensor, "b m"]) -> Float[Tensor, "b c w"]:
    """Columns in groups of CHUNK, a view where they divide; else filled up with -inf."""
    lacking = -similarity.shape[1] % CHUNK
    if lacking:
        similarity = torch.nn.functional.pad(similarity, (0, lacking), value=-torch.inf)
    return similarity.unflatten(1, (-1, CHUNK))


def compare(part: Part) -> None:
    """Writes the part's three files."""
    sizes, device = part.sizes, part.device
    top = TopK(len(part.images), part.k, device)
    best = np.full(part.stop - part.start, -np.inf, np.float32)
    product = torch.empty(sizes.image_rows, sizes.text_rows, device=device)  # once: new memory for each takes a sixth
    for places, texts in text_blocks(part.texts, kept_places(part.work, part.start, part.stop), sizes, device):
        block_best = torch.full((len(places),), -torch.inf, device=device)
        here = torch.from_numpy(places).to(device)
        for rows, images in image_blocks(part.images, None, sizes, device):
            torch.mm(images, texts.T, out=product)
            similarity = product[: len(rows), : len(places)]
            block_best = torch.maximum(block_best, similarity.amax(0))
            top.update(similarity, torch.from_numpy(rows).to(device), here)
        best[places - part.start] = block_best.cpu().numpy()
    save_aside(part.path("scores"), top.scores.cpu().numpy())
    save_aside(part.path("places"), top.places.cpu().numpy())
    save_aside(part.path("best"), best)


def kept_places(work: Path, start: int, stop: int) -> np.ndarray:
    """Positions in the pool, from `start` to `stop`, that passed the filters."""
    reasons = load(work / "reasons.npy")
    return np.flatnonzero(reasons[start:stop] == KEPT) + start


def text_blocks(
    texts: StoredPool, places: np.ndarray, sizes: Sizes, device: str
) -> Iterator[tuple[np.ndarray, Float[Tensor, "m e"]]]:
    """(places, unit rows) of `text_rows` sentences at a time; the last block is padded with zeros to the same shape."""
    for start in range(0, len(places), sizes.text_rows):
        block = places[start : start + sizes.text_rows]
        yield block, padded(texts.take(block), sizes.text_rows, device)


def image_blocks(
    images: StoredPool, only: np.ndarray | None, sizes: Sizes, device: str
) -> Iterator[tuple[np.ndarray, Float[Tensor, "b e"]]]:
    """(numbers, unit rows) of the embedded images, of all or of `only` these; padded like the sentences."""
    total = len(images) if only is None else len(only)
    for start in range(0, total, sizes.image_rows):
        stop = min(start + sizes.image_rows, total)
        rows = np.arange(start, stop) if only is None else only[start:stop]
        values = images.read(start, stop) if only is None else images.take(rows)
        good = is_embedded(values)
        if good.any():
            yield rows[good], padded(values[good], sizes.image_rows, device)


def padded(rows: np.ndarray, count: int, device: str) -> Tensor:
    """Unit rows and zeros below: products of one shape have the same bits wherever a row stands."""
    values = torch.from_numpy(rows).to(device)
    full = torch.zeros(count, rows.shape[1], device=device)
    torch.div(values, torch.linalg.vector_norm(values, dim=1, keepdim=True), out=full[: len(rows)])
    return full


def merge(parts: Sequence[Part]) -> TopK:
    """The top-k of each image over all parts: the same as if they had been one."""
    images, k = len(parts[0].images), parts[0].k
    top = TopK(images, k)
    block = max(1, 2**20 // k)
    for start in range(0, images, block):
        stop = min(start + block, images)
        for part in parts:
            scores, places = (load(part.path(what))[start:stop] for what in ("scores", "places"))
            joined = torch.cat([top.scores[start:stop], torch.from_numpy(scores.copy())], 1)
            both = torch.cat([top.places[start:stop], torch.from_numpy(places.copy())], 1)
            kept, order = joined.sort(dim=1, descending=True, stable=True)
            top.scores[start:stop] = kept[:, :k]
            top.places[start:stop] = both.gather(1, order)[:, :k]
    return top


def best_blocks(parts: Sequence[Part]) -> Iterator[tuple[int, np.ndarray]]:
    """(position of the first, best similarity of each) of all sentences, in order; -inf where one was filtered out."""
    for part in parts:
        yield part.start, load(part.path("best"))

"""Samples of other text shards beside those chosen, such as the class prompts of the tasks one cares for."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.corpus.filters import KEPT, is_embedded, look_at, read_text
from toolkit.corpus.request import Filters, Mix
from toolkit.data.shards import Shard, ShardPath, count_samples, expand_shards, scan_shard
from toolkit.data.stored import StoredPool, stored_for
from toolkit.errors import DataError


@dataclass(frozen=True)
class Mixed:
    """Samples of one `--mix`, in order."""

    number: int
    mix: Mix
    paths: tuple[ShardPath, ...]
    starts: np.ndarray
    places: np.ndarray
    """Numbers of samples over all its shards, ascending, each as often as it is to be there."""
    usable: int
    rows: StoredPool | None
    """Their embeddings, where these are to be written."""
    text_key: str

    def samples(self) -> Iterator[tuple[str, str]]:
        """(key, sentence)."""
        opened: tuple[int, Shard] | None = None
        for key, (number, row) in zip(self.keys(), self._where(), strict=True):
            if opened is None or opened[0] != number:
                opened = number, scan_shard(self.paths[number])
            yield key, read_text(opened[1], row, self.text_key)

    def keys(self) -> Iterator[str]:
        """Number of the mix, shard, row, and which of several times."""
        before, repeat = (-1, -1), 0
        for place in self._where():
            repeat = repeat + 1 if place == before else 0
            before = place
            yield f"mix{self.number}-{place[0]:05d}-{place[1]:07d}-{repeat}"

    def _where(self) -> Iterator[tuple[int, int]]:
        shards = np.searchsorted(self.starts, self.places, side="right") - 1
        return zip(shards.tolist(), (self.places - self.starts[shards]).tolist(), strict=True)


def open_mix(number: int, mix: Mix, text_folder: Path | None, width: int, text_key: str, seed: int) -> Mixed:
    """Decide which samples; a pool smaller than the count is taken several times over, the rest at random.

    `text_folder`: the store that must hold their embeddings; None where nobody needs these. Raises DataError.
    """
    paths = tuple(expand_shards(mix.pattern, asked_by="--mix"))
    rows = StoredPool(stored_for(text_folder, mix.pattern, asked_by="--mix"), width) if text_folder else None
    starts = np.concatenate([[0], np.cumsum(count_samples(paths))]).astype(np.int64)
    good = []
    for path, start in zip(paths, starts.tolist(), strict=False):
        shard = scan_shard(path)
        embedded = is_embedded(rows.read(start, start + shard.count)) if rows else np.ones(shard.count, bool)
        reasons = look_at(shard, embedded, Filters(0, 0), None, text_key)["reason"]
        good.append(np.flatnonzero(reasons == KEPT) + start)
    usable = np.concatenate(good)
    if not len(usable):
        raise DataError(
            f"--mix {mix.pattern} holds no usable sentence in '{text_key}'; correct the pattern or --text-key"
        )
    times, rest = divmod(mix.count, len(usable))
    drawn = np.random.default_rng([seed, 7, number]).choice(usable, rest, replace=False)
    places = np.sort(np.concatenate([np.repeat(usable, times), drawn]))
    return Mixed(number, mix, paths, starts, places, len(usable), rows, text_key)

"""Shards behind URLs: which a pattern means, whether they are there, how many samples they have, and their local copies."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import braceexpand

from toolkit import distributed
from toolkit.data.cache import ShardCache
from toolkit.data.index import INDEX_NAME, IndexEntry, parse_index
from toolkit.data.transfer import PACKAGES, Absent, read_small, shown, size_of
from toolkit.errors import DataError

T = TypeVar("T")
THREADS = 8
"""Questions to servers at a time."""
PROBES = 6
"""Shards of a pattern that are looked for where no index lists them: the first, the last, and some between."""
REOPENINGS = 5
CHAINED = ("simplecache", "filecache", "blockcache")


@dataclass(frozen=True)
class RemoteShard:
    """One shard behind a URL; printed without the secrets that a signed URL holds."""

    url: str
    cache: ShardCache = field(default_factory=ShardCache, compare=False)
    entry: IndexEntry | None = field(default=None, compare=False)
    """What the `index.json` beside it says of it; None where there is none."""

    @property
    def name(self) -> str:
        """`00017.tar`."""
        return urlsplit(self.url).path.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """`00017`."""
        return Path(self.name).stem

    def resolve(self) -> "RemoteShard":
        """Itself, as a URL is absolute."""
        return self

    def __str__(self) -> str:
        """The URL without password and query."""
        return shown(self.url)


ShardPath = Path | RemoteShard


def shard_at(place: str) -> ShardPath:
    """From how `str(shard.resolve())` wrote it down; a remote one with the default cache."""
    return RemoteShard(place) if "://" in place else Path(place)


def local_file(path: ShardPath) -> Path:
    """The file itself, or the copy of a remote shard, fetched if it is absent; raises DataError."""
    return path.cache.get(path.url, path.entry) if isinstance(path, RemoteShard) else path


def with_local(shard: RemoteShard, action: Callable[[Path], T]) -> T:
    """What `action` makes of the local copy; once more when another process removed it meanwhile to make room."""
    for _ in range(REOPENINGS):
        try:
            return action(local_file(shard))
        except FileNotFoundError:
            continue
    raise DataError(
        f"{shard} was removed from {shard.cache.folder} {REOPENINGS} times before it could be opened: the shards in use do not "
        f"fit into its {shard.cache.max_bytes} bytes; raise data.cache_gigabytes"
    )


def open_remote(shard: RemoteShard, stamp: tuple[int, int]) -> FileIO:
    """The local copy open for reading, which stays readable when it is removed; raises DataError for other content."""
    file = with_local(shard, lambda path: FileIO(path, "rb"))
    found = os.fstat(file.fileno())
    if (found.st_size, found.st_mtime_ns) != stamp:
        file.close()
        raise DataError(
            f"{shard} has other content on its server than when this run began; leave shards in use alone and start again"
        )
    return file


def split_pattern(pattern: str) -> list[str]:
    """The parts that `::` joins, but not at that of an IPv6 address in brackets; raises DataError for chained URLs."""
    parts = re.split(r"::(?![^\[\]]*\])", pattern)
    for part in parts:
        if part in CHAINED:
            raise DataError(
                f"{part}:: is a chained URL of fsspec, which is not supported: every remote shard is cached by itself "
                "(data.cache_dir); leave it away"
            )
    return parts


def is_remote(part: str, *, asked_by: str) -> bool:
    """Is it a URL; raises DataError for one of a scheme that is not read, such as `pipe:`, which would run a shell."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)(://)|(pipe):", part)
    if scheme is None:
        return False
    if (scheme[1] or "").lower() not in PACKAGES:
        raise DataError(
            f"{asked_by}: shards are not read through {scheme[1] or scheme[3]}: (found {shown(part) if scheme[1] else part}); "
            f"known are {', '.join(PACKAGES)}, and paths without a scheme; commands are never run"
        )
    return True


def expand_remote(part: str, *, asked_by: str, cache: ShardCache) -> list[RemoteShard]:
    """Shards of a brace pattern of URLs, or of a folder (ending in `/`) by its `index.json`.

    A few of those that no index lists are looked for on the server. Raises DataError when one of them is not there.
    """
    if part.endswith("/"):
        folders = [f"{folder}{INDEX_NAME}" for folder in braceexpand.braceexpand(part)]
        return [shard for folder in folders for shard in listed(folder, asked_by=asked_by, cache=cache)]
    urls = list(braceexpand.braceexpand(part))
    indexes = read_indexes({index_of(url) for url in urls})
    shards = []
    for url in urls:
        named = RemoteShard(url, cache)
        shards.append(RemoteShard(url, cache, indexes[index_of(url)].get(named.name)))
    unlisted = [shard for shard in shards if shard.entry is None]
    probed = spread(unlisted, PROBES)
    missing = [absent for absent in in_threads(absence, probed) if absent]
    if missing:
        raise DataError(
            f"{asked_by}={shown(part)}: {len(missing)} of the {len(probed)} shards that were looked for (of {len(shards)}) are "
            f"not to be had, the first: {missing[0]}"
        )
    return shards


def listed(index: str, *, asked_by: str, cache: ShardCache) -> list[RemoteShard]:
    """The shards of an `index.json` in order of their names; raises DataError where it is absent or empty."""
    content = read_small(index)
    entries = {} if content is None else parse_index(content, where=shown(index))
    if not entries:
        raise DataError(
            f"{asked_by}={shown(index).removesuffix(INDEX_NAME)}: the folder has no {INDEX_NAME} that lists its shards, and "
            "servers do not list folders; upload it, or name the shards, for example .../{00000..00042}.tar"
        )
    strange = [name for name in entries if "/" in name or name in ("", ".", "..")]
    if strange:
        raise DataError(f"{shown(index)} lists {strange[0]!r}, which is no name of a file in its folder; make it anew")
    folder = index.removesuffix(INDEX_NAME)
    return [RemoteShard(f"{folder}{name}", cache, entries[name]) for name in sorted(entries)]


def index_of(url: str) -> str:
    """URL of the `index.json` beside a shard; a query (a token for the folder) goes along."""
    parts = urlsplit(url)
    folder = parts.path.rpartition("/")[0]
    return urlunsplit((parts.scheme, parts.netloc, f"{folder}/{INDEX_NAME}", parts.query, ""))


def read_indexes(urls: set[str]) -> dict[str, dict[str, IndexEntry]]:
    """Each once; empty where a folder has none."""
    ordered = sorted(urls)
    contents = in_threads(read_small, ordered)
    return {
        url: {} if content is None else parse_index(content, where=shown(url))
        for url, content in zip(ordered, contents, strict=True)
    }


def absence(shard: RemoteShard) -> str:
    """Why a shard is not to be had; empty where the server has it."""
    try:
        size_of(shard.url)
    except Absent as absent:
        return str(absent)
    return ""


def spread(shards: Sequence[RemoteShard], most: int) -> list[RemoteShard]:
    """The first, the last, and some evenly between."""
    if len(shards) <= most:
        return list(shards)
    return [shards[round(k * (len(shards) - 1) / (most - 1))] for k in range(most)]


def in_threads(action: Callable[..., T], values: Sequence[object]) -> list[T]:
    """`action` of each value, several at a time, in order."""
    if not values:
        return []
    with ThreadPoolExecutor(min(THREADS, len(values))) as pool:
        return list(pool.map(action, values))


def count_remote(shards: Sequence[RemoteShard], scan: Callable[[RemoteShard], int]) -> list[int]:
    """Samples per shard: from its index, from an earlier count of as many bytes, else by fetching it and `scan`."""
    counts = {shard: shard.entry.samples for shard in shards if shard.entry is not None}
    unlisted = list(dict.fromkeys(shard for shard in shards if shard not in counts))
    counts |= dict(zip(unlisted, in_threads(counted_before, unlisted), strict=True))
    todo = [shard for shard in unlisted if not counts[shard]]
    for line, shard in progress(todo):
        if line:
            distributed.say(line)
        counts[shard] = scan(shard)
        shard.cache.note_samples(shard.url, counts[shard])
    return [counts[shard] for shard in shards]


def counted_before(shard: RemoteShard) -> int:
    """Samples if they were counted and the server still has as many bytes, else 0; a copy of other bytes is dropped."""
    note = shard.cache.note_of(shard.url)
    if note is None:
        return 0
    size = size_of(shard.url)
    if size is not None and size != note.bytes:
        shard.cache.forget(shard.url)
        return 0
    return note.samples


def progress(shards: Sequence[RemoteShard]) -> Iterator[tuple[str, RemoteShard]]:
    """Each shard, with a line to say before it or an empty one."""
    for number, shard in enumerate(shards):
        line = ""
        if number == 0:
            line = (
                f"counting {len(shards)} remote shards that no {INDEX_NAME} lists, from {shard}: each is fetched for it once "
                f"(upload the {INDEX_NAME} of `dime shards` to spare this)"
            )
        elif number % max(1, len(shards) // 10) == 0:
            line = f"counted {number} of {len(shards)} remote shards"
        yield line, shard

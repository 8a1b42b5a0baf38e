"""A bounded folder of files fetched from URLs, shared by all processes of a node; the least recently used leave first."""

import errno
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from io import RawIOBase
from pathlib import Path
from urllib.parse import urlsplit

from toolkit import config
from toolkit.data.handles import OPEN
from toolkit.data.index import IndexEntry, write_aside
from toolkit.data.transfer import Mismatch, incoming, shown, with_attempts
from toolkit.errors import DataError

GIGABYTE = 10**9
STEP = 64 << 20
"""Bytes that are reserved at a time where the server does not say how many will come."""
ROOM_SECONDS = 600.0
"""How long a fetch waits for others to end when their files fill the cache."""
FULL_SECONDS = 20.0
"""How long a fetch looks for room on a full disk."""


def default_folder() -> Path:
    """`~/.cache/dime/shards`, under XDG_CACHE_HOME where that is set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dime" / "shards"


@dataclass(frozen=True)
class ShardCache:
    """Where fetched shards lie and how much they may take together.

    Per URL `<sha256 of the URL>-<name>`, and a note under `notes/` (bytes, sha256, samples once they were counted) which stays
    when the file leaves. A file's time of change follows from its content, its time of access is that of its last use.
    """

    folder: Path = field(default_factory=default_folder)
    max_bytes: int = 50 * GIGABYTE

    def place_of(self, url: str) -> Path:
        """Where the file of a URL lies when it is there."""
        name = re.sub(r"[^\w.-]", "_", urlsplit(url).path.rpartition("/")[2], flags=re.ASCII)[-100:]
        return self.folder / f"{hashlib.sha256(url.encode()).hexdigest()}-{name}"

    def _note_place(self, url: str) -> Path:
        return self.folder / "notes" / f"{self.place_of(url).name}.json"

    def get(self, url: str, expected: IndexEntry | None = None) -> Path:
        """The file of a URL, fetched if it is absent or not as `expected`; of several processes one fetches.

        It may be removed as soon as this returns, when others need the room. Raises DataError.
        """
        with self._local():
            found = self._present(url, expected)
            if found is None:
                with self._locked(self._lock_of(self.place_of(url))):
                    found = self._present(url, expected) or self._fetch(url, expected)
        return found

    def note_of(self, url: str) -> IndexEntry | None:
        """What is known of a URL that was fetched at some time; `samples` is 0 where nobody has counted."""
        try:
            entry = json.loads(self._note_place(url).read_bytes())
            return IndexEntry(int(entry["bytes"]), int(entry["samples"]), str(entry["sha256"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def note_samples(self, url: str, samples: int) -> None:
        """Remember the count, so that the shard need not be fetched for it again."""
        note = self.note_of(url)
        if note is not None:
            self._write_note(url, replace(note, samples=samples))

    def forget(self, url: str) -> None:
        """Remove file and note: they are of another content than the server has now."""
        self.place_of(url).unlink(missing_ok=True)
        self._note_place(url).unlink(missing_ok=True)

    def _write_note(self, url: str, note: IndexEntry) -> None:
        content = {"url": shown(url), "bytes": note.bytes, "sha256": note.sha256, "samples": note.samples}
        with self._local():
            place = self._note_place(url)
            place.parent.mkdir(parents=True, exist_ok=True)
            write_aside(place, json.dumps(content) + "\n")

    def _present(self, url: str, expected: IndexEntry | None) -> Path | None:
        """The file if it is there and whole, marked as used just now."""
        place, note = self.place_of(url), self.note_of(url)
        try:
            found = place.stat()
            if note is None or found.st_size != note.bytes or (expected and complaint(note, expected)):
                return None
            with suppress(PermissionError):  # another user's: it may leave earlier than it should
                os.utime(place, ns=(time.time_ns(), found.st_mtime_ns))
        except FileNotFoundError:
            return None
        return place

    def _fetch(self, url: str, expected: IndexEntry | None) -> Path:
        """Download beside and rename; what is not as announced is fetched once more. The URL's lock is held."""
        place = self.place_of(url)
        aside = place.with_name(f".{place.name}.part")
        try:
            for attempt in (1, 2):
                try:
                    note = with_attempts(url, lambda: self._download(url, aside, expected))
                    break
                except Mismatch as mismatch:
                    if attempt == 2:
                        raise DataError(
                            f"{shown(url)}: {mismatch}, twice; upload the shard again, or make the index.json beside it anew"
                        ) from None
                    print(f"{shown(url)}: {mismatch}; it is fetched once more", flush=True)
            now = time.time_ns()
            os.utime(aside, ns=(now, (int(note.sha256[:8], 16) >> 1) * 10**9))
            place.unlink(missing_ok=True)  # before the note changes: a file never stands beside another's note
            self._write_note(url, note)
            aside.replace(place)
        finally:
            aside.unlink(missing_ok=True)
        return place

    def _download(self, url: str, aside: Path, expected: IndexEntry | None) -> IndexEntry:
        """One attempt; raises Mismatch."""
        digest, done = hashlib.sha256(), 0
        with incoming(url) as (announced, chunks):
            if expected and announced is not None and announced != expected.bytes:
                raise Mismatch(f"the server has {announced} bytes, index.json says {expected.bytes}")
            reserved = announced or (expected.bytes if expected else min(STEP, self.max_bytes))
            with self._local():
                aside.touch()
                self._make_room(url, aside, reserved)
            with aside.open("r+b", buffering=0) as file:
                for data in chunks:
                    digest.update(data)
                    done += len(data)
                    with self._local():
                        if done > reserved:
                            reserved = max(done, min(done + STEP, self.max_bytes))
                            self._make_room(url, aside, reserved)
                        self._put(file, data, aside)
                with self._local():
                    file.truncate()
        if announced is not None and done != announced:
            raise Mismatch(f"the server announced {announced} bytes and sent {done}")
        note = IndexEntry(done, 0, digest.hexdigest())
        if expected and (wrong := complaint(note, expected)):
            raise Mismatch(wrong)
        known = expected or self.note_of(url)
        return replace(note, samples=known.samples) if known and not complaint(note, known) else note

    def _put(self, file: RawIOBase, data: bytes, aside: Path) -> None:
        """Write all of `data`; a disk that others have filled gets room from the shards that are here."""
        left = memoryview(data)
        deadline = time.monotonic() + FULL_SECONDS
        while left:  # an unbuffered write may take less than it is given
            try:
                left = left[file.write(left) or 0 :]
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or time.monotonic() > deadline:
                    raise
                if not self._drop_oldest(aside):
                    time.sleep(0.2)  # what other processes hold open takes its room until they open something else

    def _drop_oldest(self, aside: Path) -> bool:
        """Remove the file that was not used for longest; False where there is none."""
        with self._locked("room"):
            for _, _, path in self._files(aside)[1]:
                path.unlink(missing_ok=True)
                OPEN.drop_removed()
                print(f"the disk of {self.folder} is full: {path.name} is removed from the cache", flush=True)
                return True
        return False

    def _make_room(self, url: str, aside: Path, size: int) -> None:
        """Let `aside` have `size` bytes, after removing what was not used for longest; raises DataError."""
        if size > self.max_bytes:
            raise DataError(
                f"{shown(url)} ({size} bytes) is larger than the whole cache ({self.max_bytes} bytes in {self.folder}); raise "
                "data.cache_gigabytes"
            )
        deadline = time.monotonic() + ROOM_SECONDS
        while True:
            with self._locked("room"):
                if self._evict(aside, self.max_bytes - size):
                    os.truncate(aside, size)  # sparse: it counts from now on, and takes no disk yet
                    return
            if time.monotonic() > deadline:
                raise DataError(
                    f"{shown(url)} ({size} bytes) found no room in {self.folder} for {ROOM_SECONDS:.0f} s: other processes are "
                    f"fetching into all of its {self.max_bytes} bytes; raise data.cache_gigabytes or lower workers"
                )
            time.sleep(0.2)

    def _evict(self, aside: Path, most: int) -> bool:
        """Remove files until the others than `aside` take `most` bytes; False where files being fetched take more."""
        fetched, files = self._files(aside)
        total = fetched + sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= most:
                break
            path.unlink(missing_ok=True)
            total -= size
        OPEN.drop_removed()
        return total <= most

    def _files(self, aside: Path) -> tuple[int, list[tuple[int, int, Path]]]:
        """Bytes being fetched by others than `aside`; last use, size and path of each file, the least recently used first."""
        files: list[tuple[int, int, Path]] = []
        fetched = 0
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                found = path.stat()
                if path == aside or not path.is_file():
                    continue
                if path.name.startswith("."):
                    if self._is_fetched(path):
                        fetched += found.st_size
                    else:  # of a process that was killed
                        path.unlink()
                    continue
                files.append((found.st_atime_ns, found.st_size, path))
        return fetched, sorted(files)

    def _is_fetched(self, part: Path) -> bool:
        """Is a process writing it: then it holds the lock."""
        with self._locked(self._lock_of(part), wait=False) as free:
            return not free

    def _lock_of(self, path: Path) -> str:
        """One of 4096 names; two URLs that share one wait for each other."""
        return path.name.removeprefix(".")[:3]

    @contextmanager
    def _locked(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold one of the cache's locks, which the kernel frees when its process dies; False where it was not free."""
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            try:
                yield True
            finally:
                fcntl.flock(handle, fcntl.LOCK_UN)
        finally:
            os.close(handle)

    @contextmanager
    def _local(self) -> Iterator[None]:
        """Errors of this machine's disk, which are no reason to ask the server again."""
        try:
            yield
        except OSError as error:
            raise DataError(
                f"the cache of shards {self.folder} cannot be written ({error.strerror or error}); set data.cache_dir to a "
                "folder on a local disk with room, or lower data.cache_gigabytes"
            ) from error


def complaint(found: IndexEntry, expected: IndexEntry) -> str:
    """How a file differs from its entry in `index.json`; empty where it does not."""
    if found.bytes != expected.bytes:
        return f"found {found.bytes} bytes, index.json says {expected.bytes}"
    if expected.sha256 and found.sha256 != expected.sha256:
        return f"found the sha256 {found.sha256[:12]}..., index.json says {expected.sha256[:12]}..."
    return ""


def cache_of(data: config.Data) -> ShardCache:
    """The cache that a run asks for."""
    folder = Path(data.cache_dir).expanduser() if data.cache_dir else default_folder()
    return ShardCache(folder, int(data.cache_gigabytes * GIGABYTE))

"""The folders a run writes to: writable by every rank, with room, at what speed, and the same folder on every node."""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from toolkit.config import Run, shards_of
from toolkit.data.cache import GIGABYTE, cache_of
from toolkit.doctor.check import Check, Context, Facts, Row, gibibytes

BYTES = 64 << 20
SLOW_BYTES_PER_SECOND = 30e6
"""A checkpoint of a ViT-B/32 (1.8 GB) would take a minute."""
SEEN_WITHIN_SECONDS = 15.0
LATE_SECONDS = 5.0
PREFIX = ".doctor-"


def folders_of(run: Run) -> dict[str, Path]:
    """By config path: where the run writes."""
    found = {"out_dir": Path(run.out_dir)}
    patterns = [run.data.pairs, *(shards_of(run.data, kind) for kind in ("images", "texts"))]
    patterns += [chosen.shards for chosen in run.evaluation.sets.values()]
    if run.data.cache_dir or any("://" in pattern for pattern in patterns):
        found["data.cache_dir"] = cache_of(run.data).folder
    if run.teacher.store and run.teacher.in_memory:
        found["teacher.store"] = Path(run.teacher.store)
    return found


def measure(context: Context) -> dict[str, Any]:
    """For each folder what writing to it came to; only the first rank of a host measures speed."""
    found = {}
    for name, folder in folders_of(context.run).items():
        size = BYTES if context.is_first_here() else 1
        try:
            found[name] = {"folder": str(folder), **speed(folder, f"{PREFIX}{context.nonce}-{context.rank}", size)}
        except OSError as error:
            found[name] = {"folder": str(folder), "error": error.strerror or str(error)}
    return found


def speed(folder: Path, name: str, size: int) -> dict[str, Any]:
    """Write `size` bytes, flush them to the disk, read them back past the page cache; bytes per second of both."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    block = os.urandom(min(size, 1 << 20))
    try:
        start = time.perf_counter()
        with open(path, "wb", buffering=0) as file:
            for _ in range(size // len(block)):
                left = memoryview(block)
                while left:
                    left = left[file.write(left) :]
            os.fsync(file.fileno())
            written = time.perf_counter() - start
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        with open(path, "rb", buffering=0) as file:
            same = all(file.read(len(block)) == block for _ in range(size // len(block)))
        read = time.perf_counter() - start
        free = shutil.disk_usage(folder).free
    finally:
        path.unlink(missing_ok=True)
    return {
        "taken": taken_by(folder),
        "write": size / written,
        "read": size / read,
        "same": same,
        "free": free,
        "measured": size > 1,
    }


def taken_by(folder: Path) -> int:
    """Bytes of the files that lie in it now; other ranks write and remove theirs meanwhile."""
    total = 0
    for path in folder.iterdir():
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def judge(found: Facts, context: Context) -> list[Row]:
    """A row per folder and host, and one per reason why it cannot be written."""
    rows = []
    for name in dict.fromkeys(name for facts in found.values() for name in facts):
        reasons: dict[tuple[str, str], list[int]] = {}
        for rank, facts in found.items():
            if "error" in facts[name]:
                reasons.setdefault((facts[name]["folder"], facts[name]["error"]), []).append(rank)
                continue
            if not facts[name]["same"]:
                reasons.setdefault((facts[name]["folder"], "other bytes came back than were written"), []).append(rank)
            elif facts[name]["measured"]:
                rows.append(measured(name, facts[name], context.where([rank])))
                if name == "data.cache_dir":
                    rows.append(cache_room(context.run, facts[name], context.where([rank])))
        rows += [
            Row(
                f"{name}={folder}", context.where(ranks), why, "a folder that can be written", "bad",
                f"give these nodes a disk with room and the right to write there, or set another {name}",
            )
            for (folder, why), ranks in reasons.items()
        ]  # fmt: skip
    return rows


def measured(name: str, facts: Any, where: str) -> Row:
    """How fast a folder is on a host."""
    shown = f"written {facts['write'] / 1e6:,.0f} MB/s with fsync, read {facts['read'] / 1e6:,.0f} MB/s, {gibibytes(facts['free'])} free"
    slow = facts["write"] < SLOW_BYTES_PER_SECOND
    todo = f"checkpoints will take long: set {name} to a faster disk" if slow else ""
    wanted = f"{SLOW_BYTES_PER_SECOND / 1e6:.0f} MB/s"
    return Row(f"{name}={facts['folder']}", where, shown, wanted, "warn" if slow else "good", todo)


def cache_room(run: Run, facts: Any, where: str) -> Row:
    """May the copies of remote shards take what they are allowed to."""
    wanted, has = run.data.cache_gigabytes * GIGABYTE, facts["free"] + facts["taken"]
    about = f"data.cache_gigabytes={run.data.cache_gigabytes:g}"
    shown = f"{has / GIGABYTE:,.1f} GB free or filled with copies"
    if has >= wanted:
        return Row("room for copies", where, shown, about)
    return Row("room for copies", where, shown, about, "bad", "lower it to what the disk has, or set data.cache_dir")


def show(context: Context) -> None:
    """Rank 0 writes what the others look for."""
    folder = Path(context.run.out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{PREFIX}{context.nonce}", "w") as file:
        file.write(context.nonce)
        file.flush()
        os.fsync(file.fileno())


def look(context: Context) -> float | None:
    """Seconds until rank 0's file was here, None where it did not come."""
    path, start = Path(context.run.out_dir) / f"{PREFIX}{context.nonce}", time.monotonic()
    most = min(SEEN_WITHIN_SECONDS, context.limit or SEEN_WITHIN_SECONDS)
    while True:
        with suppress(OSError):
            os.listdir(path.parent)  # NFS looks at a folder anew when it is listed
            if path.read_text() == context.nonce:
                return time.monotonic() - start
        if time.monotonic() - start > 0.8 * most:
            return None
        time.sleep(0.1)


def judge_shared(found: Facts, context: Context) -> list[Row]:
    """One row for the ranks that saw it, one for those that did not."""
    what = f"out_dir={context.run.out_dir}"
    blind = [rank for rank, seconds in found.items() if seconds is None]
    seen = {rank: seconds for rank, seconds in found.items() if seconds is not None}
    rows = []
    if blind:
        rows.append(
            Row(
                what, context.where(blind), "a file that rank 0 wrote is not there", "one folder for all nodes", "bad",
                "set out_dir to a folder on a file system that all nodes mount, by its absolute path",
            )
        )  # fmt: skip
    if seen:
        slowest = max(seen.values())
        verdict, todo = (
            ("warn", "files appear late (NFS caching): mount it with a small actimeo")
            if slowest > LATE_SECONDS
            else ("good", "")
        )
        shown = f"rank 0's file seen after {slowest:.1f} s"
        rows.append(Row(what, context.where(seen), shown, f"within {LATE_SECONDS:g} s", verdict, todo))  # type: ignore[arg-type]
    return rows


def clean(context: Context) -> None:
    """Remove what rank 0 wrote."""
    with suppress(OSError):
        (Path(context.run.out_dir) / f"{PREFIX}{context.nonce}").unlink(missing_ok=True)


CHECK = Check("disk", "writing to out_dir and the cache", measure, judge, seconds=180.0)
SHARED = Check("shared", "is out_dir one folder for all nodes", look, judge_shared, seconds=60.0, before=show)

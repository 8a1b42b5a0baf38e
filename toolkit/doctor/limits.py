"""What data workers need of a host: shared memory, open files, cores."""

import os
import resource
from pathlib import Path
from typing import Any

from toolkit.config import shards_of
from toolkit.doctor.check import Check, Context, Facts, Row, gibibytes

SHARED = Path("/dev/shm")
QUOTA = Path("/sys/fs/cgroup/cpu.max")
PREFETCHED = 3
"""Batches per worker that lie in shared memory at a time: two fetched ahead and one being filled."""
FILES = 512
"""Open files of a rank without workers: shards, stores, libraries, sockets."""
FILES_PER_BATCH = 6
SIDE = 224
"""Of pictures, where the models did not come to be."""


def measure(context: Context) -> dict[str, Any]:
    """What there is, and what this rank will want of it."""
    run = context.run
    streams = 1 if run.data.pairs else 1 + bool(shards_of(run.data, "texts"))
    batches = run.workers * PREFETCHED
    found = os.statvfs(SHARED) if SHARED.is_dir() else None
    return {
        "shared": found and found.f_bavail * found.f_frsize,
        "shared_wanted": batches * batch_bytes(context),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "files_wanted": FILES + streams * batches * FILES_PER_BATCH,
        "cores": sorted(os.sched_getaffinity(0)),
        "quota": quota(),
        "cores_wanted": run.workers * streams + 1,
        "workers": run.workers,
    }


def batch_bytes(context: Context) -> int:
    """Of one step's samples on this rank, as workers hand them over."""
    data, batch = context.run.data, context.batch
    built = context.kept.get("models")
    sides = [SIDE] * 2
    if built is not None:
        live = [one for name, one in built.imitated.items() if not context.run.teacher.store or name != "teacher"]
        sides = [one.preprocess.image_size for one in (built.student, *live)]
    pictures = sum(3 * side**2 for side in sides) * batch.global_images // batch.world_size
    texts = batch.global_images if data.pairs else batch.global_texts
    return pictures + texts // batch.world_size * 77 * 8


def quota() -> float | None:
    """Cores that the control group may use, None for no limit."""
    try:
        most, period = QUOTA.read_text().split()
        return None if most == "max" else int(most) / int(period)
    except (OSError, ValueError):
        return None


def judge(found: Facts, context: Context) -> list[Row]:
    """Rows per host and kind."""
    rows = []
    for host in dict.fromkeys(context.hosts[rank] for rank in found):
        here = {rank: facts for rank, facts in found.items() if context.hosts[rank] == host}
        where = context.where(here)
        rows += [shared_memory(here, where), open_files(here, where), cores(here, where)]
    return rows


def shared_memory(here: Facts, where: str) -> Row:
    """Of all ranks of a host together: a worker that finds none dies of a bus error."""
    wanted = sum(facts["shared_wanted"] for facts in here.values())
    free = min((facts["shared"] for facts in here.values() if facts["shared"] is not None), default=None)
    if free is None:
        return Row(f"{SHARED}", where, "not there", "a file system in memory", "bad", "mount a tmpfs there")
    about = f"{gibibytes(wanted)} for prefetched batches"
    if free >= wanted:
        return Row(f"{SHARED}", where, f"{gibibytes(free)} free", about)
    todo = "raise it (docker --shm-size, mount -o remount,size=...), or lower workers or data.global_batch_size"
    return Row(f"{SHARED}", where, f"{gibibytes(free)} free", about, "bad", todo)


def open_files(here: Facts, where: str) -> Row:
    """Every shard and every tensor between processes is one."""
    limit, wanted = min(f["files"] for f in here.values()), max(f["files_wanted"] for f in here.values())
    if limit in (resource.RLIM_INFINITY, -1) or limit >= wanted:
        return Row("open files", where, "no limit" if limit < 0 else f"{limit:,}", f"{wanted:,}")
    return Row(
        "open files", where, f"{limit:,}", f"{wanted:,}", "bad", "`ulimit -n 65536` before the run, or fewer workers"
    )


def cores(here: Facts, where: str) -> Row:
    """Per rank of a host."""
    together = len({core for facts in here.values() for core in facts["cores"]})
    limits = [facts["quota"] for facts in here.values() if facts["quota"]]
    each = min([float(together), *limits]) / len(here)
    wanted = max(facts["cores_wanted"] for facts in here.values())
    workers = next(iter(here.values()))["workers"]
    about = f"{wanted} for workers={workers}"
    if each >= 1 and each >= wanted:
        return Row("cores per rank", where, f"{each:g}", about)
    todo = "ask for more (--cpus-per-task), or lower workers; `dime profile data` says how many a GPU needs"
    return Row("cores per rank", where, f"{each:.1f}", about, "warn", todo)


CHECK = Check("limits", "shared memory, open files, cores", measure, judge)

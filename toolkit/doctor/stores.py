"""The stores of teacher embeddings that a run reads: of this teacher and view, complete where nobody can fill them."""

import shutil
from pathlib import Path
from typing import Any

from toolkit.config import Teacher as TeacherConfig
from toolkit.data.cache import cache_of
from toolkit.data.shards import count_samples, expand_shards
from toolkit.doctor.check import Check, Context, Facts, Row, gibibytes
from toolkit.embed.fill import missing
from toolkit.embed.pool import pools, weight_hash
from toolkit.embed.prepare import complete_stores, recorded_views, store_of, teacher_config
from toolkit.embed.verify import spot_check
from toolkit.errors import ToolkitError
from toolkit.models import StoredTeacher, Teacher
from toolkit.train import Models

EMBED = "embed with this teacher into another folder, or set teacher.store to the one that is meant"
STORED_BYTES = 4
"""Per number, as a run stores what it embeds itself."""


def measure(context: Context) -> list[dict[str, Any]] | None:
    """Rows as dictionaries, on the first rank of each host."""
    models: Models = context.kept["models"]
    if not context.is_first_here():
        return None
    rows = []
    for name, teacher in models.imitated.items():
        chosen = teacher_config(context.run, name)
        if chosen.store:
            rows += looked_at(context, name, chosen, teacher, "text" in models.losses.needs)
    return rows


def looked_at(
    context: Context, name: str, chosen: TeacherConfig, teacher: Teacher, reads_text: bool
) -> list[dict[str, Any]]:
    """Of one teacher."""
    what = f"{'teacher' if name == 'teacher' else f'extra_teachers.{name}'}.store={chosen.store}"
    try:
        if isinstance(teacher, StoredTeacher):
            stores = complete_stores(context.run, chosen.store, teacher, reads_text)
            return [{"what": what, "found": f"complete: {' and '.join(stores)}"}]
        return [{"what": what} | row for row in filled(context, chosen.store, teacher, reads_text)]
    except ToolkitError as error:
        return [{"what": what, "found": str(error), "verdict": "bad", "todo": EMBED}]


def filled(context: Context, folder: str, teacher: Teacher, reads_text: bool) -> list[dict[str, Any]]:
    """What of it is there; raises DataError where it is another teacher's or its rows are not what this one makes."""
    rows, weights = [], weight_hash(teacher)
    for kind, pool in pools(context.run, teacher, reads_text, recorded_views(context.run, folder, teacher)).items():
        store = store_of(folder, teacher, kind, pool, weights)
        paths = expand_shards(pool.pattern, asked_by=pool.asked_by, cache=cache_of(context.run.data))
        counts = count_samples(paths)
        todo = list(missing(store, paths, counts))
        lacking = {path for path, _ in todo}
        done = [path for path in paths if path not in lacking]
        if done:
            spot_check(store, done[0], pool)
        size = sum(count for _, count in todo) * teacher.embed_dim * STORED_BYTES * (store.views if done else 1)
        row: dict[str, Any] = {"found": f"{kind}: {len(done):,} of {len(paths):,} shards"}
        if todo:
            free = free_at(Path(folder))
            row["found"] += f", the rest is embedded at the start ({gibibytes(size)}), {gibibytes(free)} free"
            row |= {"wanted": "room for it"}
            if free < size:
                row |= {"verdict": "bad", "todo": "make room, or set teacher.store to a folder on a larger disk"}
        else:
            row["found"] += ", some compared with the live teacher"
        rows.append(row)
    return rows


def free_at(folder: Path) -> int:
    """Bytes on the disk where it is or will be."""
    return shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free


def judge(found: Facts, context: Context) -> list[Row]:
    """Each row once, with the hosts that see it so."""
    seen: dict[tuple[tuple[str, Any], ...], list[int]] = {}
    for rank, rows in found.items():
        for row in rows or []:
            seen.setdefault(tuple(row.items()), []).append(rank)
    if not seen:
        return [Row("teacher.store", context.where(found), "the run has none: the teacher runs at every step")]
    return [Row(where=context.where(ranks), **dict(row)) for row, ranks in seen.items()]


CHECK = Check("store", "stored embeddings are of this teacher", measure, judge, seconds=1800.0, needs=("models",))

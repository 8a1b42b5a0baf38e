"""Sources -> shards in four steps, each of which a killed run takes up where it stopped: list, scan, plan, pack."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toolkit.data.convert import parquet_file, tsv
from toolkit.data.convert.features import FeatureFiles, open_features
from toolkit.data.convert.finish import finish
from toolkit.data.convert.job import Job
from toolkit.data.convert.keep import kept_fields
from toolkit.data.convert.pack import Packing, pack_unit
from toolkit.data.convert.picture_job import PictureJob, reader_of
from toolkit.data.convert.pictures import PictureOptions
from toolkit.data.convert.plan import Piece, load_pieces, make_plan, scan_piece
from toolkit.data.convert.pool import run_all
from toolkit.data.convert.progress import Progress
from toolkit.data.convert.sources import Source, check_kept, recognise_pictures
from toolkit.data.convert.workspace import Workspace
from toolkit.data.index import write_aside
from toolkit.errors import ConfigError


class Stored(NamedTuple):
    """Stored features among the sources: whose they are and where they go."""

    files: Sequence[str] = ()
    teacher: str = ""
    folder: str = ""

    def check(self, out: Path) -> "Stored":
        """With the folder filled in; raises ConfigError when nobody said which teacher made the features."""
        if self.files and not self.teacher:
            raise ConfigError(
                f"{len(self.files)} files of stored features were given ({self.files[0]} ...), and nothing in them says whose "
                "they are; give --teacher-name, for example --teacher-name ViT-L-14-quickgelu/openai, or leave them out"
            )
        if self.teacher and not self.files:
            raise ConfigError("--teacher-name was given, but no file of stored features (*.feat.tsv) among the SRC")
        return self._replace(folder=self.folder or str(out / "teacher_store")) if self.files else Stored()


def convert_images(
    words: Sequence[str],
    out: Path,
    options: PictureOptions,
    *,
    workers: int = 1,
    forced: str = "",
    column: str = "",
    teacher: str = "",
    store: str = "",
) -> dict[str, Any]:
    """Pictures of the SRC words into shards at `out`; returns the report. Raises DataError and ConfigError."""
    wanted = kept_fields(options.keep)
    sources, features = recognise_pictures(words, forced, column)
    check_kept(sources, wanted)

    def job(work: Workspace) -> Job:
        return PictureJob(tuple(sources), options, work.lists)

    return convert(job, out, workers, Stored(features, teacher, store))


def convert(make_job: Callable[[Workspace], Job], out: Path, workers: int, stored: Stored) -> dict[str, Any]:
    """List, scan, plan, pack, finish. The number of workers changes nothing in what is written."""
    stored = stored.check(out)
    job = make_job(Workspace(out, {}))
    work = Workspace(out, request_of(job, stored))
    if (report := work.finished()) is not None:
        work.remove()
        return report
    reader_of.cache_clear()
    tsv.opened.cache_clear()
    parquet_file.rows_of.cache_clear()
    with work.opened():
        pieces = list_all(job, work, workers)
        scan_all(job, work, pieces, workers)
        features = open_features(list(stored.files), work.lists)
        if features is not None:
            for _ in run_all(features.index, range(len(features.paths)), workers):
                pass
        samples = make_plan(job, work, pieces)
        pack_all(job, work, samples, features, workers)
        return finish(job, work, pieces, -(-samples // job.samples_per_shard), features, stored.teacher, stored.folder)


def request_of(job: Job, stored: Stored) -> dict[str, Any]:
    """What a continuation must have in common with the run that was killed."""
    request: dict[str, Any] = {"version": 1, "what": job.what, "options": job.settings()}
    request["sources"] = [source.stamp() for source in job.sources]
    if stored.files:
        request["features"] = [Source("features", path).stamp() for path in stored.files]
        request["teacher"], request["store"] = stored.teacher, stored.folder
    return request


def list_all(job: Job, work: Workspace, workers: int) -> list[Piece]:
    """`pieces.json`: what there is to convert."""
    done = work.root / "pieces.json"
    if not done.is_file():
        counts: dict[int, list[int]] = {}
        progress = Progress("listed", len(job.sources), "sources")
        for number, found in run_all(job.pieces, range(len(job.sources)), workers):
            counts[number] = found
            progress.add(1)
        progress.close()
        pieces = [(number, piece, n) for number in sorted(counts) for piece, n in enumerate(counts[number])]
        write_aside(done, json.dumps(pieces))
    return load_pieces(work)


def scan_all(job: Job, work: Workspace, pieces: list[Piece], workers: int) -> None:
    """Hash what has not been hashed."""
    todo = [piece for piece in pieces if not (work.scans / f"{piece.stem}.npz").is_file()]
    total = sum(piece.inputs for piece in pieces)
    progress = Progress("scanned", total, job.unit, already=total - sum(piece.inputs for piece in todo))
    for _, count in run_all(partial(scan_piece, job, work.scans), todo, workers):
        progress.add(count)
    progress.close()


def pack_all(job: Job, work: Workspace, samples: int, features: FeatureFiles | None, workers: int) -> None:
    """Write the shards that are not there yet."""
    size = job.samples_per_shard
    units = range(-(-samples // size))
    todo = [unit for unit in units if not (work.shards / f"{unit:06d}.json").is_file()]
    count = np.minimum(size, samples - np.array(todo, np.int64) * size).sum()
    progress = Progress("wrote", samples, job.unit, already=samples - int(count))
    for _, done in run_all(partial(pack_unit, Packing(job, work, features)), todo, workers):
        progress.add(done)
    progress.close()

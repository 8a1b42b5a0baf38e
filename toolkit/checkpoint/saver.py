"""Saves checkpoints: a step waits for a copy to host memory, a thread of each rank writes, rank 0's publishes.

The threads of the ranks meet through files, not collectives: each says in `parts/` what it has written, and rank 0's waits
for all. So nothing crosses the network beside a running step, and a rank that dies in the middle leaves a folder without
its name, which nobody takes for a checkpoint.
"""

import json
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from toolkit import distributed
from toolkit.checkpoint.files import (
    STATE,
    Written,
    aside_of,
    clear_leavings,
    flush,
    folder_of,
    prune,
    publish,
    written,
)
from toolkit.checkpoint.host_copy import captured, write_state
from toolkit.checkpoint.progress import Progress, layout, rng_state
from toolkit.config import Run
from toolkit.data.index import write_aside
from toolkit.engine import gathered_state
from toolkit.errors import CheckpointError
from toolkit.models import Model
from toolkit.models.build import CARD_NAME, WEIGHTS_NAME, write_card

TAG = "deepspeed"
PARTS = "parts"
FAILURES = 2
"""Saves in a row that may fail before the run stops."""
PATIENCE_SECONDS = 600.0
"""How long rank 0 waits for the other ranks' files."""
LAST_CHANCE_SECONDS = 30.0


Work = dict[Path, Callable[[Path], None]]
"""What writes each file, given its path."""


class Saver:
    """One for a launch; `save` is a collective that has at most one checkpoint being written behind it."""

    def __init__(self, run: Run) -> None:
        """A collective; removes what killed launches have left."""
        self.run, self.out_dir = run, Path(run.out_dir)
        self.launch = distributed.broadcast_object(secrets.token_hex(4))
        self.waited = 0.0
        """Seconds that steps have waited for saving, all in all."""
        self._thread: threading.Thread | None = None
        self._error = ""
        self._failures = 0
        if distributed.is_main():
            clear_leavings(self.out_dir)

    def save(self, engine: Any, model: Model, progress: Progress, *, last: bool = False) -> Path:
        """Save from all ranks; with `last` (or checkpoint.background=false) it is complete when this returns.

        A save that fails is said and leaves older ones untouched; raises CheckpointError when it is the second in a row,
        or the last one.
        """
        began = time.monotonic()
        self._settle()
        target = folder_of(self.out_dir, progress.step)
        aside = aside_of(target, self.launch)
        work = self._collected(engine, model, progress, aside)
        copied = time.monotonic() - began
        kept = (progress.best_step, progress.step)
        given = (work, aside, target, kept, copied)
        self._thread = threading.Thread(target=self._write, args=given, name="saving", daemon=True)
        self._thread.start()
        if last or not self.run.checkpoint.background:
            self._settle(last=last)
        self.waited += time.monotonic() - began
        return target

    def close(self) -> None:
        """Give what is being written a last chance; for the way out after an error, when other ranks may be gone."""
        if self._thread is not None:
            self._thread.join(LAST_CHANCE_SECONDS)

    def _settle(self, *, last: bool = False) -> None:
        """Wait for the save before; a collective that says on every rank whether it failed on any."""
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        if distributed.all_true(not self._error):
            self._failures = 0
            return
        self._failures += 1
        reasons = "; ".join(dict.fromkeys(distributed.gather_strings([self._error] if self._error else [])))
        self._error = ""
        if last or self._failures >= FAILURES:
            often = "the last checkpoint" if last else f"{self._failures} checkpoints in a row"
            raise CheckpointError(
                f"{often} could not be saved: {reasons}. Make room (or lower checkpoint.keep_last), then run the same command again: it "
                "goes on from the newest complete checkpoint"
            )

    def _collected(self, engine: Any, model: Model, progress: Progress, aside: Path) -> Work:
        """What this rank is to write, by file; copies, so that training may go on."""
        distributed.average_buffers(model.module)
        with captured(engine) as copy:
            engine.save_checkpoint(str(aside), tag=TAG, save_latest=False)
        work: Work = {path: partial(write_state, state) for path, state in copy.files.items()}
        work[aside / f"rng_{distributed.rank():05d}.safetensors"] = partial(write_safetensors, rng_state())
        student = gathered_state(engine, model.module)
        if distributed.is_main():
            work[aside / WEIGHTS_NAME] = partial(write_safetensors, student)
            teacher = {
                "name": self.run.teacher.name,
                "pretrained": self.run.teacher.pretrained,
                "kwargs": self.run.teacher.kwargs,
            }
            card = partial(write_card, model, self.run.student.kwargs, self.run.student.text_tower, teacher=teacher)
            work[aside / CARD_NAME] = lambda path: card(path.parent)
            state = json.dumps({**layout(engine, self.run), **asdict(progress)}, indent=1)
            work[aside / STATE] = lambda path: write_aside(path, state + "\n")
        return work

    def _write(self, work: Work, aside: Path, target: Path, kept: tuple[int | None, int], copied: float) -> None:
        """In a thread of its own: this rank's files, then on rank 0 the whole checkpoint."""
        began = time.monotonic()
        part = aside / PARTS / f"{distributed.rank():05d}.json"
        try:
            done = {}
            for path, write in work.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path)
                done[str(path.relative_to(aside))] = written(path)
            part.parent.mkdir(parents=True, exist_ok=True)
            write_aside(part, json.dumps({name: vars(file) for name, file in done.items()}))
            if distributed.is_main():
                self._publish(aside, target, kept)
                megabytes = sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / 1e6
                seconds = time.monotonic() - began
                print(
                    f"saved {target} ({megabytes:,.1f} MB; the step waited {copied:.2f} s, writing took {seconds:.1f} s)",
                    flush=True,
                )
        except Exception as error:  # each library below has exceptions of its own; none may pass for a success
            self._failed(error, aside, target, part)

    def _publish(self, aside: Path, target: Path, kept: tuple[int | None, int]) -> None:
        """Wait for all ranks' parts; raises CheckpointError when one failed or does not come."""
        world, parts, until = distributed.world(), aside / PARTS, time.monotonic() + PATIENCE_SECONDS
        while len(found := sorted(parts.glob("*.json"))) < world:
            if time.monotonic() > until:
                raise CheckpointError(
                    f"only {len(found)} of {world} ranks had written their files after {PATIENCE_SECONDS:.0f} s"
                )
            time.sleep(0.02)
        entries = {name: entry for path in found for name, entry in json.loads(path.read_text()).items()}
        if "error" in entries:
            raise CheckpointError(entries["error"])
        shutil.rmtree(parts)
        files = {name: Written(**entry) for name, entry in entries.items()}
        for path in sorted(path for path in aside.rglob("*") if path.is_file()):  # a tokenizer beside its student
            files.setdefault(str(path.relative_to(aside)), written(path))
        for name, file in files.items():  # what another node wrote must be seen from here too
            if (aside / name).stat().st_size != file.bytes:
                raise CheckpointError(
                    f"{name} has {(aside / name).stat().st_size} bytes here, {file.bytes} where it was written"
                )
        for folder in {(aside / name).parent for name in files}:
            flush(folder)
        publish(aside, target, files)
        chosen = self.run.checkpoint
        try:
            prune(self.out_dir, chosen.keep_last, chosen.keep_every_steps, kept)
        except OSError as error:
            print(f"older checkpoints could not be removed: {error}", flush=True)

    def _failed(self, error: Exception, aside: Path, target: Path, part: Path) -> None:
        """Say it, tell rank 0, and leave the older checkpoints alone."""
        reason = described(error, aside)
        self._error = f"rank {distributed.rank()} on {socket.gethostname()}: {reason}"
        print(
            f"checkpoint {target.name} was NOT saved: {self._error}; older ones are untouched",
            flush=True,
        )
        if distributed.is_main():
            shutil.rmtree(aside, ignore_errors=True)
            return
        try:
            write_aside(part, json.dumps({"error": self._error}))
        except OSError:
            return


def write_safetensors(state: dict[str, Any], path: Path) -> None:
    """Contiguous tensors into one file, flushed."""
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    flush(path)


def described(error: Exception, place: Path) -> str:
    """The error, with the room that is left on the disk."""
    there = next(path for path in (place, *place.parents) if path.exists())
    free = shutil.disk_usage(there).free / 1e6
    return f"{error} ({free:,.0f} MB free at {there})"

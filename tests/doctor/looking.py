"""A recipe of the playground, small enough to be looked at in a second, and the doctor on one rank of it in this process."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from launch_ranks import environment, free_port

from toolkit.config import (
    FIELD_PRESETS,
    Batch,
    Data,
    EvalSet,
    Evaluation,
    Optim,
    Run,
    Student,
    Teacher,
    batch_arithmetic,
)
from toolkit.doctor.board import Board
from toolkit.doctor.check import Context, Row
from toolkit.doctor.checks import CHECKS
from toolkit.doctor.turns import Leader
from toolkit.playground.prepare import TEACHER

WORKER = Path(__file__).with_name("worker.py")
RECIPE = """\
from toolkit.config import FIELD_PRESETS, Data, EvalSet, Evaluation, Optim, Run, Student, Teacher
from toolkit.playground.prepare import TEACHER

DEFAULTS = Run(
    out_dir={out!r},
    teacher=Teacher(name=str(TEACHER)),
    student=Student(name="toolkit.playground.towers:scene_student", kwargs=dict(width=8)),
    losses=dict(FIELD_PRESETS["dimefm"]),
    data=Data(images={world!r} + "/train_images", texts={world!r} + "/train_texts", global_batch_size=16),
    optim=Optim(warmup_steps=1),
    steps=10,
    precision="fp32",
    workers=0,
    evaluation=Evaluation(
        sets=dict(
            scenes=EvalSet(shards={world!r} + "/test_classes", classes={world!r} + "/classes.json"),
            captions=EvalSet(shards={world!r} + "/test_pairs", kind="retrieval"),
        )
    ),
)


def main(overrides):
    raise AssertionError("the doctor trains nothing")
"""


def playground_run(world: Path, out_dir: Path) -> Run:
    """The same as RECIPE."""
    return Run(
        out_dir=str(out_dir),
        teacher=Teacher(name=str(TEACHER)),
        student=Student(name="toolkit.playground.towers:scene_student", kwargs={"width": 8}),
        losses=dict(FIELD_PRESETS["dimefm"]),
        data=Data(images=str(world / "train_images"), texts=str(world / "train_texts"), global_batch_size=16),
        optim=Optim(warmup_steps=1),
        steps=10,
        precision="fp32",
        workers=0,
        evaluation=Evaluation(
            sets={
                "scenes": EvalSet(shards=str(world / "test_classes"), classes=str(world / "classes.json")),
                "captions": EvalSet(shards=str(world / "test_pairs"), kind="retrieval"),
            }
        ),
    )


def write_recipe(folder: Path, world: Path) -> Path:
    """RECIPE in a file, its out_dir beside it."""
    path = folder / "recipe.py"
    path.write_text(RECIPE.format(out=str(folder / "run"), world=str(world)))
    return path


def alone(run: Run, **more: Any) -> Context:
    """One rank on `here`."""
    return Context(
        run, batch_arithmetic(run, 1), 0, torch.device("cpu"), {0: "here"}, Board(dist.HashStore(), 0), "nonce", **more
    )


def crew(run: Run, hosts: tuple[str, ...]) -> Context:
    """For judging facts of several ranks."""
    batch = Batch(len(hosts), 4, 4, 4 * len(hosts), 4 * len(hosts), 1)
    return replace(alone(run), batch=batch, hosts=dict(enumerate(hosts)))


def rows_of(run: Run, *names: str, context: Context | None = None, **more: Any) -> list[Row]:
    """Rows of these checks on one rank."""
    leader = Leader(context or alone(run, **more), say=lambda text: None)
    return leader.run([CHECKS[name] for name in names])


def not_good(rows: list[Row]) -> list[Row]:
    """Those that say something."""
    return [row for row in rows if row.verdict != "good"]


def only(rows: list[Row]) -> Row:
    """The one row that is not good."""
    (row,) = not_good(rows)
    return row


@dataclass
class Seen:
    """What ranks of their own processes came to."""

    codes: list[int | None]
    """By rank; None for one that had to be killed."""
    outputs: list[str]
    """stdout and stderr of each."""
    found: dict[str, Any]
    """The last line of rank 0's stdout."""

    def bad(self) -> dict[str, dict[str, Any]]:
        """Bad rows by `check: what`."""
        return {f"{row['check']}: {row['what']}": row for row in self.found["rows"] if row["verdict"] == "bad"}


def look(
    recipe: Path, *words: str, wounds: str = "", world: int = 2, start: int = 2, others: tuple[str, ...] = ()
) -> Seen:
    """The command as `start` of `world` ranks; rank 1 has `wounds` (worker.py) and the words `others`."""
    port = free_port()
    started = []
    for rank in range(start):
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world)}
        env = environment(RANK=str(rank), LOCAL_RANK=str(rank), WOUNDS=wounds if rank else "", **shared)
        command = [sys.executable, str(WORKER), "doctor", str(recipe), "--json", *words, *(others if rank else ())]
        started.append(
            subprocess.Popen(
                command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=recipe.parent
            )
        )
    outputs, codes = [], []
    try:
        first = started[0].communicate(timeout=300)
        outputs.append("".join(first))
        codes.append(started[0].returncode)
        for process in started[1:]:
            try:
                outputs.append("".join(process.communicate(timeout=20)))
                codes.append(process.returncode)
            except subprocess.TimeoutExpired:
                process.kill()
                outputs.append("".join(process.communicate()))
                codes.append(None)
    finally:
        for process in started:
            process.kill()
    last = (first[0].strip().splitlines() or [""])[-1]
    assert last.startswith("{"), "\n".join(outputs)[-4000:]
    return Seen(codes, outputs, json.loads(last))


def environment_of_one() -> dict[str, str]:
    """For the command without a launcher."""
    return environment(PYTHONPATH=os.environ.get("PYTHONPATH", ""))

"""Run by the launcher: trains a tiny student on small shards; every rank notes the samples of each step as it uses them.

usage: killed_worker.py WORLD OUT_DIR NOTES WORKERS
"""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recipes.quickstart import DEFAULTS
from toolkit import distributed
from toolkit.config import Augmentation, Checkpoint, Data, Evaluation, Logging, Run, Student
from toolkit.data.build import Streams
from toolkit.launch import launch
from toolkit.step import Step
from toolkit.train import train

STEPS, EVERY = int(os.environ.get("STEPS", "40")), 3


def run_of(world: Path, out_dir: str, workers: int) -> Run:
    """Drawn crops beside stored sentences and pictures; a checkpoint every three steps."""
    return replace(
        DEFAULTS,
        out_dir=out_dir,
        teacher=replace(DEFAULTS.teacher, store=f"{out_dir}/store"),
        student=Student(name="toolkit.playground.towers:scene_student", kwargs={"width": 8}),
        data=Data(
            images=str(world / "train_images"),
            texts=str(world / "train_texts"),
            global_batch_size=24,
            augmentation=Augmentation(crop_scale=(0.6, 1.0)),
        ),
        optim=replace(DEFAULTS.optim, warmup_steps=5),
        steps=STEPS,
        workers=workers,
        logging=Logging(every_steps=1, tensorboard=False),
        checkpoint=Checkpoint(every_steps=EVERY, keep_last=2),
        evaluation=Evaluation(),
    )


def note_samples(path: str) -> None:
    """A line for each step and rank, written by one call, when the step is computed from these samples."""
    following, computing = Streams.next, Step.forward_backward
    at_hand: dict[str, list[str]] = {}

    def followed(self: Streams) -> Any:
        found = following(self)
        at_hand.update({name: batch.keys for name, batch in found.items()})
        return found

    def computed(self: Step, tensors: Any, number: int, **more: Any) -> Any:
        line = {"step": number, "rank": distributed.rank(), "ranks": distributed.world(), "keys": at_hand}
        os.write(file, (json.dumps(line) + "\n").encode())
        return computing(self, tensors, number, **more)

    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    Streams.next, Step.forward_backward = followed, computed  # type: ignore[method-assign]


def main(words: Sequence[str]) -> None:
    """Train, or go on."""
    world, out_dir, notes, workers = (word for word in words if not word.startswith("--local_rank"))
    note_samples(notes)
    train(run_of(Path(world), out_dir, int(workers)))


if __name__ == "__main__":
    launch(main)

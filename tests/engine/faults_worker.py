"""Run by a launcher: trains a tiny student on small shards, as the overrides say; slow or hung where the environment says.

usage: faults_worker.py WORLD OUT_DIR [key=value ...]
SLEEP_RANK, SLEEP_STEP, SLEEP_SECONDS: that rank sleeps before that step's forward pass (before each without SLEEP_STEP).
PACE: every rank sleeps so long before each step.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recipes.quickstart import DEFAULTS
from toolkit.config import Augmentation, Checkpoint, Data, Evaluation, Logging, Run, Student, resolve
from toolkit.launch import launch, start


def run_of(world: Path, out_dir: Path) -> Run:
    """Drawn crops, live teacher, a checkpoint every three steps."""
    return replace(
        DEFAULTS,
        out_dir=str(out_dir),
        teacher=replace(DEFAULTS.teacher, store=""),
        student=Student(name="toolkit.playground.towers:scene_student", kwargs={"width": 8}),
        data=Data(
            images=str(world / "train_images"),
            texts=str(world / "train_texts"),
            global_batch_size=24,
            augmentation=Augmentation(crop_scale=(0.6, 1.0)),
        ),
        optim=replace(DEFAULTS.optim, warmup_steps=5),
        steps=12,
        workers=0,
        logging=Logging(every_steps=1, tensorboard=False),
        checkpoint=Checkpoint(every_steps=3, keep_last=2),
        evaluation=Evaluation(),
    )


def sleep_sometimes() -> None:
    """As the environment says."""
    from toolkit import distributed
    from toolkit.step import Step

    computing = Step.forward_backward

    def slowly(self: Step, tensors: Any, number: int, **more: Any) -> Any:
        time.sleep(float(os.environ.get("PACE", "0")))
        ranks, steps = os.environ.get("SLEEP_RANK"), os.environ.get("SLEEP_STEP")
        if str(distributed.rank()) == ranks and steps in (None, str(number)):
            time.sleep(float(os.environ["SLEEP_SECONDS"]))
        return computing(self, tensors, number, **more)

    Step.forward_backward = slowly  # type: ignore[method-assign]


def main(words: Sequence[str]) -> None:
    """Train, or go on."""
    world, out_dir, *overrides = (word for word in words if not word.startswith("--local_rank"))
    run = resolve(run_of(Path(world), Path(out_dir)), overrides)
    sleep_sometimes()
    start(run, [])


if __name__ == "__main__":
    launch(main)

"""Distil the embedded teacher into a student a quarter its size, on unpaired rendered pictures and sentences.

    deepspeed --num_gpus 2 recipes/quickstart.py            (make quickstart)

Cost and result: see the README's table. Makes its own shards under `out_dir`/data; no network, no downloads.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit import config
from toolkit.config import Augmentation, Data, EvalSet, Evaluation, Optim, Run, Student, Teacher
from toolkit.config.losses import VL
from toolkit.launch import launch, start
from toolkit.playground.prepare import TEACHER, prepare_world

DATA = "runs/quickstart/data"
DEFAULTS = Run(
    out_dir="runs/quickstart",
    teacher=Teacher(name=str(TEACHER), store="runs/quickstart/store"),
    student=Student(name="toolkit.playground.towers:scene_student", kwargs={"width": 24}),
    # This teacher compares at scale 31; the paper's 100 would sharpen its targets to their largest entry.
    losses=config.FIELD_PRESETS["dimefm"] | {"vl": VL(scale=None)},
    data=Data(
        images=f"{DATA}/train_images",
        texts=f"{DATA}/train_texts",
        global_batch_size=128,
        augmentation=Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip_fraction=0.0),
    ),
    optim=Optim(lr=3e-3, warmup_lr=6e-5, min_lr=0.0, warmup_steps=50, betas=(0.9, 0.98)),
    steps=1_600,
    precision="fp32",
    workers=0,
    evaluation=Evaluation(
        every_steps=800,
        best="scenes_top1",
        sets={
            "scenes": EvalSet(shards=f"{DATA}/test_classes", classes=f"{DATA}/classes.json"),
            "captions": EvalSet(shards=f"{DATA}/test_pairs", kind="retrieval"),
        },
    ),
)


def main(overrides: Sequence[str]) -> dict[str, Any]:
    """Make the world if it is not there, then train, judge and report."""
    run = config.resolve(DEFAULTS, overrides)
    if not run.dry_run and run.data.images == DEFAULTS.data.images:
        prepare_world(Path(DATA), images=24_000, texts=24_000)
    return start(DEFAULTS, overrides)


if __name__ == "__main__":
    launch(main)

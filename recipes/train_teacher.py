"""Train a two-tower CLIP on pairs with InfoNCE: how the embedded teacher was made, and how to make one of your own.

    deepspeed --num_gpus 2 recipes/train_teacher.py
    cp runs/train_teacher/checkpoints/step_*/student.safetensors ... toolkit/playground/assets/teacher/

Your own: data.pairs='shards/{00000..00099}.tar' student.name=<open_clip name or package.module:function> out_dir=runs/mine
Each checkpoint folder can be named as another run's teacher: teacher.name=runs/mine/checkpoints/step_00004000
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit import config
from toolkit.config import Augmentation, Data, EvalSet, Evaluation, Optim, Run, Student
from toolkit.config.losses import Contrastive
from toolkit.launch import launch, start
from toolkit.playground.prepare import prepare_world

DATA = "runs/train_teacher/data"
DEFAULTS = Run(
    out_dir="runs/train_teacher",
    student=Student(
        name="toolkit.playground.towers:scene_clip", kwargs={"width": 48, "text_width": 96}, text_tower=True
    ),
    losses={"contrastive": Contrastive()},
    data=Data(
        pairs=f"{DATA}/train_pairs",
        global_batch_size=256,
        augmentation=Augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip_fraction=0.0),
    ),
    optim=Optim(lr=2e-3, warmup_lr=2e-5, min_lr=0.0, warmup_steps=100, weight_decay=0.1, betas=(0.9, 0.98)),
    steps=1_000,
    precision="fp32",
    workers=0,
    evaluation=Evaluation(
        every_steps=250,
        sets={"scenes": EvalSet(shards=f"{DATA}/test_classes", classes=f"{DATA}/classes.json")},
    ),
)


def main(overrides: Sequence[str]) -> dict[str, Any]:
    """Make the world if it is not there, then train."""
    run = config.resolve(DEFAULTS, overrides)
    if not run.dry_run and run.data.pairs == DEFAULTS.data.pairs:
        prepare_world(Path(DATA), pairs=50_000)
    return start(DEFAULTS, overrides)


if __name__ == "__main__":
    launch(main)

"""DIME-FM's other student: CLIP ViT-L/14 into a Swin-T with a 768-d projection, on ImageNet-21k-sized data.

    deepspeed recipes/distill_swin_tiny.py data.images='shards/in21k/{00000..01134}.tar' data.texts='shards/texts/{00000..00283}.tar'

277,000 steps of 4,096 images (100 epochs of 11.35M), drop-path 0.2, otherwise as distill_vitb32. The authors published no
number for this run.
"""

from collections.abc import Sequence
from typing import Any

from toolkit import config
from toolkit.config import Checkpoint, Data, Optim, Run, Student, Teacher
from toolkit.launch import launch, start

DEFAULTS = Run(
    out_dir="runs/distill_swin_tiny",
    teacher=Teacher(name="ViT-L-14-quickgelu", pretrained="openai"),
    student=Student(name="timm/swin_tiny_patch4_window7_224", kwargs={"drop_path": 0.2}),
    losses=dict(config.FIELD_PRESETS["dimefm"]),
    data=Data(global_batch_size=4_096),
    optim=Optim(lr=8e-4, warmup_lr=4e-6, min_lr=4e-5, warmup_steps=11_080, weight_decay=0.05, gradient_clipping=0.0),
    steps=277_000,
    checkpoint=Checkpoint(every_steps=2_770),
)


def main(overrides: Sequence[str]) -> dict[str, Any]:
    """Train; `key=value` overrides any setting."""
    return start(DEFAULTS, overrides)


if __name__ == "__main__":
    launch(main)

"""DIME-FM's main run: CLIP ViT-L/14 into a ViT-B/32 with 768-d output, on 40M images and 28.4M unrelated sentences.

    deepspeed recipes/distill_vitb32.py data.images='shards/images/{00000..03999}.tar' data.texts='shards/texts/{00000..00283}.tar'
    sbatch slurm/distill.sh recipes/distill_vitb32.py data.images=... data.texts=...

Optimisation of the authors' code: AdamW 8e-4, decay 0.05, 324,800 steps of 12,288 images, no clipping, crop 0.08-1 and
flip for the student, the plain picture for the teacher. Cost: 3.99e9 images seen; the authors used 24 GPUs.
Published result with this recipe: ImageNet zero-shot 66.5, ELEVATER-20 56.4, robustness 50.2 (not re-run here).
Without weights, to try a set-up: teacher.pretrained=random.
"""

from collections.abc import Sequence
from typing import Any

from toolkit import config
from toolkit.config import Checkpoint, Data, Optim, Run, Student, Teacher
from toolkit.launch import launch, start

DEFAULTS = Run(
    out_dir="runs/distill_vitb32",
    teacher=Teacher(name="ViT-L-14-quickgelu", pretrained="openai"),
    student=Student(name="ViT-B-32-quickgelu"),
    losses=dict(config.FIELD_PRESETS["dimefm"]),
    data=Data(global_batch_size=12_288),
    optim=Optim(lr=8e-4, warmup_lr=4e-6, min_lr=4e-5, warmup_steps=12_992, weight_decay=0.05, gradient_clipping=0.0),
    steps=324_800,
    checkpoint=Checkpoint(every_steps=3_248),
)


def main(overrides: Sequence[str]) -> dict[str, Any]:
    """Train; `key=value` overrides any setting."""
    return start(DEFAULTS, overrides)


if __name__ == "__main__":
    launch(main)

"""Run by real ranks: trains each case through `train()`, from its checkpoint where its folder holds one; notes the samples.

usage: elastic_worker.py FOLDER CASE..., with RANK, WORLD_SIZE, ... in the environment; FOLDER holds world/ and classes.json. A case
is `zero1/name/4/2/12`: ds_config, name of its out_dir, last step, data workers, rows of a micro-batch.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from toolkit import distributed
from toolkit.config import Augmentation, Checkpoint, Data, Logging, Optim, Run, Student, Teacher
from toolkit.config.losses import VL, CosSmoothL1, DualHead, QueuePVL
from toolkit.data.build import Streams
from toolkit.playground.prepare import TEACHER
from toolkit.playground.towers import SceneStudent, scene_student
from toolkit.train import train

STEPS, LAST, CUT = 5, 4, 2


class Dropping(SceneStudent):
    """Random numbers in its forward; sizes that do not divide by ranks; a parameter of two names, and one that no loss reaches."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__(scene_student(8, embed_dim=embed_dim).visual)
        self.drop, self.path = nn.Dropout(0.2), DropPath(0.3)
        self.odd = nn.Parameter(torch.randn(5, 3) / 10)
        self.same = self.odd
        self.shift = nn.Parameter(torch.zeros(1))
        self.unused = nn.Parameter(torch.randn(7))

    def encode_image(self, images: Tensor) -> Tensor:
        features = self.visual(images)
        side = self.path(images.mean((2, 3)) @ self.same.T)
        return self.drop(features) + nn.functional.pad(side, (0, features.shape[1] - 5)) + 0.1 * self.shift


def run_of(folder: Path, zero: str, name: str, *, last: int = LAST, workers: int = 0, rows: int = 12) -> Run:
    """A run with losses that have a queue, statistics and a head; `zero` is zero0 to zero3, zero3_offload, zero3_whole.

    24 rows a step, in micro-batches whose dropout is the same whichever rank has them.
    In zero3 nothing is small enough to stay whole on every rank, in zero3_whole everything is.
    """
    world, config = folder / "world", folder / f"{zero}.json"
    given: dict = {"zero_optimization": {"stage": int(zero[4]), "overlap_comm": False}}
    if zero == "zero3_offload":
        given = json.loads((Path(__file__).parents[2] / "ds_configs/zero3_offload.json").read_text())
    if zero == "zero3":
        given["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    if distributed.is_main():
        config.write_text(json.dumps(given))
    distributed.barrier()
    return Run(
        out_dir=str(folder / name),
        deepspeed=str(config),
        teacher=Teacher(name=str(TEACHER)),
        student=Student(name="elastic_worker:Dropping"),
        losses={
            "vl": VL(),
            "queue_pvl": QueuePVL(size=80),
            "cos_smooth_l1": CosSmoothL1(standardise="ema"),
            "dual_head": DualHead(classes=str(folder / "classes.json")),
        },
        data=Data(
            images=str(world / "train_images"),
            texts=str(world / "train_texts"),
            global_batch_size=24,
            batch_size_per_gpu=rows,
            augmentation=Augmentation(crop_scale=(0.6, 1.0)),
        ),
        optim=Optim(lr=3e-3, warmup_lr=1e-3, min_lr=1e-4, warmup_steps=1, gradient_clipping=1.0),
        steps=STEPS,
        stop_at_step=last,
        precision="fp32",
        workers=workers,
        logging=Logging(every_steps=1, tensorboard=False),
        checkpoint=Checkpoint(every_steps=CUT, keep_last=9),
    )


@contextmanager
def noted(path: Path) -> Iterator[None]:
    """Write the samples of every step and stream, as this rank reads them."""
    before = Streams.next

    def following(self: Streams):
        found = before(self)
        with open(path, "a") as file:
            file.write(json.dumps({name: batch.keys for name, batch in found.items()}) + "\n")
        return found

    Streams.next = following
    yield
    Streams.next = before


def main() -> None:
    """The cases that the command line names."""
    folder, *cases = Path(sys.argv[1]), *sys.argv[2:]
    distributed.init()
    for case in cases:
        zero, name, *numbers = case.split("/")
        last, workers, rows = map(int, numbers)
        with noted(folder / f"{name}.samples.{distributed.world()}.{distributed.rank()}"):
            train(run_of(folder, zero, name, last=last, workers=workers, rows=rows))


if __name__ == "__main__":
    main()

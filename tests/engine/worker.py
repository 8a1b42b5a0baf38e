"""Run by several real ranks: trains the playground student through `train()` in each ZeRO stage; rank 0 writes the curves.

usage: worker.py FOLDER, with RANK, WORLD_SIZE, ... in the environment; FOLDER/world holds the shards.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from toolkit import config
from toolkit.config import Augmentation, Checkpoint, Data, Logging, Optim, Run, Student, Teacher
from toolkit.config.losses import MFD, VL, CosSmoothL1, DualHead, EnsembleKL, PhiS, QueuePVL
from toolkit.playground.prepare import TEACHER
from toolkit.train import train

sys.path.insert(0, str(Path(__file__).parent))
from reference import reference_curve  # the folder of a script is its import path; tests are no package

STEPS, CUT = 5, 3


def base(folder: Path) -> Run:
    """A run of five steps with every part that has state: augmentation, warm-up, all three losses."""
    world = folder / "world"
    losses = dict(config.FIELD_PRESETS["dimefm-udist"])
    return Run(
        teacher=Teacher(name=str(TEACHER)),
        student=Student(name="toolkit.playground.towers:scene_student", kwargs={"width": 8}),
        losses=losses,
        data=Data(
            images=str(world / "train_images"),
            texts=str(world / "train_texts"),
            global_batch_size=32,
            augmentation=Augmentation(crop_scale=(0.6, 1.0)),
        ),
        optim=Optim(lr=3e-3, warmup_lr=1e-3, min_lr=1e-4, warmup_steps=2, gradient_clipping=1.0),
        steps=STEPS,
        precision="fp32",
        workers=0,
        logging=Logging(every_steps=1, tensorboard=False),
        checkpoint=Checkpoint(every_steps=0),
    )


def curve(out_dir: str) -> list[float]:
    """Loss after each step."""
    lines = (json.loads(line) for line in (Path(out_dir) / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


def cases(folder: Path) -> dict[str, Run]:
    """Runs by name."""
    run = base(folder)
    made = {f"zero{stage}": replace(run, deepspeed=f"ds_configs/zero{stage}.json") for stage in range(4)}
    made["zero3_offload"] = replace(run, deepspeed="ds_configs/zero3_offload.json")
    sgd = replace(run.optim, optimizer="sgd", lr=0.1, warmup_lr=0.1, min_lr=0.05)
    made |= {f"sgd_{name}": replace(case, optim=sgd) for name, case in list(made.items()) if name != "zero3_offload"}
    made |= {f"bf16_zero{stage}": replace(made[f"zero{stage}"], precision="bf16") for stage in range(4)}
    made["compiled"] = replace(made["sgd_zero1"], compile=True)  # AdamW turns rounding of zero gradients into steps
    made["checkpointed"] = replace(
        made["zero1"],
        student=replace(run.student, name="timm/test_vit", kwargs={}, image_size=160, grad_checkpointing=True),
    )
    made["not_checkpointed"] = replace(
        made["checkpointed"], student=replace(made["checkpointed"].student, grad_checkpointing=False)
    )
    made["dropout"] = replace(made["zero1"], student=replace(run.student, name="reference:dropout_student", kwargs={}))
    micro = replace(run.data, batch_size_per_gpu=4)
    made["accumulated"] = replace(made["zero1"], data=micro)
    made["accumulated_zero3"] = replace(made["zero3"], data=micro)
    stateful = {"vl": VL(), "queue_pvl": QueuePVL(size=80), "mfd": MFD(), "phi_s": PhiS(weight=0.1)}
    stateful["cos_smooth_l1"] = CosSmoothL1(standardise="ema")
    stateful["dual_head"] = DualHead(classes=str(folder / "world" / "classes.json"))
    made["stateful"] = replace(made["zero1"], losses=stateful, data=micro)
    made["one_teacher"] = replace(made["zero1"], losses={"ensemble_kl": EnsembleKL()})
    made["ensemble"] = replace(made["one_teacher"], extra_teachers={"again": Teacher(name=str(TEACHER))}, data=micro)
    return {name: replace(case, out_dir=str(folder / name)) for name, case in made.items()}


def main() -> None:
    """Train each case that the command line names (all without names), straight and with a stop and a resume."""
    folder = Path(sys.argv[1])
    chosen = sys.argv[2:]
    result: dict[str, dict[str, list[float]]] = {}
    for name, run in cases(folder).items():
        if chosen and name not in chosen:
            continue
        train(run)
        again = replace(run, out_dir=f"{run.out_dir}_resumed")
        if name.startswith("zero") or name in ("dropout", "stateful"):
            train(replace(again, stop_at_step=CUT))
            torch.manual_seed(0)  # whatever a new process would begin with
            train(again)
        if int(torch.distributed.get_rank()) == 0:
            result[name] = {"curve": curve(run.out_dir)}
            if Path(again.out_dir).exists():
                result[name]["resumed"] = curve(again.out_dir)
    if torch.distributed.get_rank() == 0:
        for name in ("zero1", "sgd_zero1", "bf16_zero1"):
            result[f"reference_{name}"] = {"curve": reference_curve(cases(folder)[name])}
        (folder / "result.json").write_text(json.dumps(result))
    torch.distributed.barrier()


if __name__ == "__main__":
    main()

"""Ranks of benchmarks/scaling.py in a network of their own: bytes that the real step sends over loopback, counted by the kernel.

    unshare -Urn python benchmarks/scaling_ranks.py RANKS OUT.json

Alone in a fresh network namespace nothing else is on `lo`, so /proc/net/dev is the sum of what all ranks sent (TCP/IP headers
and acknowledgements with it). DeepSpeed's shared-memory all-reduce serves inference only; training goes through gloo.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolkit import config
from toolkit.config import Data, Optim, Run, Student, Teacher, batch_arithmetic
from toolkit.playground.prepare import TEACHER

STEPS = 3
ROWS = 256
PORT = "29871"


def case(stage: int, ranks: int, micro_batches: int) -> Run:
    """A tiny run with all three losses, so that every kind of exchange occurs."""
    rows = ROWS // ranks // micro_batches
    return Run(
        out_dir="unused",
        teacher=Teacher(name=str(TEACHER)),
        student=Student(name="toolkit.playground.towers:scene_student", kwargs={"width": 48}),
        losses=dict(config.FIELD_PRESETS["dimefm-udist"]),
        data=Data(images="unused", texts="unused", global_batch_size=ROWS, batch_size_per_gpu=rows),
        optim=Optim(warmup_steps=1),
        steps=100,
        precision="fp32",
        deepspeed=f"ds_configs/zero{stage}.json",
    )


STAGES_AND_MICRO_BATCHES = ((0, 1), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (3, 4))
CASES = {(stage, k): f"zero{stage}, {k} micro-batch{'es' if k > 1 else ''}" for stage, k in STAGES_AND_MICRO_BATCHES}


def loopback_bytes() -> int:
    """Sent on `lo` since the namespace exists."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[8])
    raise SystemExit("/proc/net/dev has no lo")


def rank(ranks: int, out: Path) -> None:
    """One process: every case, and the losses alone."""
    import torch
    import torch.distributed as dist

    from toolkit import distributed
    from toolkit.distiller import Distiller
    from toolkit.engine import build_engine
    from toolkit.first_batch import fake_tensors
    from toolkit.losses import build_losses
    from toolkit.models import build_student, build_teacher
    from toolkit.step import Step, teacher_embeddings

    torch.set_num_threads(1)
    distributed.init()
    cpu = torch.device("cpu")
    teacher = build_teacher(Teacher(name=str(TEACHER)), "fp32", cpu)

    def counted(work: Callable[[], Any]) -> float:
        """Bytes of all ranks per call."""
        for _ in range(2):
            work()
        dist.barrier()
        before = loopback_bytes()
        dist.barrier()
        for _ in range(STEPS):
            work()
        dist.barrier()
        return (loopback_bytes() - before) / STEPS

    found: dict[str, float] = {}
    for (stage, k), name in CASES.items():
        run = case(stage, ranks, k)
        batch = batch_arithmetic(run, ranks)
        distributed.seed_everything(0)
        student = build_student(run.student, teacher)
        losses = build_losses(run.losses, embed_dim=student.embed_dim)
        distiller = Distiller(student.module, losses, student.preprocess, text_tower=False)
        tensors = {
            key: torch.cat([value] * k)
            for key, value in fake_tensors(student, {"teacher": teacher}, run, batch, cpu).items()
        }
        if (stage, k) == (0, 1):

            def alone(distiller: Distiller = distiller, tensors: dict[str, Any] = tensors) -> None:
                distiller(tensors, teacher=teacher_embeddings({"teacher": teacher}, tensors)).total.backward()
                distiller.zero_grad()

            found["losses alone"] = counted(alone)
        step = Step(build_engine(run, distiller, batch, cpu), {"teacher": teacher}, batch, cpu, 0)

        def whole(step: Step = step, tensors: dict[str, Any] = tensors) -> None:
            step.forward_backward(tensors, 0, check=lambda output: output)
            step.engine.step()

        found[name] = counted(whole)
    if distributed.is_main():
        out.write_text(json.dumps(found))
    distributed.shutdown()


def launch(ranks: int, out: Path) -> int:
    """Bring `lo` up, start the ranks, wait."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": PORT, "WORLD_SIZE": str(ranks),
        "GLOO_SOCKET_IFNAME": "lo", "DS_ACCELERATOR": "cpu",
    }  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(ranks), str(out)],
            env={**environment, "RANK": str(number), "LOCAL_RANK": str(number)},
            stdout=subprocess.DEVNULL,
        )
        for number in range(ranks)
    ]
    codes = [process.wait() for process in started]
    return max(codes, key=abs)


if __name__ == "__main__":
    words = int(sys.argv[1]), Path(sys.argv[2])
    sys.exit(rank(*words) if "RANK" in os.environ else launch(*words))

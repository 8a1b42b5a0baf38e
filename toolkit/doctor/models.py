"""The run's models, built as training builds them; one fake batch through them; the room their checkpoints take."""

import os
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from toolkit import checkpoint
from toolkit.config.ds_config import load_ds_config
from toolkit.doctor.check import Check, Context, Facts, Row, gibibytes
from toolkit.doctor.compute import wait
from toolkit.doctor.network import join_group
from toolkit.facts import check_same_run
from toolkit.first_batch import try_fake_batch
from toolkit.train import Models, build_models

FULL, TIGHT = 0.98, 0.9
"""Of a GPU's memory: what does not fit, and what leaves little for fragments and larger kernels."""
STUDENT_BYTES = 8
"""Per parameter in a checkpoint: `student.safetensors` and the module in DeepSpeed's own file, in fp32."""
OPTIMIZER_BYTES = 12
"""Per trained parameter: its fp32 copy and Adam's two moments."""


def build(context: Context) -> dict[str, Any]:
    """Teacher, student and losses; the parameters they have."""
    start = time.perf_counter()
    models = build_models(context.run, context.batch, context.device)
    context.kept["models"] = models
    parameters = [parameter for parameter in models.distiller.parameters() if parameter.requires_grad]
    return {
        "seconds": time.perf_counter() - start,
        "teacher": models.teacher and models.teacher.name,
        "student": models.student.name,
        "parameters": sum(one.numel() for one in models.student.module.state_dict().values()),
        "trained": sum(one.numel() for one in parameters),
    }


def judge_build(found: Facts, context: Context) -> list[Row]:
    """One row; what went wrong is a row already."""
    facts = next(iter(found.values()))
    seconds = max(facts["seconds"] for facts in found.values())
    beside = f", teacher {facts['teacher']}" if facts["teacher"] else ", no teacher"
    shown = f"student {facts['student']} with {facts['trained']:,} trained parameters{beside}, built in {seconds:.1f} s"
    return [Row("models", context.where(found), shown)]


def fake_batch(context: Context) -> dict[str, Any]:
    """Forward and backward of one micro-batch at full size; on a GPU again, as the first one tunes and compiles."""
    join_group(context)
    models: Models = context.kept["models"]
    on_gpu = context.device.type == "cuda"
    times, frozen = [], []
    for _ in range(2 if on_gpu else 1):
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        frozen += try_fake_batch(
            models.distiller, models.student, models.imitated, context.run, context.batch, context.device
        )
        wait(context.device)
        times.append(time.perf_counter() - start)
    if on_gpu:
        peak, total = torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties(context.device).total_memory
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "first": times[0],
        "seconds": times[-1],
        "peak": peak,
        "total": total,
        "optimizer": optimizer_bytes(context),
        "frozen": len(frozen),
    }


def optimizer_bytes(context: Context) -> int:
    """What this rank will hold beside: none of it with offload, its share from ZeRO-1 on."""
    zero = load_ds_config(context.run.deepspeed).get("zero_optimization", {})
    if zero.get("offload_optimizer"):
        return 0
    stage, models = int(zero.get("stage", 0)), context.kept["models"]
    trained = sum(one.numel() for one in models.distiller.parameters() if one.requires_grad)
    return trained * OPTIMIZER_BYTES // context.world if stage else trained * 8


def judge_batch(found: Facts, context: Context) -> list[Row]:
    """Time and memory of all; a row for each rank that has too little."""
    rows = []
    kind = "GPU" if context.device.type == "cuda" else "host"
    for rank, facts in found.items():
        wanted = facts["peak"] + facts["optimizer"]
        if wanted > TIGHT * facts["total"]:
            bad = wanted > FULL * facts["total"]
            rows.append(
                Row(
                    f"{kind} memory", context.where([rank]),
                    f"{gibibytes(facts['peak'])} at the peak, and {gibibytes(facts['optimizer'])} of optimizer state",
                    f"{gibibytes(facts['total'])}", "bad" if bad else "warn",
                    "lower data.batch_size_per_gpu (the losses still see the global batch), or student.grad_checkpointing=true",
                )
            )  # fmt: skip
    slowest = max(found, key=lambda rank: found[rank]["seconds"])
    worst = max(facts["peak"] for facts in found.values())
    batch, seconds = context.batch, found[slowest]["seconds"]
    shown = (
        f"{batch.batch_size_per_gpu} images and {batch.text_batch_size_per_gpu} sentences per rank in {seconds:.2f} s "
        f"(slowest {context.where([slowest])}), peak {gibibytes(worst)}"
    )
    if found[slowest]["frozen"]:
        shown += f"; {found[slowest]['frozen']} tensors are reached by no loss and will be frozen"
    return [*rows, Row("fake batch", context.where(found), shown, f"{gibibytes(found[slowest]['total'])} of memory")]


def room(context: Context) -> dict[str, Any] | None:
    """On rank 0, who writes them: bytes of a checkpoint and of the disk."""
    if context.rank:
        return None
    models: Models = context.kept["models"]
    student = sum(one.numel() for one in models.student.module.state_dict().values())
    trained = sum(one.numel() for one in models.distiller.parameters() if one.requires_grad)
    folder = next(
        path for path in (Path(context.run.out_dir), *Path(context.run.out_dir).absolute().parents) if path.exists()
    )
    there = sum(
        path.stat().st_size for path in (Path(context.run.out_dir) / "checkpoints").rglob("*") if path.is_file()
    )
    return {
        "one": student * STUDENT_BYTES + trained * OPTIMIZER_BYTES,
        "there": there,
        "free": shutil.disk_usage(folder).free,
    }


def judge_room(found: Facts, context: Context) -> list[Row]:
    """Those that are kept, the best one, and the one being written."""
    if 0 not in found:
        return []
    facts, keep = found[0], context.run.checkpoint.keep_last
    wanted = max(facts["one"] * (keep + 2) - facts["there"], facts["one"])
    shown = f"{gibibytes(facts['free'])} free"
    about = f"{gibibytes(wanted)}: {keep} + 2 checkpoints of {gibibytes(facts['one'])}"
    about += f", {gibibytes(facts['there'])} are there" if facts["there"] else ""
    if facts["free"] < wanted:
        todo = "make room, lower checkpoint.keep_last, or set out_dir to a larger disk"
        return [Row("room for checkpoints", context.where([0]), shown, about, "bad", todo)]
    if facts["free"] < 1.2 * wanted:
        return [
            Row("room for checkpoints", context.where([0]), shown, about, "warn", "it is just enough: make some room")
        ]
    return [Row("room for checkpoints", context.where([0]), shown, about)]


def resume(context: Context) -> str | None:
    """On rank 0: what the run will go on from; raises ConfigError where another run lies there."""
    if context.rank:
        return None
    check_same_run(context.run)
    folder = checkpoint.newest(Path(context.run.out_dir))
    torn = len(checkpoint.steps_saved(Path(context.run.out_dir)))
    if folder is None:
        return (
            f"{torn} torn checkpoints and no whole one: it starts at step 0"
            if torn
            else "nothing yet: it starts at step 0"
        )
    return f"it goes on from {folder.name}"


def judge_resume(found: Facts, context: Context) -> list[Row]:
    """One row."""
    shown = str(found.get(0) or "")
    torn = "torn" in shown
    todo = "if that is not what you want, look at these folders before the run removes them" if torn else ""
    what = f"out_dir={context.run.out_dir}"
    return [Row(what, context.where([0]), shown, "", "warn" if torn else "good", todo)] if shown else []


BUILD = Check("models", "teacher, student and losses are built", build, judge_build, seconds=900.0)
BATCH = Check(
    "batch", "one fake batch forward and backward at full size", fake_batch, judge_batch, seconds=600.0, together=True, needs=("models",)
)  # fmt: skip
ROOM = Check("room", "disk for the checkpoints", room, judge_room, seconds=120.0, needs=("models",))
RESUME = Check("resume", "what lies in out_dir already", resume, judge_resume, seconds=600.0)

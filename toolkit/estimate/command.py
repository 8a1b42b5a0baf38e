"""`dime estimate`: describe the run, compute, print."""

import json
import math
from typing import Any

from toolkit.config import Run, batch_arithmetic
from toolkit.errors import ConfigError
from toolkit.estimate import network, speed, storage
from toolkit.estimate.described import Described, describe, step_of
from toolkit.estimate.hardware import Cluster, cluster_of
from toolkit.estimate.memory import largest_batch
from toolkit.estimate.plan import Wishes
from toolkit.estimate.words import as_text, assumptions

SECONDS_PER_HOUR = 3600
SHORT_STEP = 0.02
"""Seconds; some thousand kernels of 5 us and more are launched in a step."""


def estimate_run(run: Run, wishes: Wishes, *, as_json: bool = False) -> dict[str, Any]:
    """Print the table and what was assumed, with `as_json` the same as one object in the last line; returns that object.

    One process, no GPU, no weights, no data. Raises ConfigError for options that make no sense and for models that cannot be
    looked at without their weights.
    """
    cluster = cluster_of(wishes.hardware, wishes.gpus, wishes.gpus_per_node, wishes.mfu, wishes.teacher_mfu)
    batch = batch_arithmetic(run, cluster.gpus)
    notes: list[str] = []
    described = described_or_none(run, cluster, wishes, notes)
    found: dict[str, Any] = {
        "recipe": {
            "student": run.student.name, "teacher": run.teacher.name, "steps": run.steps,
            "images_seen": batch.global_images * run.steps, "precision": run.precision, "deepspeed": run.deepspeed,
        },
        "hardware": cluster.as_dict(),
        "batch": {**vars(batch), "words": batch.in_words()},
    }  # fmt: skip
    if described is None:
        assert wishes.images_per_second is not None
        images = batch.global_images / cluster.gpus
        seconds = {"measured": images / wishes.images_per_second}
        rate = storage.core_rate(wishes, bool(run.teacher.name and not run.teacher.store))
        step = speed.step_seconds(seconds, images, wishes.cores_per_gpu, rate)
        found |= {"models": None, "network": None, "memory": None, "storage": None}
    else:
        step = step_of(described, cluster, wishes)
        rate = storage.core_rate(wishes, any(live for _, live in described.live))
        found |= models_part(described) | network_part(described, cluster) | memory_part(described, cluster)
        found |= storage_part(described, cluster, wishes)
    found |= speed_part(run, batch.global_images, step, cluster, wishes, rate)
    found["assumptions"] = assumptions(found, wishes, described)
    if wishes.images_per_second is None and step["gpu"] < SHORT_STEP:
        notes.append(
            f"a step of {1000 * step['gpu']:.1f} ms is held up by launching kernels, which is not in these numbers: it will take "
            "longer; measure a minute and give --images-per-second"
        )
    found["notes"] = notes
    print(as_text(found), flush=True)
    if as_json:
        print(json.dumps(found), flush=True)
    return found


def described_or_none(run: Run, cluster: Cluster, wishes: Wishes, notes: list[str]) -> Described | None:
    """None, with a note, where models cannot be looked at and their speed was measured."""
    try:
        return describe(run, cluster.gpus)
    except ConfigError as error:
        if wishes.images_per_second is None or not can_do_without(error):
            raise
        notes.append(f"no memory, network or storage: {error}")
        return None


def can_do_without(error: ConfigError) -> bool:
    """A model that cannot be looked at, not a wrong setting."""
    return "--images-per-second" in str(error)


def models_part(described: Described) -> dict[str, Any]:
    """Parameters and FLOPs per sample."""
    student, batch = described.student, described.batch
    images, texts = batch.batch_size_per_gpu, batch.text_batch_size_per_gpu
    work = described.work()
    return {
        "models": {
            "student": {
                "name": student.name, "parameters": student.parameters, "trainable": described.sharding.parameters,
                "embed_dim": student.embed_dim, "image_size": student.image_size,
                "forward_gflops_per_image": student.plain.forward_flops / images / 1e9,
                "backward_gflops_per_image": student.plain.backward_flops / images / 1e9,
                "forwards": speed.passes(batch, global_batch=described.features_first),
                "grad_checkpointing": described.run.student.grad_checkpointing,
            },
            "teachers": [
                {
                    "name": one.name, "parameters": one.parameters, "embed_dim": one.embed_dim, "stored": bool(cfg.store),
                    "in_memory": cfg.in_memory, "image_size": one.image_size,
                    "gflops_per_image": one.images.forward_flops / images / 1e9,
                    "gflops_per_sentence": one.texts.forward_flops / texts / 1e9 if one.texts else None,
                }
                for one, cfg in described.teachers
            ],
            "step_tflops_per_gpu": {name: value / 1e12 for name, value in vars(work).items()},
        }
    }  # fmt: skip


def network_part(described: Described, cluster: Cluster) -> dict[str, Any]:
    """Bytes per step and GPU."""
    messages = described.messages()
    by_part = network.sent_by_part(messages, cluster.gpus)
    return {
        "network": {
            "zero_stage": described.sharding.stage,
            "sent_bytes_per_gpu": {**by_part, "total": sum(by_part.values())},
            "bytes_per_step": sum(by_part.values()) * cluster.gpus,
            "link_gb_s": cluster.link_bytes_s / 1e9,
            "collectives": network.as_dicts(messages, cluster.gpus),
        }
    }


def memory_part(described: Described, cluster: Cluster) -> dict[str, Any]:
    """Bytes per GPU by stage, and activations with and without checkpointing."""
    gpu_bytes = cluster.gpu.memory_gb * 1e9
    student, batch = described.student, described.batch
    stages = {
        name: {
            **one.as_dict(gpu_bytes),
            "largest_batch_size_per_gpu": largest_batch(one, gpu_bytes, batch.batch_size_per_gpu),
        }
        for name, one in described.memories().items()
    }
    return {
        "memory": {
            "stages": stages,
            "zero_stage": described.sharding.stage,
            "gpu_bytes": gpu_bytes,
            "student_peak_bytes": {
                "plain": student.plain.peak_bytes,
                "grad_checkpointing": student.checkpointed.peak_bytes if student.checkpointed else None,
            },
            "batch_size_per_gpu": batch.batch_size_per_gpu,
        }
    }  # fmt: skip


def storage_part(described: Described, cluster: Cluster, wishes: Wishes) -> dict[str, Any]:
    """Bytes of shards and stores, and what the teachers take to fill the stores once."""
    batch = described.batch
    widths = tuple(one.embed_dim for one, _ in described.teachers)
    sizes = storage.storage(wishes, widths, described.reads_text)
    flops = sum(
        sizes["images"] * wishes.views * one.images.forward_flops / batch.batch_size_per_gpu
        + (sizes["sentences"] * one.texts.forward_flops / batch.text_batch_size_per_gpu if one.texts else 0.0)
        for one, _ in described.teachers
    )
    hours = flops / (cluster.flops_s(described.teacher_precision) * cluster.teacher_mfu) / SECONDS_PER_HOUR
    return {"storage": {**sizes, "fill_gpu_hours": hours}}


def speed_part(
    run: Run, global_images: int, step: dict[str, Any], cluster: Cluster, wishes: Wishes, rate: float
) -> dict[str, Any]:
    """What the seconds of a step come to."""
    images_per_second = global_images / step["total"]
    hours = run.steps * step["total"] / SECONDS_PER_HOUR
    per_gpu = global_images / step["gpu"] / cluster.gpus
    return {
        "step_seconds": step,
        "speed": {
            "images_per_second": images_per_second, "images_per_second_per_gpu": images_per_second / cluster.gpus,
            "hours": hours, "gpu_hours": hours * cluster.gpus,
        },
        "cores": {
            "images_per_second_per_core": rate, "needed_per_gpu": math.ceil(per_gpu / rate),
            "given_per_gpu": wishes.cores_per_gpu, "workers": run.workers,
        },
        "energy": {
            "kwh": storage.energy_kwh(hours * cluster.gpus, cluster.gpu.watts, wishes.pue), "pue": wishes.pue,
        },
    }  # fmt: skip

"""The estimate in words: tables, and everything that was assumed."""

from typing import Any

from toolkit.estimate import hardware, memory, network, storage
from toolkit.estimate.described import Described
from toolkit.estimate.plan import Wishes

GB = 1e9
PARTS = {
    "teacher": "teacher, forward",
    "student": "student, forward and backward",
    "losses": "losses",
    "measured": "compute (measured images/s)",
    "update": "update",
    "features": "features between ranks",
    "gradients": "gradients between ranks",
    "parameters": "parameters between ranks",
}


def as_text(found: dict[str, Any]) -> str:
    """The whole."""
    blocks = [head(found), speed_lines(found)]
    if found["models"]:
        blocks += [model_lines(found), memory_lines(found), network_lines(found), storage_lines(found)]
    blocks.append("Assumed:\n" + "\n".join(f"  - {line}" for line in found["assumptions"]))
    blocks += [f"Note: {note}" for note in found["notes"]]
    return "\n\n".join(blocks)


def head(found: dict[str, Any]) -> str:
    """What was asked."""
    recipe, place = found["recipe"], found["hardware"]
    per_node = f"{place['gpus_per_node']} per node" if place["nodes"] > 1 else "one node"
    return (
        f"{recipe['student']} from {recipe['teacher'] or 'no teacher'} on {place['gpus']} {place['name']} ({per_node}), "
        f"{recipe['deepspeed']}, {recipe['precision']}\n{found['batch']['words']}\n"
        f"{recipe['steps']:,} steps see {recipe['images_seen']:,} images"
    )


def speed_lines(found: dict[str, Any]) -> str:
    """Time, cores, energy."""
    step, speed, cores = found["step_seconds"], found["speed"], found["cores"]
    total = step["total"]
    lines = [f"A step: {1000 * total:,.1f} ms"]
    lines += [
        f"  {words:<32} {1000 * step[part]:>10,.1f} ms  {step[part] / total:>6.1%}"
        for part, words in PARTS.items()
        if step.get(part)
    ]
    if step["data"]:
        held = "holds the step up" if step["data"] > step["gpu"] else "beside it"
        lines.append(f"  {'decoding, ' + held:<32} {1000 * step['data']:>10,.1f} ms")
    lines += [
        f"Images/s: {speed['images_per_second']:,.0f} ({speed['images_per_second_per_gpu']:,.0f} per GPU)",
        f"Time: {speed['hours']:,.1f} hours ({speed['hours'] / 24:,.1f} days), {speed['gpu_hours']:,.0f} GPU-hours, "
        f"{found['energy']['kwh']:,.0f} kWh",
        f"Decoding: {cores['needed_per_gpu']} core{'s' if cores['needed_per_gpu'] > 1 else ''} per GPU "
        f"(workers={cores['needed_per_gpu']}; the recipe has {cores['workers']})",
    ]
    return "\n".join(lines)


def model_lines(found: dict[str, Any]) -> str:
    """Parameters and FLOPs."""
    student = found["models"]["student"]
    lines = [
        f"{student['name']}: {student['parameters']:,} parameters, {student['embed_dim']} wide, "
        f"{student['forward_gflops_per_image']:,.2f} GFLOP forward ({student['forwards']} x) and "
        f"{student['backward_gflops_per_image']:,.2f} backward per image"
    ]
    for one in found["models"]["teachers"]:
        text = f", {one['gflops_per_sentence']:,.2f} per sentence" if one["gflops_per_sentence"] else ""
        stored = "; stored, so it does not run" if one["stored"] else ""
        lines.append(
            f"{one['name']}: {one['parameters']:,} parameters, {one['gflops_per_image']:,.2f} GFLOP per image{text}{stored}"
        )
    return "\n".join(lines)


def memory_lines(found: dict[str, Any]) -> str:
    """A row for each ZeRO stage."""
    part, batch = found["memory"], found["memory"]["batch_size_per_gpu"]
    columns = [
        "parameters",
        "gradients",
        "optimizer",
        "buckets",
        "teacher",
        "activations",
        "losses",
        "overhead",
        "total",
    ]
    lines = [
        f"Memory per GPU in GB ({part['gpu_bytes'] / GB:,.0f} there are), {batch:,} images per micro-batch:",
        "  ZeRO   " + "".join(f"{name:>12}" for name in columns) + "   largest micro-batch",
    ]
    for name, row in part["stages"].items():
        own = "run" if "run" in part["stages"] else str(part["zero_stage"])
        mark = "*" if name == own else " "
        label = "offload" if name == "run" else name
        fits = "" if row["fits"] else "  does not fit"
        numbers = "".join(f"{row[column] / GB:>12.2f}" for column in columns)
        lines.append(f"  {label:<6}{mark} {numbers}   {row['largest_batch_size_per_gpu']:>8,}{fits}")
    peaks = part["student_peak_bytes"]
    if peaks["grad_checkpointing"] is not None:
        lines.append(
            f"  activations of the student: {peaks['plain'] / GB:,.2f} GB, with student.grad_checkpointing=true "
            f"{peaks['grad_checkpointing'] / GB:,.2f} GB"
        )
    return "\n".join([*lines, "  * the run's"])


def network_lines(found: dict[str, Any]) -> str:
    """Bytes by part."""
    part = found["network"]
    sent = part["sent_bytes_per_gpu"]
    return (
        f"Network: {sent['total'] / GB:,.3f} GB sent by each GPU in a step (features {sent['features'] / GB:,.3f}, gradients "
        f"{sent['gradients'] / GB:,.3f}, parameters {sent['parameters'] / GB:,.3f}), {part['bytes_per_step'] / GB:,.1f} GB in all"
    )


def storage_lines(found: dict[str, Any]) -> str:
    """Shards and stores."""
    part = found["storage"]
    for_what = f"{part['images']:,} images" + (f" and {part['sentences']:,} sentences" if part["sentences"] else "")
    stores = ", ".join(f"{dtype} {size / GB:,.1f} GB" for dtype, size in part["stores"].items())
    return (
        f"Storage for {for_what}{' (say how many with --images, --sentences)' if part['assumed'] else ''}:\n"
        f"  shards: {part['image_shards_bytes'] / GB:,.1f} GB of images ({part['image_bytes'] / 1024:,.1f} KiB each), "
        f"{part['text_shards_bytes'] / GB:,.1f} GB of sentences\n"
        f"  teacher's embeddings, {part['views']} view{'s' if part['views'] > 1 else ''} per image: {stores}; "
        f"{part['fill_gpu_hours']:,.1f} GPU-hours to make"
    )


def assumptions(found: dict[str, Any], wishes: Wishes, described: Described | None) -> list[str]:
    """Everything that is neither counted nor given."""
    place, cores = found["hardware"], found["cores"]
    peak = place["fp32_tflops" if found["recipe"]["precision"] == "fp32" else "tflops"]
    lines = []
    if wishes.images_per_second is None:
        lines.append(
            f"{place['student_mfu']:.0%} of {peak:,.0f} TFLOP/s ({found['recipe']['precision']}) for the student, "
            f"{place['teacher_mfu']:.0%} for the "
            "teacher (--mfu, --teacher-mfu; better: --images-per-second of a measured minute); less where a GPU has under "
            "some 64 images at a time"
        )
    else:
        lines.append(f"{wishes.images_per_second:,.0f} images/s on one GPU, as measured with this micro-batch")
    if described is not None:
        lines += [
            f"rings over links of {found['network']['link_gb_s']:,.0f} GB/s per rank at {network.EFFICIENCY:.0%} of their rate, "
            f"{network.LATENCY * 1e6:.0f} us for each doubling of the ranks and call, nothing hidden behind compute",
            f"{memory.OVERHEAD_BYTES / GB:.1f} GB per GPU for CUDA, NCCL and what the allocator cannot use; activations as "
            "autocast keeps them, without torch.compile",
            f"JPEG quality {wishes.jpeg_quality} at short side {wishes.short_side}, sides 3 : 2, sentences of "
            f"{storage.SENTENCE_BYTES} bytes",
        ]
    lines += [
        f"{cores['images_per_second_per_core']:,.0f} images/s per core (benchmarks/results/data_cpu2_202611.md; "
        "--images-per-second-per-core, or measure with `dime profile data`), sentences aside"
        + ("" if wishes.cores_per_gpu else "; as many cores as needed"),
        f"GPUs at {place['watts']:,.0f} W, {storage.HOST_SHARE:.0%} more for their hosts, PUE {wishes.pue:g} (--pue)",
        "no evaluations, checkpoints, restarts or stragglers, and no filling of a store",
    ]
    if place["name"] == hardware.DEFAULT and wishes.hardware == hardware.DEFAULT:
        lines.insert(0, f"{place['gpus']} GPUs of the kind {place['name']} (--hardware, --gpus)")
    return lines

"""GPUs as their makers' data sheets have them, and how many of them stand where."""

import re
from dataclasses import dataclass, fields, replace
from typing import Any

from toolkit.errors import ConfigError
from toolkit.registry import did_you_mean

STUDENT_MFU = 0.25
"""Share of the peak that training a small tower reaches: an assumption, between the 11 % of the one public yardstick (4,600
A100 hours for a ViT-B/32 on 407M pairs, 32 times) and the 40 to 50 % of large language models."""
TEACHER_MFU = 0.45
"""The same of a large frozen tower, forward only: an assumption."""


@dataclass(frozen=True)
class Gpu:
    """One rank's device; decimal units, dense rates, links per direction."""

    tflops: float
    """bf16 products with fp32 accumulation, without sparsity (V100: fp16)."""
    fp32_tflops: float
    """What precision=fp32 gets: no tensor cores, torch's default."""
    memory_gb: float
    memory_gb_s: float
    watts: float
    """Board power limit."""
    link_gb_s: float
    """To the other GPUs of the node: NVLink, Infinity Fabric, or PCIe where there is neither."""
    network_gb_s: float
    """This GPU's share of the node's network cards: of usual nodes, not of the GPU."""


GPUS = {
    "v100": Gpu(125.0, 15.7, 32.0, 900.0, 300.0, 150.0, 12.5),
    "a100-40": Gpu(312.0, 19.5, 40.0, 1555.0, 400.0, 300.0, 25.0),
    "a100-80": Gpu(312.0, 19.5, 80.0, 2039.0, 400.0, 300.0, 25.0),
    "l40s": Gpu(362.0, 91.6, 48.0, 864.0, 350.0, 32.0, 25.0),
    "h100": Gpu(989.0, 67.0, 80.0, 3350.0, 700.0, 450.0, 50.0),
    "h200": Gpu(989.0, 67.0, 141.0, 4800.0, 700.0, 450.0, 50.0),
    "mi250x": Gpu(191.5, 23.9, 64.0, 1638.0, 280.0, 50.0, 12.5),
    "mi300x": Gpu(1307.0, 163.4, 192.0, 5300.0, 750.0, 448.0, 50.0),
}
"""By name: SXM boards of 8 where there are such, L40S on PCIe, MI250X as one of its two dies (that is what a rank gets)."""
DEFAULT = "h100"
OWN = {field.name for field in fields(Gpu)}


@dataclass(frozen=True)
class Cluster:
    """The GPUs of a run and what they reach."""

    name: str
    gpu: Gpu
    gpus: int
    gpus_per_node: int
    student_mfu: float = STUDENT_MFU
    teacher_mfu: float = TEACHER_MFU

    def flops_s(self, precision: str) -> float:
        """Peak of products in `fp32` or `bf16`."""
        return 1e12 * (self.gpu.fp32_tflops if precision == "fp32" else self.gpu.tflops)

    @property
    def nodes(self) -> int:
        """Whole ones."""
        return -(-self.gpus // self.gpus_per_node)

    @property
    def link_bytes_s(self) -> float:
        """What one rank sends per second in a ring over all of them: the slower of the links inside a node and all of the
        node's network cards together, which every ring passes once.
        """
        inside = self.gpu.link_gb_s
        return 1e9 * (inside if self.nodes == 1 else min(inside, self.gpus_per_node * self.gpu.network_gb_s))

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "gpus": self.gpus,
            "gpus_per_node": self.gpus_per_node,
            "nodes": self.nodes,
            "student_mfu": self.student_mfu,
            "teacher_mfu": self.teacher_mfu,
            **vars(self.gpu),
        }


def cluster_of(
    hardware: str,
    gpus: int | None = None,
    gpus_per_node: int | None = None,
    mfu: float | None = None,
    teacher_mfu: float | None = None,
) -> Cluster:
    """From `h100`, `h100x24`, or `tflops=200,memory_gb=48,...` with what is not given taken from an H100.

    Raises ConfigError for anything else.
    """
    name, gpu, count = parsed(hardware)
    if gpus is not None and count is not None and gpus != count:
        raise ConfigError(f"--hardware {hardware} says {count} GPUs and --gpus {gpus}; give one of the two")
    total = next(number for number in (gpus, count, 8) if number is not None)
    per_node = min(8, total) if gpus_per_node is None else gpus_per_node
    for option, value in (("--gpus", total), ("--gpus-per-node", per_node)):
        if value < 1:
            raise ConfigError(f"{option} ({value}) must be at least 1")
    for option, share in (("--mfu", mfu), ("--teacher-mfu", teacher_mfu)):
        if share is not None and not 0 < share <= 1:
            raise ConfigError(f"{option} ({share:g}) is a fraction of the peak, above 0 and at most 1, such as 0.25")
    chosen = STUDENT_MFU if mfu is None else mfu
    return Cluster(name, gpu, total, min(per_node, total), chosen, teacher_mfu or mfu or TEACHER_MFU)


def parsed(hardware: str) -> tuple[str, Gpu, int | None]:
    """Name, GPU, and the count if the words hold one."""
    if "=" in hardware:
        return "own", own_gpu(hardware), None
    word = hardware.lower()
    match = re.fullmatch(r"(.+?)x(\d+)", word)
    name, count = (match[1], int(match[2])) if match and word not in GPUS else (word, None)
    if count == 0:
        raise ConfigError(f"--hardware {hardware} has no GPU; give at least one")
    if name == "a100":
        raise ConfigError(f"--hardware {hardware}: there are a100-40 and a100-80; name one of the two")
    if name not in GPUS:
        raise ConfigError(
            f"--hardware {hardware}: no GPU named {name!r}{did_you_mean(name, GPUS)}; known: {', '.join(GPUS)}, each with a "
            "count as in h100x8, or your own numbers: tflops=200,memory_gb=48"
        )
    return name, GPUS[name], count


def own_gpu(words: str) -> Gpu:
    """The numbers given, the rest an H100's."""
    given: dict[str, float] = {}
    for word in words.split(","):
        key, _, value = word.partition("=")
        if key not in OWN:
            raise ConfigError(f"--hardware {word}: no number of a GPU{did_you_mean(key, OWN)}; known: {', '.join(OWN)}")
        try:
            given[key] = float(value)
        except ValueError as error:
            raise ConfigError(f"--hardware {word}: {value!r} is not a number") from error
        if not 0 < given[key] < float("inf"):
            raise ConfigError(f"--hardware {word}: must be above 0")
    return replace(GPUS[DEFAULT], **given)

"""What crosses between ranks in one step, by collective, and how long a ring takes over it.

Bytes are those that one rank sends (and receives). In a ring of N ranks an all-gather or reduce-scatter of S bytes in all
sends S (N-1)/N of them, an all-reduce both. What DeepSpeed 0.19.8 issues per step was read in its source:

* stage 0 and 1 all-reduce the gradient once (stage 1 does not scatter it: `use_multi_rank_bucket_allreduce`);
* stage 2 all-reduces it after each of the K backwards, stage 3 reduce-scatters it there;
* stages 1 and 2 all-gather the parameters after the update; stage 3 gathers the small ones (below the persistence threshold)
  once per update and the others once per forward and backward, whose backward finds them whole below 1e9 numbers in all.
  Where features come first, the order of passes changes, DeepSpeed releases at once and each pass gathers anew: counted were
  3 K + 5/3 gathers (benchmarks/results/scaling_cpu2_202611.md), the model has 3 K + 2.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from toolkit.estimate.hardware import Cluster
from toolkit.estimate.traffic import Traffic

Kind = Literal["all_gather", "reduce_scatter", "all_reduce"]
Backend = Literal["ring", "gloo"]
FACTORS: dict[Backend, dict[Kind, int]] = {
    "ring": {"all_gather": 1, "reduce_scatter": 1, "all_reduce": 2},
    "gloo": {"all_gather": 1, "reduce_scatter": 2, "all_reduce": 2},
}
"""Times S (N-1)/N. gloo has no reduce-scatter: torch gives it an all-reduce and keeps a part."""
EFFICIENCY = 0.7
"""Share of a link's rate that large collectives reach: an assumption."""
LATENCY = 15e-6
"""Seconds for each doubling of the ranks in one collective call: an assumption."""
PERSISTENT = 100_000
"""Parameters with fewer numbers are never in pieces in stage 3 (DeepSpeed's default)."""
BUCKET = 500_000_000
"""Numbers that are reduced at a time (DeepSpeed's default)."""


@dataclass(frozen=True)
class Message:
    """`calls` collectives of `payload` bytes in all (the whole that is gathered, scattered or reduced)."""

    part: Literal["features", "gradients", "parameters"]
    kind: Kind
    payload: float
    calls: int = 1

    def sent(self, ranks: int, backend: Backend = "ring") -> float:
        """Bytes that one rank sends."""
        return FACTORS[backend][self.kind] * self.payload * (ranks - 1) / ranks

    def seconds(self, cluster: Cluster) -> float:
        """On NCCL's ring; not hidden behind anything, as `overlap_comm` is off."""
        if cluster.gpus == 1:
            return 0.0
        waiting = self.calls * LATENCY * math.ceil(math.log2(cluster.gpus))
        return self.sent(cluster.gpus) / (cluster.link_bytes_s * EFFICIENCY) + waiting


@dataclass(frozen=True)
class Sharding:
    """How the trained parameters lie: numbers in all, and what a ds_config says about them."""

    stage: int
    parameters: int
    persistent: int = 0
    """Numbers in parameters below the persistence threshold."""
    tensors: int = 1
    bucket: int = BUCKET

    @property
    def bytes(self) -> float:
        """fp32, as parameters and gradients are under autocast too."""
        return 4.0 * self.parameters


def feature_messages(traffic: Traffic, times: int = 1) -> list[Message]:
    """What the losses exchange in one step, in which they are computed so many times."""
    found = []
    for gathered in traffic.gathers:
        found.append(Message("features", "all_gather", times * gathered.bytes, times))
        if gathered.backward:
            found.append(Message("features", "reduce_scatter", times * gathered.bytes, times))
    return found + [Message("features", "all_reduce", times * 2 * size, times * 2) for size in traffic.log_sum_exps]


def state_messages(sharding: Sharding, grad_accum_steps: int = 1, *, features_first: bool = False) -> list[Message]:
    """What the engine sends for gradients and parameters in one step of `grad_accum_steps` backwards.

    `features_first`: each micro-batch goes forward twice, the first time without backward.
    """
    size, k = sharding.bytes, grad_accum_steps
    buckets = math.ceil(sharding.parameters / sharding.bucket)
    if sharding.stage == 0:
        return [Message("gradients", "all_reduce", size, buckets)]
    if sharding.stage in (1, 2):
        times = k if sharding.stage == 2 else 1
        return [
            Message("gradients", "all_reduce", times * size, times * buckets),
            Message("parameters", "all_gather", size, 2),
        ]
    pieces, whole = size - 4.0 * sharding.persistent, 4.0 * sharding.persistent
    found = [
        Message("gradients", "reduce_scatter", k * size, k * buckets),
        Message("parameters", "all_gather", whole, 1),
    ]
    passes = 3 * k + 2 if features_first else k
    return [*found, Message("parameters", "all_gather", passes * pieces, passes * sharding.tensors)]


def sent_by_part(messages: Iterable[Message], ranks: int, backend: Backend = "ring") -> dict[str, float]:
    """Bytes that one rank sends per step."""
    found = {"features": 0.0, "gradients": 0.0, "parameters": 0.0}
    for message in messages:
        found[message.part] += message.sent(ranks, backend)
    return found


def seconds_by_part(messages: Iterable[Message], cluster: Cluster) -> dict[str, float]:
    """Seconds per step."""
    found = {"features": 0.0, "gradients": 0.0, "parameters": 0.0}
    for message in messages:
        found[message.part] += message.seconds(cluster)
    return found


def as_dicts(messages: Iterable[Message], ranks: int) -> list[dict[str, Any]]:
    """As JSON has them."""
    return [{**vars(message), "sent_bytes": message.sent(ranks)} for message in messages]

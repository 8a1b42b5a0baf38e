"""Bytes and bytes per GPU against numbers worked out by hand."""

import pytest

from toolkit.estimate.hardware import GPUS, cluster_of
from toolkit.estimate.memory import LOSS_WORKSPACE, OVERHEAD_BYTES, all_stages, largest_batch, memory_at, state_bytes
from toolkit.estimate.network import (
    EFFICIENCY,
    LATENCY,
    Message,
    Sharding,
    feature_messages,
    seconds_by_part,
    sent_by_part,
    state_messages,
)
from toolkit.estimate.traffic import Gathered, Traffic

P = 1_000_000
"""Parameters, 4 MB; an eighth of them in small tensors."""


def sharding(stage: int) -> Sharding:
    return Sharding(stage, P, persistent=P // 8, tensors=10)


def sent(stage: int, ranks: int, k: int = 1, first: bool = False, backend: str = "ring") -> dict[str, float]:
    return sent_by_part(state_messages(sharding(stage), k, features_first=first), ranks, backend)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stage", "gradients", "parameters"),
    [
        (0, 2 * 4e6 * 3 / 4, 0),
        (1, 2 * 4e6 * 3 / 4, 4e6 * 3 / 4),  # DeepSpeed all-reduces here too
        (2, 2 * 4e6 * 3 / 4, 4e6 * 3 / 4),
        (3, 4e6 * 3 / 4, 4e6 * 3 / 4),
    ],
)
def test_one_backward_on_four_ranks(stage: int, gradients: float, parameters: float) -> None:
    found = sent(stage, 4)
    assert (found["gradients"], found["parameters"]) == pytest.approx((gradients, parameters))


def test_accumulation_is_reduced_once_in_stage_1_and_each_time_above() -> None:
    assert sent(1, 4, k=3, first=True) == sent(1, 4)
    assert sent(2, 4, k=3)["gradients"] == pytest.approx(3 * sent(2, 4)["gradients"])
    assert sent(3, 4, k=3)["gradients"] == pytest.approx(3 * sent(3, 4)["gradients"])
    once, thrice = sent(3, 4)["parameters"], sent(3, 4, k=3, first=True)["parameters"]
    assert thrice - once == pytest.approx((3 * 3 + 2 - 1) * 4e6 * 7 / 8 * 3 / 4)  # the large ones, in every pass


def test_one_rank_sends_nothing() -> None:
    assert sum(sent(3, 1, k=4).values()) == 0
    assert sum(seconds_by_part(state_messages(sharding(1)), cluster_of("h100", gpus=1)).values()) == 0


def test_gloo_keeps_a_part_of_an_all_reduce() -> None:
    assert sent(3, 2, backend="gloo")["gradients"] == 2 * sent(3, 2)["gradients"]
    assert sent(1, 2, backend="gloo") == sent(1, 2)


def test_features_of_the_papers_batch() -> None:
    """12,288 x 768 fp32 is 37.7 MB: texts and images of the teacher once, images of the student there and back."""
    whole = 4.0 * 12_288 * 768
    traffic = Traffic((Gathered(12_288, 768, False), Gathered(12_288, 768, True)), (4.0 * 2 * 12_288,), 0.0, 0)
    found = sent_by_part(feature_messages(traffic), 8)["features"]
    assert found == pytest.approx((3 * whole + 4 * 4.0 * 2 * 12_288) * 7 / 8)
    assert traffic.memory_bytes == pytest.approx(whole * (1.5 + 2.5))


def test_seconds_follow_from_the_slower_link() -> None:
    message = Message("gradients", "all_reduce", 1e9, calls=2)
    node, two = cluster_of("h100", gpus=8), cluster_of("h100", gpus=16)
    assert node.link_bytes_s == 450e9 and two.link_bytes_s == 400e9 and two.nodes == 2
    assert message.seconds(node) == pytest.approx(2e9 * 7 / 8 / (450e9 * EFFICIENCY) + 2 * LATENCY * 3)
    assert message.seconds(two) == pytest.approx(2e9 * 15 / 16 / (400e9 * EFFICIENCY) + 2 * LATENCY * 4)
    lone = cluster_of("h100", gpus=16, gpus_per_node=1)
    assert lone.link_bytes_s == 50e9


@pytest.mark.parametrize(
    ("stage", "gigabytes"),
    [
        (0, 4 + 4 + 8 + 2),  # parameters, gradients, two moments, a bucket flattened
        (1, 4 + (4 + 0.5) + 3 * 0.5 + 2 + 2),  # bucket of 5e8 fp32 numbers, and what of it is flattened
        (2, 4 + 0.5 + 3 * 0.5 + 2 + 2),
        (3, 0.5 + 4 + 0.5 + 3 * 0.5 + 2 + 2),  # all of it live: below 1e9 numbers
    ],
)
def test_states_of_a_billion_numbers_on_eight_ranks(stage: int, gigabytes: float) -> None:
    found = state_bytes(Sharding(stage, 1_000_000_000), 8)
    assert sum(found.values()) / 1e9 == pytest.approx(gigabytes)


def test_a_small_model_pays_for_the_whole_bucket() -> None:
    """88 million numbers and a bucket of 500 million: 2 GB, unless reduce_bucket_size is lowered."""
    vit = Sharding(1, 88_045_824)
    assert state_bytes(vit, 8)["buckets"] == pytest.approx(2e9 + 4 * 88_045_824)
    assert state_bytes(Sharding(1, 88_045_824, bucket=100_000_000), 8)["buckets"] == pytest.approx(4e8 + 4 * 88_045_824)
    assert state_bytes(vit, 8, offloaded=True)["optimizer"] == 0
    assert state_bytes(vit, 8, moments=0)["optimizer"] == pytest.approx(4 * 88_045_824 / 8)


def test_the_whole_of_a_gpu() -> None:
    rest = dict(ranks=4, moments=2, teacher_weights=8e8, teacher_peak=3e9, student_peak=2e9, losses=LOSS_WORKSPACE)
    stages = all_stages(sharding(1), **rest)
    assert [one.stage for one in stages] == [0, 1, 2, 3]
    one = stages[1]
    assert one.parts["activations"] == 3e9  # the teacher's, which is larger
    assert one.total == pytest.approx(
        sum(state_bytes(sharding(1), 4).values()) + 8e8 + 3e9 + LOSS_WORKSPACE + OVERHEAD_BYTES
    )
    assert one.as_dict(1e9)["fits"] is False and one.as_dict(1e11)["fits"] is True
    free = one.total - 3e9
    assert largest_batch(one, free + 6e9, 100) == pytest.approx(200, abs=1)
    assert largest_batch(one, free - 1, 100) == 0
    assert memory_at(sharding(3), offloaded=True, **rest).total < stages[3].total


def test_the_table_of_gpus_is_of_dense_rates() -> None:
    """Sparse rates, which data sheets print first, would be twice these."""
    assert GPUS["h100"].tflops < 1000 and GPUS["a100-80"].tflops == 312 and GPUS["l40s"].tflops < 400
    assert all(gpu.network_gb_s <= gpu.link_gb_s < gpu.memory_gb_s for gpu in GPUS.values())

"""What rank 0 makes of facts that other ranks might report: the odd one out is named, and nobody else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doctor.looking import crew, not_good, only, playground_run

from toolkit.config import Run
from toolkit.doctor import clock, compute, devices, disk, limits, models, network, shards, stores, versions

HOSTS = ("a", "a", "b", "b")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return playground_run(tmp_path, tmp_path / "run")


def test_the_odd_version_is_named(run: Run) -> None:
    """With the version of the others and how many they are."""
    facts: dict[int, Any] = {rank: {"python": "3.11", "torch": "2.15"} for rank in range(4)}
    assert not_good(versions.judge(facts, crew(run, HOSTS))) == []
    facts[2] = {"python": "3.11", "torch": "2.14"}
    row = only(versions.judge(facts, crew(run, HOSTS)))
    assert (row.what, row.where, row.found, row.verdict) == ("torch", "rank 2 (b)", "2.14", "bad")
    assert row.wanted == "2.15, as on 3 others"
    facts[3] = {"python": "3.11", "torch": None}
    rows = not_good(versions.judge(facts, crew(run, HOSTS)))
    assert [(row.where, row.found) for row in rows] == [("rank 2 (b)", "2.14"), ("rank 3 (b)", "None")]


def test_where_two_differ_rank_0_is_right(run: Run) -> None:
    """There is no majority."""
    row = only(versions.judge({0: {"torch": "1"}, 1: {"torch": "2"}}, crew(run, ("a", "b"))))
    assert row.where == "rank 1 (b)" and row.wanted == "1, as on 1 other"


def gpu(**more: Any) -> dict[str, Any]:
    return {"kind": "GPU", "name": "H100", "uuid": "u0", "free": 79 << 30, "total": 80 << 30, "visible": 2, **more}


def test_gpus(run: Run) -> None:
    """Shared, occupied, idle, absent, of another kind."""
    context = crew(run, HOSTS)
    facts = {rank: gpu(uuid=f"u{rank}") for rank in range(4)}
    rows = devices.judge(facts, context)
    assert not_good(rows) == [] and "u3 79.0 GiB of 80.0 GiB free" in rows[3].found and "(b)" in rows[3].where
    shared = not_good(devices.judge(facts | {1: gpu(uuid="u0")}, context))
    assert [row.where for row in shared] == ["rank 0 (a)", "rank 1 (a)"] and {row.verdict for row in shared} == {"bad"}
    held = only(devices.judge(facts | {1: gpu(uuid="u1", free=60 << 30)}, context))
    assert (held.where, held.verdict) == ("rank 1 (a)", "warn") and "nvidia-smi" in held.todo
    idle = only(devices.judge(facts | {2: gpu(uuid="u2", visible=8)}, context))
    assert idle.verdict == "warn" and "8 GPUs are visible to 2" in idle.todo
    one_each = {rank: gpu(uuid=f"u{rank}", visible=1) for rank in range(4)}
    assert not_good(devices.judge(one_each, context)) == []
    none = only(devices.judge(facts | {3: gpu(kind="CPU", name="CPU", uuid="")}, context))
    assert none.verdict == "bad" and none.wanted == "a GPU as the others have"
    other = only(devices.judge(facts | {3: gpu(uuid="u3", name="A100")}, context))
    assert (other.verdict, other.wanted) == ("warn", "H100")


def test_slow_ranks(run: Run) -> None:
    """Below 0.85 of the median, at it not."""
    facts: dict[int, Any] = {rank: {"tflops": 100.0, "same": True, "dtype": "float32"} for rank in range(4)}
    context = crew(run, HOSTS)
    assert not_good(compute.judge(facts | {3: facts[3] | {"tflops": 85.0}}, context)) == []
    slow = only(compute.judge(facts | {3: facts[3] | {"tflops": 84.0}}, context))
    assert slow.where == "rank 3 (b)" and slow.verdict == "bad" and "0.84 of the median" in slow.found
    wrong = only(compute.judge(facts | {1: facts[1] | {"same": False}}, context))
    assert wrong.where == "rank 1 (a)" and wrong.found == "two results"


def test_clocks(run: Run) -> None:
    """Ahead and behind; half a second is none of our business."""
    context = crew(run, HOSTS)
    assert not_good(clock.judge({0: {"1": 0.5, "2": -0.5, "3": 0.0}}, context)) == []
    rows = not_good(clock.judge({0: {"1": 0.5, "2": -3.0, "3": 7.0}}, context))
    assert [(row.where, row.found) for row in rows] == [
        ("rank 2 (b)", "3.0 s behind rank 0"), ("rank 3 (b)", "7.0 s ahead of rank 0"),
    ]  # fmt: skip


def plenty(**more: Any) -> dict[str, Any]:
    return {
        "shared": 1 << 30, "shared_wanted": 1 << 28, "files": 1024, "files_wanted": 800, "cores": [0, 1, 2, 3],
        "quota": None, "cores_wanted": 2, "workers": 1, **more,
    }  # fmt: skip


def test_limits_of_a_host(run: Run) -> None:
    """What ranks of a host share is added up; other hosts are not to blame."""
    context = crew(run, HOSTS)
    good = {rank: plenty() for rank in range(4)}
    assert not_good(limits.judge(good, context)) == []
    greedy = plenty(shared_wanted=600 << 20)
    row = only(limits.judge(good | {2: greedy, 3: greedy}, context))
    assert (row.what, row.where, row.verdict) == ("/dev/shm", "ranks 2, 3 (b)", "bad") and row.wanted.startswith(
        "1.2 GiB"
    )
    assert only(limits.judge(good | {2: plenty(shared=None), 3: plenty(shared=None)}, context)).found == "not there"
    files = only(limits.judge(good | {0: plenty(files=512)}, context))
    assert (files.where, files.verdict) == ("ranks 0, 1 (a)", "bad") and "ulimit -n" in files.todo
    assert not_good(limits.judge(good | {0: plenty(files=-1)}, context)) == []
    cores = only(limits.judge(good | {rank: plenty(cores_wanted=3) for rank in (0, 1)}, context))
    assert (cores.what, cores.found, cores.verdict) == ("cores per rank", "2.0", "warn")
    bound = {rank: plenty(cores=[rank, 8 + rank]) for rank in range(4)}  # each rank its own: nothing is shared
    assert not_good(limits.judge(bound, context)) == []
    assert len(not_good(limits.judge(good | {0: plenty(quota=3.0)}, context))) == 1


def test_sums(run: Run) -> None:
    """Wrong on one rank; slow over GPUs."""
    context = crew(run, HOSTS)
    facts: dict[int, Any] = {rank: {"wrong": 0, "count": 1 << 26, "seconds": 1.0, "latency": 1e-4} for rank in range(4)}
    assert not_good(network.judge(facts, context)) == []
    wrong = only(network.judge(facts | {2: facts[2] | {"wrong": 5}}, context))
    assert wrong.where == "rank 2 (b)" and wrong.found == "5 of 67,108,864 sums are wrong"
    context.device = network.torch.device("cuda")
    slow = only(network.judge(facts, context))  # 0.4 GB/s between two hosts
    assert slow.verdict == "warn" and "0.40 GB/s" in slow.found and "NCCL_DEBUG" in slow.todo
    assert not_good(network.judge({rank: one | {"seconds": 0.1} for rank, one in facts.items()}, context)) == []


def test_an_out_dir_that_is_not_shared(run: Run) -> None:
    """Those that do not see rank 0's file, and those that see it late."""
    context = crew(run, HOSTS)
    row = only(disk.judge_shared({0: 0.0, 1: 0.1, 2: None, 3: None}, context))
    assert (row.where, row.verdict) == ("ranks 2, 3 (b)", "bad") and "all nodes mount" in row.todo
    late = only(disk.judge_shared({0: 0.0, 1: 0.1, 2: 8.0, 3: 0.0}, context))
    assert late.verdict == "warn" and "8.0 s" in late.found


def test_slow_disks(run: Run) -> None:
    """And bytes that come back as others."""
    one = {"folder": "/x", "write": 2e6, "read": 1e9, "same": True, "free": 1 << 40, "measured": True}
    row = only(disk.judge({0: {"out_dir": one}}, crew(run, ("a",))))
    assert row.verdict == "warn" and "2 MB/s" in row.found
    torn = only(disk.judge({0: {"out_dir": one | {"write": 1e9, "same": False}}}, crew(run, ("a",))))
    assert torn.verdict == "bad" and "other bytes" in torn.found


def test_memory_of_a_fake_batch(run: Run) -> None:
    """With the optimizer's state it must fit."""
    facts: dict[int, Any] = {
        rank: {"first": 2.0, "seconds": 1.0, "peak": 60 << 30, "total": 80 << 30, "optimizer": 1 << 30, "frozen": 0}
        for rank in range(4)
    }
    context = crew(run, HOSTS)
    assert not_good(models.judge_batch(facts, context)) == []
    tight = only(models.judge_batch(facts | {1: facts[1] | {"peak": 75 << 30}}, context))
    assert (tight.where, tight.verdict) == ("rank 1 (a)", "warn")
    full = only(models.judge_batch(facts | {1: facts[1] | {"peak": 78 << 30}}, context))
    assert full.verdict == "bad" and "data.batch_size_per_gpu" in full.todo


def test_a_problem_that_several_ranks_see_is_one_row(run: Run) -> None:
    """Of shards and of stores; many shards are not all told."""
    problem = ["bad", "/x/00001.tar", "5 bytes", "6", "copy"]
    look = {"shards": 2, "bytes": 5, "samples": 3, "hashed": 0, "decoded": 1, "remote": 0, "problems": [problem]}
    row = only(shards.judge({rank: {"data.images": look} for rank in range(4)}, crew(run, HOSTS)))
    assert (row.what, row.where, row.found) == ("/x/00001.tar", "all 4 ranks", "5 bytes")
    many = look | {"problems": [[*problem[:1], f"/x/{number}.tar", *problem[2:]] for number in range(30)]}
    rows = not_good(shards.judge({0: {"data.images": many}}, crew(run, HOSTS)))
    assert len(rows) == 11 and rows[-1].found == "20 more such shards" and rows[-1].verdict == "bad"
    said = {"what": "teacher.store=/s", "found": "of another", "verdict": "bad", "todo": "embed"}
    row = only(stores.judge({0: [said], 1: None, 2: [said], 3: None}, crew(run, HOSTS)))
    assert row.where == "ranks 0, 2 (a, b)" and row.verdict == "bad"


def test_the_cache_must_hold_what_it_may(run: Run) -> None:
    """Copies that lie there already count."""
    remote = replace(run, data=replace(run.data, cache_gigabytes=10.0))
    one = {
        "folder": "/x",
        "write": 1e9,
        "read": 1e9,
        "same": True,
        "free": 6 * 10**9,
        "taken": 4 * 10**9,
        "measured": True,
    }
    assert not_good(disk.judge({0: {"data.cache_dir": one}}, crew(remote, ("a",)))) == []
    row = only(disk.judge({0: {"data.cache_dir": one | {"taken": 0}}}, crew(remote, ("a",))))
    assert row.verdict == "bad" and row.wanted == "data.cache_gigabytes=10" and row.found.startswith("6.0 GB")

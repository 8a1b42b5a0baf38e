"""The step benchmark's own parts: what its stopwatch counts, what its loops compute, what its table divides."""

import argparse
import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from toolkit.config import FIELD_PRESETS
from toolkit.embeddings import LOCAL, Embeddings
from toolkit.losses import build_losses

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
from step_dimefm import losses_of  # noqa: E402
from step_flops import model_flops  # noqa: E402
from step_table import ratio_of, summary, used  # noqa: E402
from step_variants import DEFAULT_GROUPS, Machine, Ratio, plan  # noqa: E402
from stopwatch import Finished, Stopwatch  # noqa: E402

sys.path.remove(BENCHMARKS)  # a benchmark and a folder of tests may have one name, such as data

CPU = Machine(cuda=False, cores=2, batch=16, batches=(8, 32))
GPU = Machine(cuda=True, cores=16, batch=1024, batches=(256,))


def test_stopwatch_counts_steps_after_the_warmup_and_ends_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow warm-up is left out; a step reaches from one request to the next, its wait is the fetch."""
    clock = [0.0]
    monkeypatch.setattr("stopwatch.time.perf_counter", lambda: clock[0])
    watch = Stopwatch(tmp_path / "copy0", warmup=2, steps=3)
    work = iter([100.0, 100.0, 5.0, 6.0, 7.0])

    def fetch() -> None:
        clock[0] += 1

    def loop() -> None:
        while True:
            watch.take(fetch)
            clock[0] += next(work)

    with pytest.raises(Finished):
        loop()
    found = json.loads((tmp_path / "copy0.0.json").read_text())
    assert next(work, None) is None
    assert found["steps"] == [6.0, 7.0, 8.0]
    assert found["waits"] == [1.0, 1.0, 1.0]
    assert found["seconds"] == 21.0
    assert found["peak_bytes"] > 2**20


def test_the_compared_loop_computes_the_losses_that_ours_does() -> None:
    """Else the two would not do the same work."""
    torch.manual_seed(0)
    v, t = torch.randn(6, 16), torch.randn(6, 16)
    z, mine = ((v + 0.1 * torch.randn(6, 16)).requires_grad_() for _ in range(2))
    with torch.no_grad():
        mine.copy_(z)
    theirs = losses_of(z, v, t)
    theirs["total"].backward()
    ours = build_losses(FIELD_PRESETS["dimefm"])(Embeddings(image=mine), Embeddings(image=v, text=t), LOCAL)
    ours.total.backward()
    assert theirs["vl"].item() == pytest.approx(ours.terms["vl"].item(), rel=1e-4)
    assert theirs["pvl"].item() == pytest.approx(ours.terms["pvl"].item(), rel=1e-4)
    assert z.grad is not None and mine.grad is not None
    assert F.cosine_similarity(z.grad.flatten(), mine.grad.flatten(), 0).item() > 0.9999
    assert z.grad.norm().item() == pytest.approx(mine.grad.norm().item(), rel=1e-3)


def test_model_flops_are_those_of_the_architecture() -> None:
    """ViT-B/32 by hand: patches, twelve blocks of 12 width^2 and the attention over 50 tokens, the projection."""
    found = model_flops("ViT-B-32-quickgelu", 768)
    width, tokens = 768, 50
    blocks = 12 * (12 * tokens * width**2 + 2 * tokens**2 * width)
    by_hand = 2 * (49 * 3 * 32**2 * width + blocks + width * 768)
    assert found["image"] == pytest.approx(by_hand, rel=1e-3)
    assert found["image_train"] == pytest.approx(3 * by_hand - 2 * 49 * 3 * 32**2 * width, rel=1e-2)
    assert 0 < found["text"] < found["text_train"]


@pytest.mark.parametrize("machine", [CPU, GPU], ids=["cpu", "gpu"])
def test_every_ratio_is_of_variants_that_exist(machine: Machine) -> None:
    """Keys are unique, and the default groups are there."""
    found = plan(machine)
    keys = [one.key for one in found.variants]
    assert len(set(keys)) == len(keys)
    assert {name for ratio in found.ratios for name in (ratio.above, ratio.below)} <= set(keys)
    assert machine.cuda or set(DEFAULT_GROUPS) <= {one.group for one in found.variants}


def test_ratios_are_within_rounds_and_leave_failures_out() -> None:
    """A launch that failed takes its round with it."""
    runs = {"a": [{"rate": 18.0}, {"rate": 4.0}, "died"], "b": [{"rate": 10.0}, {"rate": 4.0}, {"rate": 1.0}]}
    assert ratio_of(Ratio("", "a", "b", times=2), runs) == [0.9, 0.5]  # type: ignore[arg-type]
    assert ratio_of(Ratio("", "a", "c"), runs) == []  # type: ignore[arg-type]


def test_model_flops_utilisation_of_a_pinned_rank_is_of_its_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """One rank on one of two cores that needs all of that core's rate has 100 %."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    variants = {one.key: one for one in plan(CPU).variants}
    raw = {
        "rates": [{"fp32": 100.0, "bf16": 400.0}, {"fp32": 90.0, "bf16": 400.0}],
        "flops": {"student": {"image_train": 30.0, "text_train": 20.0}, "teacher": {"image": 180.0, "text": 20.0}},
        "runs": {"stored": ["it died"]},
    }
    asked = argparse.Namespace(cuda=False, peak=0.0)
    assert used(variants["solo"], raw, asked, rate=50 / 30) == pytest.approx(1.0)
    assert used(variants["two"], raw, asked, rate=100 / 30) == pytest.approx(1.0)
    assert used(variants["live"], raw, asked, rate=1.0) == pytest.approx(0.3 + 0.5)
    assert used(variants["open_clip"], raw, asked, rate=0.4) == pytest.approx(0.4 * (0.5 + 2.0))
    assert summary(variants["stored"], raw, asked)["failed"] == "it died"

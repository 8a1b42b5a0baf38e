"""A loss or gradient that is not finite: every stage leaves the weights alone; stopping or skipping as the run says."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from toolkit import checkpoint
from toolkit import step as step_module
from toolkit.agreement import NonFiniteLoss
from toolkit.config import Checkpoint, Faults, Run
from toolkit.playground.shards import write_world
from toolkit.step import Step
from toolkit.train import train

sys.path.insert(0, str(Path(__file__).parent))
from faults_worker import run_of  # the folder of a script is its import path; tests are no package

Spoil = Callable[[pytest.MonkeyPatch, tuple[int, ...]], None]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(
        tmp_path_factory.mktemp("nonfinite"), images=96, texts=96, test_images_per_class=1, test_pairs=20
    )


def run_with(world: Path, out_dir: Path, stage: str = "zero1", **faults: Any) -> Run:
    """Four steps, all checkpoints kept."""
    run = run_of(world, out_dir)
    return replace(
        run, steps=4, deepspeed=f"ds_configs/{stage}.json", optim=replace(run.optim, warmup_steps=1, gradient_clipping=1.0),
        checkpoint=Checkpoint(every_steps=1, keep_last=9), faults=Faults(**faults),
    )  # fmt: skip


def spoil_loss(monkeypatch: pytest.MonkeyPatch, steps: tuple[int, ...], *, first_only: bool = False) -> None:
    """The teacher says NaN in these steps (`first_only`: of the first micro-batch), so the loss is NaN."""
    plain, computing, at = step_module.teacher_embeddings, Step.forward_backward, [-1]
    seen: list[int] = []

    def spoilt(teachers: Any, tensors: Any) -> Any:
        found = plain(teachers, tensors)
        seen.append(at[0])
        if at[0] in steps and not (first_only and seen.count(at[0]) > 1):
            object.__setattr__(found, "image", found.image * float("nan"))
        return found

    def noted(self: Step, tensors: Any, number: int, **more: Any) -> Any:
        at[0] = number
        return computing(self, tensors, number, **more)

    monkeypatch.setattr(step_module, "teacher_embeddings", spoilt)
    monkeypatch.setattr(Step, "forward_backward", noted)


def spoil_gradient(monkeypatch: pytest.MonkeyPatch, steps: tuple[int, ...]) -> None:
    """The loss is finite, the gradient of one layer is not."""
    computing = Step.forward_backward

    def spoilt(self: Step, tensors: Any, number: int, **more: Any) -> Any:
        kinds = torch.nn.Linear | torch.nn.Conv2d
        layer = next(module for module in self.engine.module.student.modules() if isinstance(module, kinds))
        if number in steps:
            plain = layer.forward
            monkeypatch.setattr(layer, "forward", lambda x: Spoilt.apply(plain(x)))
        found = computing(self, tensors, number, **more)
        if number in steps:
            monkeypatch.setattr(layer, "forward", plain)
        return found

    monkeypatch.setattr(Step, "forward_backward", spoilt)


class Spoilt(torch.autograd.Function):
    """The identity, with an infinite gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return torch.full_like(grads[0], float("inf"))


def weights(run: Run, step: int) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.folder_of(Path(run.out_dir), step) / "student.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("stage", ["zero0", "zero1", "zero2", "zero3"])
@pytest.mark.parametrize("spoil", [spoil_loss, spoil_gradient])
def test_skipped_in_every_stage(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Spoil, stage: str
) -> None:
    """Step 2 changes nothing, the others do; it is counted, its samples are written down, training goes on."""
    spoil(monkeypatch, (2,))
    run = run_with(world, tmp_path / "run", stage, nonfinite="skip")
    train(run)
    assert same(weights(run, 2), weights(run, 3)), "the update of the third step must be left out"
    assert not same(weights(run, 1), weights(run, 2)) and not same(weights(run, 3), weights(run, 4))
    assert all(value.isfinite().all() for value in weights(run, 4).values())
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["faults/nonfinite_steps"] for line in lines] == [0, 0, 1, 1]
    keys = json.loads((tmp_path / "run" / "nonfinite" / "step_00000002_rank_00000.json").read_text())["keys"]
    assert len(keys["images"]) == len(keys["texts"]) == 24


@pytest.mark.parametrize("accumulation", ["global_batch", "per_micro_batch"])
def test_one_bad_micro_batch_of_two(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulation: Any
) -> None:
    """It is told once, and the whole step is left out."""
    spoil_loss(monkeypatch, (2,), first_only=True)
    run = run_with(world, tmp_path / "run", nonfinite="skip")
    train(replace(run, data=replace(run.data, batch_size_per_gpu=12, accumulation=accumulation)))
    assert same(weights(run, 2), weights(run, 3)) and not same(weights(run, 3), weights(run, 4))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["faults/nonfinite_steps"] for line in lines] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_loss, r"step 2: the loss is not finite \(rank 0: vl, pvl\)"),
        (spoil_gradient, "step 2: the gradient is not finite"),
    ],
)
def test_stopped(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Spoil, said: str) -> None:
    spoil(monkeypatch, (2,))
    run = run_with(world, tmp_path / "run")
    with pytest.raises(NonFiniteLoss, match=said):
        train(run)
    assert [checkpoint.step_of(folder) for folder in checkpoint.steps_saved(Path(run.out_dir))] == [1, 2]
    monkeypatch.undo()
    train(replace(run, faults=Faults(nonfinite="skip")))  # another answer to faults is no other run
    assert weights(run, 4)


def test_too_many_in_a_row_stop_the_run(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_loss(monkeypatch, (1, 2, 3))
    with pytest.raises(NonFiniteLoss, match=r"step 3: the loss is not finite .*, for the 3\. time in a row"):
        train(run_with(world, tmp_path / "run", nonfinite="skip", nonfinite_limit=3))


def test_resuming_after_a_skipped_step_is_the_same(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_loss(monkeypatch, (1,))
    whole = run_with(world, tmp_path / "whole", nonfinite="skip")
    train(whole)
    parts = run_with(world, tmp_path / "parts", nonfinite="skip")
    train(replace(parts, stop_at_step=2))
    train(parts)
    assert same(weights(whole, 4), weights(parts, 4))

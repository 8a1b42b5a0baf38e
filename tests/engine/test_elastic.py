"""A run goes on with another number of ranks and in another ZeRO stage as if nothing had changed, up to rounding."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from launch_ranks import run_ranks
from safetensors.torch import load_file, save_file

from toolkit import reshape
from toolkit.checkpoint import files, resume
from toolkit.errors import CheckpointError
from toolkit.playground.shards import write_world
from toolkit.train import train

sys.path.insert(0, str(Path(__file__).parent))
from elastic_worker import CUT, LAST, noted, run_of  # the folder of a script is its import path; tests are no package

WORKER = Path(__file__).with_name("elastic_worker.py")
STAGES = ("zero0", "zero1", "zero2", "zero3")
BOUND = 1e-5
"""Relative for losses, absolute for weights; measured 2.6e-7 and 7.3e-8. Without the moments 0.14 and 0.004."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors, and other processes beside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(one_thread, tmp_path_factory) -> Path:
    """`one`: one rank, four steps in zero1. `two_<stage>`: two ranks. `one_on_two_<stage>`: `one` cut, gone on."""
    folder = tmp_path_factory.mktemp("elastic")
    write_world(folder / "world", images=192, texts=192, test_images_per_class=1, test_pairs=20)
    classes = {"classnames": ["red circle", "blue square", "green star"], "templates": ["a {}", "a picture of a {}"]}
    (folder / "classes.json").write_text(json.dumps(classes))
    train(run_of(folder, "zero1", "one"))
    for stage in STAGES:
        as_it_was(folder, "one", f"one_on_two_{stage}")
    names = [(stage, f"{name}_{stage}") for name in ("two", "one_on_two") for stage in STAGES]
    run_ranks(WORKER, str(folder), *(f"{stage}/{name}/{LAST}/0/12" for stage, name in names))
    return folder


def as_it_was(folder: Path, name: str, copy: str) -> Path:
    """A copy of a run as it was after two steps."""
    shutil.copytree(folder / name, folder / copy)
    shutil.rmtree(folder / copy / "checkpoints" / f"step_{LAST:08d}", ignore_errors=True)
    return folder / copy


def vouch_for(saved: Path) -> None:
    """A manifest that fits whatever lies there now."""
    (saved / "manifest.json").unlink()
    found = {str(path.relative_to(saved)): files.written(path) for path in saved.rglob("*") if path.is_file()}
    files.publish(saved.rename(saved.with_name("aside")), saved, found)


def distances(folder: Path, name: str, wanted: str) -> tuple[float, float]:
    """Largest difference of the losses after the cut, relative, and of any weight at the end."""

    def losses(run: str) -> list[float]:
        lines = [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]
        return [line["train/loss"] for line in lines if line["step"] > CUT]

    def weights(run: str) -> dict[str, torch.Tensor]:
        return load_file(folder / run / "checkpoints" / f"step_{LAST:08d}" / "student.safetensors")

    pairs = list(zip(losses(name), losses(wanted), strict=True))
    assert len(pairs) == LAST - CUT
    found, other = weights(name), weights(wanted)
    assert found.keys() == other.keys()
    return max(abs(a - b) / b for a, b in pairs), max(float((found[n] - other[n]).abs().max()) for n in found)


def samples(folder: Path, name: str, ranks: int) -> list[dict[str, list[str]]]:
    """`shard:key` of every row of every step, by stream, as the ranks read them."""
    paths = [folder / f"{name}.samples.{ranks}.{rank}" for rank in range(ranks)]
    parts = [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]
    steps = zip(*parts, strict=True)
    return [{stream: [key for part in step for key in part[stream]] for stream in step[0]} for step in steps]


def close(folder: Path, name: str, wanted: str) -> bool:
    return max(distances(folder, name, wanted)) < BOUND


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_then_one(folder, stage, capsys):
    """The same samples, dropout and drop-path; queue, statistics and head of the losses come along."""
    two, one = f"two_{stage}", f"two_on_one_{stage}"
    as_it_was(folder, two, one)
    with noted(folder / f"{one}.samples.1.0"):
        train(run_of(folder, stage, one))
    assert "was written with world_size 2, now 1: its optimizer state is converted" in capsys.readouterr().out
    assert close(folder, one, two)
    straight, went_on = samples(folder, two, 2), samples(folder, one, 1)
    assert len(straight) == LAST and went_on == straight[CUT:]
    assert set(straight[0]) == {"images", "texts"} and len(set(straight[0]["images"])) == 24


@pytest.mark.parametrize("stage", STAGES)
def test_one_rank_in_zero1_then_two_in(folder, stage):
    assert close(folder, f"one_on_two_{stage}", "one")


def test_other_ds_config_of_the_same_stage_is_bit_for_bit(folder):
    """A conversion rounds nothing: only the order of sums over ranks may differ later."""
    as_it_was(folder, "one", "same_again")
    run = run_of(folder, "zero1", "same_again")
    shutil.copy(run.deepspeed, folder / "zero1_copy.json")
    train(replace(run, deepspeed=str(folder / "zero1_copy.json")))
    assert distances(folder, "same_again", "one") == (0.0, 0.0)


@pytest.mark.slow
def test_samples_are_the_same_on_other_ranks_and_workers(folder):
    """Two ranks x two workers, then one x three, read what two without workers read."""
    run_ranks(WORKER, str(folder), f"zero1/workers/{CUT}/2/12")
    with noted(folder / "workers.samples.1.0"):
        train(run_of(folder, "zero1", "workers", workers=3))
    assert samples(folder, "workers", 2) + samples(folder, "workers", 1) == samples(folder, "two_zero1", 2)


@pytest.mark.parametrize("lost", ["moments", "counts"])
def test_lost_state_would_be_seen(folder, monkeypatch, lost):
    """The mutants that forget Adam's moments, or how many steps it has done."""

    def forgetful(*given):
        whole = reshape.read_whole(*given)
        for state in [whole.counts] if lost == "counts" else whole.moments.values():
            state.update({kind: torch.zeros_like(value) for kind, value in state.items()})
        return whole

    as_it_was(folder, "two_zero1", f"without_{lost}")
    monkeypatch.setattr(resume, "read_whole", forgetful)
    train(run_of(folder, "zero1", f"without_{lost}"))
    assert min(distances(folder, f"without_{lost}", "two_zero1")) > 50 * BOUND


@pytest.mark.parametrize("stage", ["zero1", "zero3"])
def test_pieces_in_a_wrong_order_are_refused(folder, monkeypatch, stage):
    """Whatever puts moments together wrongly does so with the weights, which are known."""
    in_order = reshape.of_ranks
    as_it_was(folder, f"two_{stage}", f"mixed_{stage}")
    monkeypatch.setattr(reshape, "of_ranks", lambda files, ending: in_order(files, ending)[::-1])
    with pytest.raises(CheckpointError, match=r"in student\.safetensors is not what DeepSpeed's files hold"):
        train(run_of(folder, stage, f"mixed_{stage}"))


def test_what_the_engine_does_not_take_over_is_refused(folder, monkeypatch):
    as_it_was(folder, "two_zero2", "half")
    load = resume.load_whole

    def careless(engine, whole):
        load(engine, whole)
        next(iter(engine.optimizer.state.values()))["exp_avg_sq"][3] += 1e-9

    monkeypatch.setattr(resume, "load_whole", careless)
    with pytest.raises(CheckpointError, match=r"exp_avg_sq of student\..* is not what was saved after its conversion"):
        train(run_of(folder, "zero2", "half"))


def test_other_student_file_is_refused(folder):
    """Though its hash is in the manifest."""
    saved = as_it_was(folder, "two_zero0", "other") / "checkpoints" / f"step_{CUT:08d}"
    state = load_file(saved / "student.safetensors")
    state["shift"] += 1e-6
    save_file(state, saved / "student.safetensors")
    vouch_for(saved)
    with pytest.raises(CheckpointError, match=r"shift in student\.safetensors is not what DeepSpeed's files hold"):
        train(run_of(folder, "zero0", "other"))


@pytest.mark.parametrize("where", ["beside", "listed"])
def test_no_code_of_a_checkpoint_runs(folder, where):
    """A file that the manifest does not name is not read, and one that it names runs nothing while it is converted."""
    saved = as_it_was(folder, "two_zero1", f"evil_{where}") / "checkpoints" / f"step_{CUT:08d}"
    marker = folder / f"owned_{where}"
    rank = 2 if where == "beside" else 1
    torch.save(Evil(str(marker)), saved / "deepspeed" / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    if where == "listed":
        vouch_for(saved)
        with pytest.raises(CheckpointError, match="is not laid out as DeepSpeed"):
            train(run_of(folder, "zero1", f"evil_{where}"))
    else:
        train(run_of(folder, "zero1", f"evil_{where}", last=CUT))
    assert not marker.exists()


class Evil:
    """Pickles into a call that leaves a mark."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


def test_ranks_are_counted_not_spelt():
    """Rank 10 comes after rank 9."""
    names = [f"deepspeed/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(12)]
    assert reshape.of_ranks([*sorted(names), "deepspeed/mp_rank_00_model_states.pt"], "optim_states.pt") == names


@pytest.mark.slow
def test_three_ranks_and_every_change_of_stage(folder):
    """3 -> 1 and 3 -> 2 in all pairs of stages, with offload and with small parameters whole; nothing divides by 3."""
    kinds = (*STAGES, "zero3_offload", "zero3_whole")
    pairs = [(old, new) for old in kinds for new in kinds]
    run_ranks(WORKER, str(folder), *(f"{kind}/three_{kind}/{LAST}/0/4" for kind in kinds), ranks=3)
    for old, new in pairs:
        as_it_was(folder, f"three_{old}", f"{old}_on_two_{new}")
        as_it_was(folder, f"three_{old}", f"{old}_on_one_{new}")
        train(run_of(folder, new, f"{old}_on_one_{new}", rows=4))
    run_ranks(WORKER, str(folder), *(f"{new}/{old}_on_two_{new}/{LAST}/0/4" for old, new in pairs))
    for old, new in pairs:
        assert close(folder, f"{old}_on_one_{new}", f"three_{old}"), (old, new)
        assert close(folder, f"{old}_on_two_{new}", f"three_{old}"), (old, new)

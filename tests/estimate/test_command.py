"""`dime estimate` as people call it: tables, one JSON object, mistakes in one line, no weights, no DeepSpeed."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from toolkit.cli import dispatch
from toolkit.errors import ConfigError
from toolkit.estimate.hardware import cluster_of
from toolkit.estimate.plan import Wishes
from toolkit.estimate.storage import energy_kwh, row_bytes, shard_sizes, storage

REPO = Path(__file__).resolve().parents[2]
QUICK = str(REPO / "recipes/quickstart.py")
PAPER = str(REPO / "recipes/distill_vitb32.py")


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, dict[str, Any]]:
    """What is printed, and its last line."""
    dispatch(["estimate", *words, "--json"])
    text = capsys.readouterr().out
    return text, json.loads(text.splitlines()[-1])


def test_the_quickstart_in_a_table_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    text, found = asked(capsys, QUICK, "--gpus", "2")
    assert list(found) == [
        "recipe", "hardware", "batch", "models", "network", "memory", "storage", "step_seconds", "speed", "cores", "energy",
        "assumptions", "notes",
    ]  # fmt: skip
    assert found["hardware"]["name"] == "h100" and found["hardware"]["gpus"] == 2
    assert found["models"]["student"]["parameters"] == 175_064
    assert found["models"]["teachers"][0]["stored"] is True  # teacher.store is set
    assert found["models"]["step_tflops_per_gpu"]["teacher"] == 0
    student = found["models"]["step_tflops_per_gpu"]["student"]
    assert found["step_seconds"]["student"] == pytest.approx(student / (67 * 0.25))  # precision=fp32
    assert len(found["notes"]) == 1 and "launching kernels" in found["notes"][0]
    assert set(found["memory"]["stages"]) == {"0", "1", "2", "3"}
    step = found["step_seconds"]
    assert step["total"] == pytest.approx(sum(v for k, v in step.items() if k not in ("gpu", "data", "total")))
    hours = found["recipe"]["steps"] * step["total"] / 3600
    assert found["speed"]["hours"] == pytest.approx(hours)
    assert found["speed"]["gpu_hours"] == pytest.approx(2 * hours)
    assert found["energy"]["kwh"] == pytest.approx(2 * hours * 700 * 1.35 * 1.2 / 1000)
    for line in ("Images/s", "Memory per GPU", "Network:", "Storage for", "Assumed:", *found["assumptions"]):
        assert line in text


def test_overrides_and_options_change_what_they_should(capsys: pytest.CaptureFixture[str]) -> None:
    def one(*words: str) -> dict[str, Any]:
        return asked(capsys, QUICK, "--gpus", "2", *words)[1]

    plain = one()
    live = one("teacher.store=''")
    assert live["models"]["step_tflops_per_gpu"]["teacher"] > 0 == plain["models"]["step_tflops_per_gpu"]["teacher"]
    assert live["speed"]["hours"] > plain["speed"]["hours"]
    assert live["cores"]["images_per_second_per_core"] < plain["cores"]["images_per_second_per_core"]
    assert one("steps=3200")["speed"]["hours"] == pytest.approx(2 * plain["speed"]["hours"])
    assert one("student.kwargs.width=48")["models"]["student"]["parameters"] > 3 * 175_064
    zero3 = one("deepspeed=ds_configs/zero3.json")
    assert zero3["network"]["zero_stage"] == 3
    assert zero3["network"]["sent_bytes_per_gpu"]["gradients"] < plain["network"]["sent_bytes_per_gpu"]["gradients"]
    offloaded = one("deepspeed=ds_configs/zero3_offload.json")["memory"]["stages"]
    assert offloaded["run"]["total"] < offloaded["3"]["total"] and offloaded["run"]["offloaded"]
    pieces = one("data.batch_size_per_gpu=16")
    assert pieces["batch"]["grad_accum_steps"] == 4 and pieces["models"]["student"]["forwards"] == 2
    assert pieces["models"]["step_tflops_per_gpu"]["student"] == pytest.approx(
        4 / 3 * plain["models"]["step_tflops_per_gpu"]["student"], rel=0.05
    )
    assert one("data.batch_size_per_gpu=16", "data.accumulation=per_micro_batch")["models"]["student"]["forwards"] == 1
    half = one("precision=bf16")["step_seconds"]["student"]
    assert half == pytest.approx(plain["step_seconds"]["student"] * 67 / 989)
    faster = one("--mfu", "0.5")
    assert faster["step_seconds"]["student"] == pytest.approx(plain["step_seconds"]["student"] / 2)
    slower = one("--hardware", "fp32_tflops=6.7,memory_gb=1")
    assert slower["step_seconds"]["student"] == pytest.approx(10 * plain["step_seconds"]["student"])
    assert not slower["memory"]["stages"]["1"]["fits"]
    starved = one("--cores-per-gpu", "1")
    assert starved["step_seconds"]["total"] == starved["step_seconds"]["data"] == pytest.approx(64 / 723)
    assert one("--pue", "2.4")["energy"]["kwh"] == pytest.approx(2 * plain["energy"]["kwh"])
    stored = one("--images", "1000", "--sentences", "500", "--views", "4")["storage"]
    assert stored["stores"]["bf16"] == 1000 * (4 * (256 + 20) + 10) + 500 * (256 + 10)


def test_a_measured_minute_replaces_the_compute(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, QUICK, "--gpus", "1", "--images-per-second", "640")[1]
    assert found["step_seconds"]["measured"] == pytest.approx(128 / 640)
    assert found["speed"]["images_per_second"] == pytest.approx(640)
    assert "student" not in found["step_seconds"] and found["memory"] is not None


MODULE = """
import torch
from torch import nn


class Peeking(nn.Module):
    def __init__(self, embed_dim):
        super().__init__()
        self.proj = nn.Linear(3, embed_dim)
        {built}

    def encode_image(self, images):
        pooled = images.mean((2, 3))
        {run}
        return self.proj(pooled)


def peeking(embed_dim):
    return Peeking(embed_dim)
"""


@pytest.mark.parametrize(
    ("built", "run", "said"),
    [
        ("self.scale = float(self.proj.weight.sum())", "pass", "does not build without memory"),
        ("pass", "pooled = pooled * float(pooled.sum())", "--images-per-second"),
    ],
    ids=["while it is built", "in its forward"],
)
def test_a_module_that_looks_at_values(
    built: str, run: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, with the way out; on that way the time is known and the rest is not."""
    name = f"peeking_{abs(hash(built))}"
    (tmp_path / f"{name}.py").write_text(MODULE.format(built=built, run=run))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["estimate", QUICK, "--gpus", "1", f"student.name={name}:peeking"]
    with pytest.raises(ConfigError, match=said) as caught:
        dispatch(words)
    assert f"student.name={name}:peeking" in str(caught.value) and "--images-per-second" in str(caught.value)
    found = asked(capsys, *words[1:], "--images-per-second", "100")[1]
    assert found["memory"] is None and len(found["notes"]) == 1
    assert found["speed"]["hours"] == pytest.approx(1600 * 1.28 / 3600)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hardware", "h1000"], "no GPU named 'h1000'; did you mean h100"),
        (["--hardware", "a100"], "a100-40 and a100-80"),
        (["--hardware", "h100x0"], "no GPU"),
        (["--hardware", "h100x8", "--gpus", "4"], "says 8 GPUs and --gpus 4"),
        (["--hardware", "tflop=3"], "did you mean tflops"),
        (["--hardware", "tflops=much"], "is not a number"),
        (["--hardware", "watts=-1"], "must be above 0"),
        (["--gpus", "-2"], "--gpus (-2) must be at least 1"),
        (["--gpus", "0"], "--gpus (0) must be at least 1"),
        (["--gpus-per-node", "-1"], "--gpus-per-node (-1)"),
        (["--mfu", "25"], "--mfu (25) is a fraction"),
        (["--teacher-mfu", "0"], "--teacher-mfu (0)"),
        (["--images-per-second", "0"], "--images-per-second (0) must be above 0"),
        (["--views", "0"], "--views (0)"),
        (["--pue", "0.9"], "at least 1"),
        (["--jpeg-quality", "91"], "choose one of 75"),
        (["--gpus", "7"], "does not divide by 7 ranks"),
        (["student.nmae=x"], "did you mean student.name"),
        (["student.name=ViT-B-23"], "did you mean"),
        (["student.name=nowhere:student"], "was not found"),
        (["teacher.name=hf-hub:some/where"], "known only with its files"),
        (["deepspeed=none.json"], "is no file"),
    ],
)
def test_mistakes_are_told_in_a_line(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        dispatch(["estimate", QUICK, *words])
    assert said in str(caught.value)


def test_wrong_options_are_told_before_torch() -> None:
    code = (
        "import sys\nfrom toolkit.cli import dispatch\nfrom toolkit.errors import ConfigError\n"
        f"try:\n    dispatch(['estimate', {PAPER!r}, '--hardware', 'h1000'])\n"
        "except ConfigError as error:\n    sys.exit('torch' if 'torch' in sys.modules else 0)\nsys.exit('no error')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_papers_run_on_a_login_node() -> None:
    """ViT-L/14 would be 1.7 GB: neither its weights nor DeepSpeed are there, and the answer is of the right size."""
    code = (
        "import resource, sys\nfrom toolkit.cli import dispatch\nimport torch, open_clip, timm, accelerate\n"
        "from toolkit.estimate import command\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"dispatch(['estimate', {PAPER!r}, '--hardware', 'h100x24', '--json'])\n"
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "sys.stderr.write(f'{grown} {\"deepspeed\" in sys.modules}')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    grown, deepspeed = done.stderr.split()[-2:]
    assert int(grown) < 600_000, f"{grown} KiB"
    assert deepspeed == "False"
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["batch"]["batch_size_per_gpu"] == 512
    assert found["models"]["student"]["parameters"] == 88_045_824
    assert found["recipe"]["images_seen"] == 324_800 * 12_288
    work = found["models"]["step_tflops_per_gpu"]
    assert work["teacher"] == pytest.approx(512 * (0.16203 + 0.0133), rel=0.02)
    assert work["student"] == pytest.approx(512 * 3 * 0.00882, rel=0.03)
    assert 20 < found["speed"]["hours"] < 60
    assert all(stage["fits"] for stage in found["memory"]["stages"].values())
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 3_000_000


def test_hardware_in_one_word() -> None:
    many = cluster_of("H100x24")
    assert (many.name, many.gpus, many.gpus_per_node, many.nodes) == ("h100", 24, 8, 3)
    assert cluster_of("mi250x").gpus == 8 and cluster_of("mi300xx16").gpus == 16
    assert cluster_of("h100x2").gpus_per_node == 2
    own = cluster_of("tflops=50,watts=200", gpus=3)
    assert (own.name, own.gpu.tflops, own.gpu.watts, own.gpu.memory_gb) == ("own", 50, 200, 80)
    assert (cluster_of("h100", mfu=0.4).student_mfu, cluster_of("h100", mfu=0.4).teacher_mfu) == (0.4, 0.4)
    assert cluster_of("h100", mfu=0.4, teacher_mfu=0.6).teacher_mfu == 0.6


def test_sizes_are_those_of_real_files() -> None:
    """The stores of benchmarks/results/stored_cpu2_202611.md: 48,000 rows of width 128, keys of 7 bytes there, not 10."""
    keys = 48_000 * 3
    assert 48_000 * row_bytes(128, "bf16") - keys == pytest.approx(12_645_456, rel=0.002)
    assert 48_000 * row_bytes(128, "int8") - keys == pytest.approx(6_696_528, rel=0.004)
    sizes = shard_sizes(Wishes())
    assert sizes["image_bytes"] == pytest.approx(36 * 1024 + 512, abs=1024)
    assert sizes["image_bytes"] % 512 == 0 and sizes["sentence_bytes"] == 1024
    assert shard_sizes(Wishes(jpeg_quality=95))["image_bytes"] > sizes["image_bytes"]
    paper = storage(Wishes(images=39_910_000, sentences=28_400_000), (768,), True)
    assert paper["stores"]["bf16"] / 1e9 == pytest.approx(105.6, abs=0.5) and not paper["assumed"]
    assert storage(Wishes(), (768,), False)["text_shards_bytes"] == 0
    assert energy_kwh(10.0, 700.0, 1.0) == pytest.approx(10 * 0.7 * 1.35)

"""Step throughput of the ViT-B/32 distillation: ours against DIME-FM's and open_clip's loops, stored against live teacher, options.

    python benchmarks/step.py                              (about eighteen minutes on two CPU cores)
    python benchmarks/step.py --only core,pairs,loader     (groups: core pairs loader amp ranks ranks_live zero precision micro
                                                            compile kernels batch, or all; also single variants by key)

Every variant runs in processes of its own through its real launcher (deepspeed for ours, torchrun for the others), all in turn,
round after round. Inside each process a stopwatch counts from one request for a batch to the next, after the warm-up. Models
are built without weights and pictures are synthetic; neither changes the work of a step. Writes
benchmarks/results/step_[<teacher>_]<hardware>_<yyyymm>.{md,json}, which `--no-receipt` leaves alone.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import open_clip  # noqa: E402
import torch  # noqa: E402
from receipt import receipt, write  # noqa: E402
from step_table import notes, ratio_table, summary, table  # noqa: E402
from step_variants import DEFAULT_GROUPS, Machine, Plan, Variant, plan, usual  # noqa: E402

BIN = Path(sys.executable).parent
SECONDS = 1800
"""After so long a launch is given up."""


def words_of(asked: argparse.Namespace, folder: Path) -> dict[str, tuple[str, ...]]:
    """What the words with @ stand for."""
    unpaired = (f"data.images={folder}/shards", f"data.texts={folder}/shards")
    return {
        "@stored": (*unpaired, f"teacher.store={folder}/store", "teacher.in_memory=false"),
        "@live": unpaired,
        "@pairs": (f"data.pairs={folder}/shards",),
        "@tsv": ("--tsv", str(folder)),
    }


def command(variant: Variant, asked: argparse.Namespace, folder: Path, copy: int) -> list[str]:
    """The launch of one copy of a variant."""
    stands_for = words_of(asked, folder)
    out = folder / "run"
    batch = variant.batch or asked.batch
    shared = [
        f"student.name={asked.student}", f"teacher.name={asked.teacher}", "teacher.pretrained=random", "teacher.dtype=bf16",
        f"precision={usual(asked.cuda)}", f"data.global_batch_size={batch * variant.ranks}", f"workers={asked.workers}",
        "checkpoint.every_steps=0", "logging.tensorboard=false", f"out_dir={out / f'out{copy}'}",
    ]  # fmt: skip
    if variant.kind != "ours":  # they know one precision, for both models
        shared += ["teacher.dtype=fp32"]
    more = [word for one in (*variant.options, *variant.words) for word in stands_for.get(one, (one,))]
    launcher = [str(BIN / "deepspeed"), "--num_gpus", str(variant.ranks), "--master_port", str(free_port())]
    if variant.kind != "ours":
        launcher = [
            sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(variant.ranks), "--master_port",
            str(free_port()),
        ]  # fmt: skip
    own = [
        "--result",
        str(out / f"copy{copy}"),
        "--warmup",
        str(asked.warmup + variant.warmup),
        "--steps",
        str(asked.steps),
    ]
    if variant.pinned:
        own += ["--core", str(copy)]
    if variant.copies > 1:
        own += ["--together", str(variant.copies)]
    return [*launcher, str(ROOT / "benchmarks/step_one.py"), variant.kind, *own, *shared, *more]


def launch(variant: Variant, asked: argparse.Namespace, folder: Path) -> dict[str, Any] | str:
    """Run it once; images per second, steps, waits and memory of all its processes, or why there are none."""
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    threads = 1 if variant.pinned else max(1, (os.cpu_count() or 1) // (variant.ranks * variant.copies))
    env = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    started = []
    for copy in range(variant.copies):
        with open(out / f"copy{copy}.log", "w") as log:
            line = command(variant, asked, folder, copy)
            started.append(subprocess.Popen(line, cwd=ROOT, env=env, stdout=log, stderr=log))
    try:
        codes = [process.wait(SECONDS) for process in started]
    except subprocess.TimeoutExpired:
        codes = [1]
        for process in started:
            process.terminate()
    found = [json.loads(path.read_text()) for path in sorted(out.glob("copy*.json"))]
    if any(codes) or len(found) != variant.copies * variant.ranks:
        return why((out / "copy0.log").read_text())
    batch = variant.batch or asked.batch
    first = found[:: variant.ranks]
    return {
        "rate": sum(batch * variant.ranks * asked.steps / one["seconds"] for one in first),
        "steps": [one["steps"] for one in first],
        "wait": sum(sum(one["waits"]) for one in found) / sum(one["seconds"] for one in found),
        "peak_bytes": sum(one["peak_bytes"] for one in found),
    }


def why(log: str) -> str:
    """The line of a log that says most, the end of it on the screen."""
    print(log[-3000:], file=sys.stderr, flush=True)
    lines = [line.strip() for line in log.splitlines() if "Error: " in line and "ChildFailedError" not in line]
    return (lines or ["no result"])[-1][:200]


def free_port() -> int:
    """That nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prepare(asked: argparse.Namespace, folder: Path, largest: int) -> None:
    """Shards and stores for the largest batch."""
    width = int(open_clip.get_model_config(asked.teacher)["embed_dim"])
    count = max(asked.samples, 2 * largest)
    made = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/step_data.py"), str(folder), str(count), str(width)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if made.returncode:
        sys.exit(made.stdout[-2000:] + made.stderr[-2000:])


def rates(asked: argparse.Namespace, models: bool = False) -> dict[str, Any]:
    """Rates of matrix products, and with `models` the FLOPs of the two models, from a process of its own."""
    width = str(open_clip.get_model_config(asked.teacher)["embed_dim"])
    line = [sys.executable, str(ROOT / "benchmarks/step_flops.py")] + (
        [asked.student, asked.teacher, width] if models else []
    )
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def chosen(all_of_it: Plan, asked: argparse.Namespace) -> list[Variant]:
    """By group or key."""
    words = asked.only.split(",") if asked.only else list(DEFAULT_GROUPS) if not asked.cuda else ["all"]
    known = {"all"} | {name for one in all_of_it.variants for name in (one.group, one.key)}
    if unknown := [word for word in words if word not in known]:
        sys.exit(f"--only {','.join(unknown)}: known here are {', '.join(sorted(known))}")
    return [one for one in all_of_it.variants if {"all", one.group, one.key} & set(words)]


def parse(words: list[str]) -> argparse.Namespace:
    """Defaults by the machine."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--only", default="", help="groups or variants, comma-separated (default: on a CPU without the slowest)")
    add("--student", default="ViT-B-32-quickgelu", help="open_clip name")
    add("--teacher", default="ViT-L-14-quickgelu" if cuda else "ViT-B-16-quickgelu", help="open_clip name")
    add("--batch", type=int, default=1024 if cuda else 16, help="images per rank")
    add("--batches", default="256,2048,4096" if cuda else "8,32", help="sizes of the group `batch`")
    add("--steps", type=int, default=30 if cuda else 4, help="counted in each launch")
    add("--warmup", type=int, default=5 if cuda else 2, help="not counted")
    add("--rounds", type=int, default=3 if cuda else 2)
    add("--workers", type=int, default=12 if cuda else 0, help="data processes per rank and stream")
    add("--samples", type=int, default=4096 if cuda else 128, help="pictures and sentences on disk")
    add("--peak", type=float, default=0.0, help="FLOP/s of 16-bit products, instead of the best that is measured")
    add("--no-receipt", action="store_true")
    asked = parser.parse_args(words)
    asked.cuda = cuda
    return asked


def main(words: list[str]) -> None:
    """Prepare, run all in turn, print, write."""
    asked = parse(words)
    os.chdir(ROOT)
    sizes = tuple(int(size) for size in asked.batches.split(","))
    everything = plan(Machine(asked.cuda, os.cpu_count() or 1, asked.batch, sizes))
    picked = chosen(everything, asked)
    raw: dict[str, Any] = {"asked": vars(asked), "rates": [], "runs": {one.key: [] for one in picked}}
    with tempfile.TemporaryDirectory(prefix="step_") as name:
        folder = Path(name)
        prepare(asked, folder, max((one.batch or asked.batch) * one.ranks for one in picked))
        for number in range(asked.rounds):
            measured = rates(asked, models=not number)
            raw["flops"] = raw.get("flops") or measured["flops"]
            raw["rates"].append(measured["rates"])
            for one in picked:
                if not one.rounds or number < one.rounds:
                    found = launch(one, asked, folder)
                    raw["runs"][one.key].append(found)
                    said = found if isinstance(found, str) else f"{found['rate']:.2f} images/s"
                    print(f"round {number + 1}: {one.title}: {said}", flush=True)
    rows = [summary(one, raw, asked) for one in picked]
    text = f"{table(rows)}\n\n{ratio_table(everything.ratios, raw['runs'])}"
    said = notes(raw, asked)
    print(f"\n{text}\n\n{said}")
    if not asked.no_receipt:
        hardware = torch.cuda.get_device_name().split()[-1].lower() if asked.cuda else f"cpu{os.cpu_count()}"
        facts = receipt(" ".join(["python benchmarks/step.py", *words]))
        title = f"Steps of {asked.teacher} into {asked.student}, {asked.batch} images per rank"
        usual_teacher = parse([]).teacher
        other = "" if asked.teacher == usual_teacher else f"{asked.teacher.lower().replace('-', '')}_"
        write(f"step_{other}{hardware}_{datetime.now(UTC):%Y%m}", title, text, facts, raw, said)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Training from stored teacher embeddings against the live teacher: the same student, and how much sooner.

    python benchmarks/stored.py [--steps 500] [--seeds 3]

The quickstart's job on one rank, three ways: the teacher at every step; from a bf16 store without the teacher in memory;
from an int8 store. Live and stored take turns, so that a slow hour of the machine falls on all. Result:
benchmarks/results/stored_cpu2_202611.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.receipt import receipt, write
from recipes import quickstart
from toolkit.playground.prepare import TEACHER, prepare_world

OUT = Path("runs/stored")
WAYS = {"live teacher": "", "bf16 store": "bf16", "int8 store": "int8"}
METRICS = ("top1", "seen_top1", "unseen_top1", "agreement_top1", "mean_cosine")


def alone() -> dict[str, str]:
    """The environment without the ranks that making the world left in it."""
    left = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return {name: value for name, value in os.environ.items() if name not in left}


def embed(data: Path) -> dict[str, int]:
    """Both stores; bytes of each."""
    sizes = {}
    for store_as in filter(None, WAYS.values()):
        for kind in ("images", "texts"):
            words = [
                "embed",
                kind,
                str(data / f"train_{kind}"),
                "--teacher",
                str(TEACHER),
                "--out",
                str(OUT / store_as),
            ]
            words += ["--precision", "fp32", "--store-as", store_as, "--workers", "0"]
            subprocess.run([str(Path(sys.executable).with_name("dime")), *words], check=True, env=alone())
        sizes[store_as] = sum(path.stat().st_size for path in (OUT / store_as).rglob("*.safetensors"))
    return sizes


def train(way: str, seed: int, steps: int, data: Path) -> dict[str, Any]:
    """One run on one rank; its judgement, and the best images/s of its log lines."""
    out = OUT / f"{way.replace(' ', '_')}_{seed}_{steps}"
    store = OUT / WAYS[way] if WAYS[way] else ""
    words = [
        f"out_dir={out}",
        f"seed={seed}",
        f"steps={steps}",
        f"teacher.store='{store}'",
        "deepspeed=ds_configs/zero0.json",
    ]
    words += [f"data.images={data}/train_images", f"data.texts={data}/train_texts", "evaluation.every_steps=0"]
    words += ["evaluation.best=''", "checkpoint.every_steps=0", "logging.tensorboard=false"]
    words += [f"teacher.in_memory={'false' if store else 'true'}"]
    if not (out / "evaluation.json").is_file():
        with open(OUT / "log.txt", "a") as log:
            done = subprocess.run(
                [sys.executable, "recipes/quickstart.py", *words], stdout=log, stderr=log, env=alone()
            )
        if done.returncode:
            sys.exit(f"{out} failed; {OUT}/log.txt says why")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    rates = [line["speed/images_per_second"] for line in lines if "speed/images_per_second" in line]
    rows = json.loads((out / "evaluation.json").read_text())["sets"]["scenes"]["rows"]
    return {"rate": statistics.median(rates), **{name: rows["student"][name] for name in METRICS}}


def main() -> None:
    """All runs in turn, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    data = Path(quickstart.DATA)
    prepare_world(data, images=24_000, texts=24_000)
    OUT.mkdir(parents=True, exist_ok=True)
    sizes = embed(data)
    raw: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for seed in range(given.seeds):
        for way in WAYS:
            raw[way].append(train(way, seed, given.steps, data))
            print(way, seed, raw[way][-1], flush=True)
    lines = ["| | " + " | ".join(METRICS) + " | images/s | against live |", "|---" * (len(METRICS) + 3) + "|"]
    for way, runs in raw.items():
        cells = []
        for name in METRICS:
            values = [run[name] for run in runs]
            cells.append(f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}")
        ratios = [run["rate"] / live["rate"] for run, live in zip(runs, raw["live teacher"], strict=True)]
        rate = statistics.mean(run["rate"] for run in runs)
        cells += [f"{rate:,.0f}", f"{statistics.mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    notes = (
        "Mean and standard deviation over the seeds; images/s is the median of a run's log lines, 'against live' the mean ratio within "
        f"a seed. Stores of 24,000 pictures and 24,000 sentences of width 128: {', '.join(f'{n} {b:,} bytes' for n, b in sizes.items())}. "
        "The teacher here is 3.8 times the student; ViT-L/14 is 18 times a ViT-B/32, so the gain there is larger."
    )
    facts = receipt(f"python benchmarks/stored.py --steps {given.steps} --seeds {given.seeds}")
    write(
        "stored_cpu2_202611", "Stored teacher embeddings against the live teacher", "\n".join(lines), facts, raw, notes
    )
    print("\n".join(lines), notes, sep="\n")


if __name__ == "__main__":
    main()

"""How far the recipes scale, by the model of `dime estimate`; and that model's bytes against bytes counted on real ranks.

    python benchmarks/scaling.py            both (unshare and ip are needed, no root)
    python benchmarks/scaling.py --tables   the tables alone, of seconds

Writes benchmarks/scaling.md and, with the measurement, benchmarks/results/scaling_cpu2_202611.{md,json}.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.receipt import receipt, write
from benchmarks.scaling_ranks import CASES, ROWS, STEPS, case
from toolkit.config import Run, resolve
from toolkit.estimate.described import Described, describe, respread, step_of
from toolkit.estimate.hardware import cluster_of
from toolkit.estimate.network import feature_messages, sent_by_part
from toolkit.estimate.plan import Wishes
from toolkit.recipe import load_defaults

HERE = Path(__file__).parent
RESULT = "scaling_cpu2_202611"
RANKS = (2, 4, 8)
GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
HARDWARE = "h100"
CORES = 12
RECIPES = {"recipes/distill_vitb32.py": 512, "recipes/distill_swin_tiny.py": 256}
"""And the images per GPU of a growing batch: what the authors' own runs had."""


def measured_bytes(ranks: int, folder: Path) -> dict[str, float]:
    """Bytes per step of all ranks, by case; what lies in `folder` from before is not counted again."""
    out = folder.resolve() / f"bytes_{ranks}.json"
    if not out.is_file():
        command = ["unshare", "-Urn", sys.executable, str(HERE / "scaling_ranks.py"), str(ranks), str(out)]
        subprocess.run(command, check=True, cwd=HERE.parent)
    return dict(json.loads(out.read_text()))


def modelled_bytes(ranks: int) -> dict[str, float]:
    """The same by the model, for gloo."""
    found = {}
    for (stage, k), name in CASES.items():
        described = describe(case(stage, ranks, k), ranks)
        found[name] = ranks * sum(sent_by_part(described.messages(), ranks, "gloo").values())
        if (stage, k) == (0, 1):
            alone = sent_by_part(feature_messages(described.traffic), ranks, "gloo")
            found["losses alone"] = ranks * sum(alone.values())
    return found


def compare(folder: Path) -> list[dict[str, Any]]:
    """A row for each case and number of ranks."""
    rows = []
    folder.mkdir(parents=True, exist_ok=True)
    for ranks in RANKS:
        measured, modelled = measured_bytes(ranks, folder), modelled_bytes(ranks)
        for name in ["losses alone", *CASES.values()]:
            ratio = measured[name] / modelled[name]
            rows.append(
                {"ranks": ranks, "case": name, "measured": measured[name], "modelled": modelled[name], "ratio": ratio}
            )
            print(
                f"{ranks} ranks, {name}: {measured[name]:,.0f} counted, {modelled[name]:,.0f} modelled, {ratio:.3f}",
                flush=True,
            )
    return rows


def write_receipt(rows: list[dict[str, Any]]) -> None:
    """Cases down, ranks across."""
    by = {(row["case"], row["ranks"]): row for row in rows}
    head = "| per step, all ranks | " + " | ".join(f"{n} ranks: MB counted | modelled | ratio" for n in RANKS) + " |"
    lines = [head, "|---|" + "---|" * (3 * len(RANKS))]
    for name in ["losses alone", *CASES.values()]:
        cells = [
            f"{by[name, n]['measured'] / 1e6:.3f} | {by[name, n]['modelled'] / 1e6:.3f} | {by[name, n]['ratio']:.3f}"
            for n in RANKS
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    notes = (
        f"Real processes, the real step and engine (`toolkit/step.py`, DeepSpeed), {ROWS} images and {ROWS} sentences in all, the "
        f"three losses of DIME-FM at width 128, mean of {STEPS} steps. Counted by the kernel on `lo` in a network namespace of its "
        "own, with TCP/IP headers and acknowledgements. The model here is gloo's: rings, S (N-1)/N bytes per rank for an "
        "all-gather, twice that for an all-reduce, and a reduce-scatter is an all-reduce of which a part is kept. DeepSpeed's "
        "shared-memory collectives serve inference only, so that everything crosses TCP. The model was read in DeepSpeed's source before "
        "counting, with one exception: how often stage 3 gathers under accumulation (3 K + 2 times) was taken from these counts."
    )
    write(
        RESULT,
        "Bytes between ranks, counted and modelled",
        "\n".join(lines),
        receipt("python benchmarks/scaling.py"),
        rows,
        notes,
    )


def recipe(path: str, *overrides: str) -> Run:
    """A shipped recipe, without its data."""
    return resolve(load_defaults(path), [*overrides, "dry_run=true"])


def row_of(described: Described, gpus: int, base: float | None) -> dict[str, Any]:
    """One line of a table."""
    cluster, wishes = cluster_of(HARDWARE, gpus=gpus), Wishes(hardware=HARDWARE, cores_per_gpu=CORES)
    step = step_of(described, cluster, wishes)
    rate = described.batch.global_images / step["gpu"] / gpus
    compute = step["teacher"] + step["student"] + step["losses"] + step["update"]
    parts = {"compute": compute, **{name: step[name] for name in ("features", "gradients", "parameters")}}
    return {
        "gpus": gpus, "batch": described.batch.global_images, **parts, "losses": step["losses"], "data": step["data"],
        "images_per_second": rate * gpus, "rate": rate, "efficiency": rate / (base or rate),
        "largest": max(parts, key=lambda name: parts[name]),
        "sent": sum(sent_by_part(described.messages(), gpus).values()),
    }  # fmt: skip


def table_rows(described: Described, growing: int | None) -> list[dict[str, Any]]:
    """From 8 to 1,024 GPUs."""
    rows: list[dict[str, Any]] = []
    for gpus in GPUS:
        whole = described.run.data.global_batch_size
        if growing is None and (whole % gpus or whole < gpus):
            continue
        there = respread(described, gpus, batch_size_per_gpu=growing)
        rows.append(row_of(there, gpus, rows[0]["rate"] if rows else None))
    return rows


def as_table(rows: list[dict[str, Any]]) -> str:
    """Milliseconds."""
    head = ["GPUs", "batch", "compute", "of it losses", "features", "gradients", "parameters", "decoding (beside)"]
    head += ["GB sent per GPU", "images/s", "efficiency"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [
            f"{1000 * row[name]:,.1f}" for name in ("compute", "losses", "features", "gradients", "parameters", "data")
        ]
        lines.append(
            f"| {row['gpus']:,} | {row['batch']:,} | {' | '.join(cells)} | {row['sent'] / 1e9:.2f} | {row['images_per_second']:,.0f} "
            f"| {row['efficiency']:.0%} |"
        )
    return "\n".join(lines)


def in_words(rows: list[dict[str, Any]]) -> str:
    """Where the exchange overtakes the compute, and what first costs a tenth of the step."""
    found = []
    for name, words in (
        ("features", "the feature gather"),
        ("gradients", "the gradient reduction"),
        ("parameters", "the parameter gather"),
    ):
        busy = [
            (row, row[name] / (row["compute"] + row["features"] + row["gradients"] + row["parameters"])) for row in rows
        ]
        tenth = next((row["gpus"] for row, share in busy if share > 0.1), None)
        top = next((row["gpus"] for row, _ in busy if row["largest"] == name), None)
        if tenth:
            found.append(
                f"{words} costs a tenth of the step from {tenth:,} GPUs"
                + (f" and is its largest part from {top:,}" if top else "")
            )
    losses = next((row["gpus"] for row in rows if row["losses"] > 0.1 * row["compute"]), None)
    if losses:
        found.append(f"the losses are a tenth of the compute from {losses:,}")
    last = rows[-1]
    ends = f"at {last['gpus']:,} GPUs the efficiency is {last['efficiency']:.0%}"
    return "; ".join([*found, ends])[0].upper() + "; ".join([*found, ends])[1:] + "."


def write_tables() -> dict[str, Any]:
    """benchmarks/scaling.md."""
    raw: dict[str, Any] = {}
    blocks = [INTRODUCTION]
    for path, per_gpu in RECIPES.items():
        for store in ("", "teacher.store=stores"):
            base = describe(recipe(path, "data.batch_size_per_gpu=64", *([store] if store else [])), 8)
            for stage in (1, 3):
                described = replace(base, sharding=replace(base.sharding, stage=stage))
                for growing in (None, per_gpu):
                    how = (
                        f"{growing} images per GPU" if growing else f"global batch {base.run.data.global_batch_size:,}"
                    )
                    title = f"{path}, {'stored' if store else 'live'} teacher, ZeRO {stage}, {how}"
                    rows = table_rows(described, growing)
                    raw[title] = rows
                    blocks.append(f"## {title}\n\n{as_table(rows)}\n\n{in_words(rows)}")
    (HERE / "scaling.md").write_text("\n\n".join(blocks) + "\n")
    return raw


INTRODUCTION = f"""# How far the recipes scale

A model, not a measurement: written by `python benchmarks/scaling.py --tables` from what `dime estimate` counts and assumes for
{HARDWARE} nodes of 8 (`toolkit/estimate`: FLOPs of the real models, 25 % of the peak for the student and 45 % for the teacher,
rings at 70 % of their links, nothing hidden behind compute). Its bytes, not its seconds, are checked on real ranks:
[results/{RESULT}.md](results/{RESULT}.md).

Milliseconds per step. `decoding` is the time {CORES} cores per GPU need; it runs beside the rest and is neither in images/s nor in the
efficiency, which is images/s per GPU against 8 GPUs. With few images per GPU (under some 64) real GPUs fall short of their share of the
peak, so the right end of a table with a fixed batch is too good; nor are stragglers in it."""


def main() -> None:
    """Tables, and the measurement unless it is not wanted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", action="store_true", help="no measurement")
    parser.add_argument("--work", type=Path, default=Path("runs/scaling"), help="folder that keeps what was counted")
    words = parser.parse_args()
    write_tables()
    if not words.tables:
        write_receipt(compare(words.work))


if __name__ == "__main__":
    main()

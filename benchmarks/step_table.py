"""From the raw numbers of benchmarks/step.py to its tables."""

import argparse
import os
import statistics
from collections.abc import Sequence
from typing import Any

from step_variants import Ratio, Variant, usual

Runs = dict[str, list[dict[str, Any] | str]]


def summary(variant: Variant, raw: dict[str, Any], asked: argparse.Namespace) -> dict[str, Any]:
    """A row: medians over rounds, with the smallest and largest."""
    good = [run for run in raw["runs"][variant.key] if not isinstance(run, str)]
    if not good:
        return {"title": variant.title, "failed": next(iter(raw["runs"][variant.key]), "not run")}
    found = [run["rate"] for run in good]
    steps = [step for run in good for copy in run["steps"] for step in copy]
    rate = statistics.median(found)
    return {
        "title": variant.title, "rate": rate, "low": min(found), "high": max(found), "step": statistics.median(steps),
        "slowest": max(steps), "wait": statistics.median(run["wait"] for run in good),
        "used": used(variant, raw, asked, rate), "gib": statistics.median(run["peak_bytes"] for run in good) / 2**30,
    }  # fmt: skip


def used(variant: Variant, raw: dict[str, Any], asked: argparse.Namespace, rate: float) -> float:
    """Share of the machine: seconds that a picture's model FLOPs would take at the best rate of their type, over those it took.

    A step has as many sentences as pictures. Recomputation is no model FLOP, nor is the loss.
    """
    best = {kind: max(one[kind] for one in raw["rates"]) for kind in ("fp32", "bf16")}
    if asked.peak:
        best["bf16"] = asked.peak
    student, teacher = variant.student or usual(asked.cuda), variant.teacher or "fp32"
    flops = raw["flops"]
    ideal = flops["student"]["image_train"] / best[student]
    ideal += flops["student"]["text_train"] / best[student] if variant.pairs else 0.0
    ideal += (flops["teacher"]["image"] + flops["teacher"]["text"]) / best[teacher] if variant.live else 0.0
    share = min(1.0, variant.ranks * variant.copies / (os.cpu_count() or 1)) if variant.pinned else 1.0
    return ideal * rate / share


def table(rows: Sequence[dict[str, Any]]) -> str:
    """For people."""
    lines = ["| | images/s | step, s | data wait | MFU | peak memory, GiB |", "|---|---|---|---|---|---|"]
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['title']} | failed: {row['failed']} | | | | |")
            continue
        lines.append(
            f"| {row['title']} | {row['rate']:.4g} ({row['low']:.4g} to {row['high']:.4g}) | {row['step']:.3g} (at most "
            f"{row['slowest']:.3g}) | {row['wait']:.1%} | {row['used']:.0%} | {row['gib']:.2f} |"
        )
    return "\n".join(lines)


def ratio_of(ratio: Ratio, runs: Runs) -> list[float]:
    """Within each round, so that what slows the machine down slows both; empty where one was not run."""
    both = zip(runs.get(ratio.above, []), runs.get(ratio.below, []), strict=False)
    return [a["rate"] / (ratio.times * b["rate"]) for a, b in both if not isinstance(a, str) and not isinstance(b, str)]


def ratio_table(ratios: Sequence[Ratio], runs: Runs) -> str:
    """Those of which both sides were run."""
    lines = ["| images/s against images/s | median (range over rounds) | wanted |", "|---|---|---|"]
    for ratio in ratios:
        found = ratio_of(ratio, runs)
        if found:
            middle = statistics.median(found)
            wanted = f"{ratio.target:g}" if ratio.target else ""
            lines.append(f"| {ratio.title} | {middle:.2f} ({min(found):.2f} to {max(found):.2f}) | {wanted} |")
    return "\n".join(lines)


def notes(raw: dict[str, Any], asked: argparse.Namespace) -> str:
    """How it was measured, in words."""
    best = {kind: max(one[kind] for one in raw["rates"]) / 1e12 for kind in ("fp32", "bf16")}
    best["bf16"] = asked.peak / 1e12 or best["bf16"]
    flops = {f"{who} {what}": one / 1e9 for who, all_of in raw["flops"].items() for what, one in all_of.items()}
    memory = "allocated on the GPU" if asked.cuda else "resident in the processes, summed over ranks"
    theirs = "in fp32, as without their AMP flags"
    if asked.cuda:
        theirs = "under fp16 autocast with a GradScaler (DIME-FM) and under bf16 autocast (open_clip)"
    return (
        f"Images/s: median over {asked.rounds} rounds in turn (smallest to largest), {asked.steps} steps each after "
        f"{asked.warmup} of warm-up; {asked.workers} data workers. Ours: ZeRO 1, one rank, student in {usual(asked.cuda)}, "
        f"teacher's weights in bf16, unless the row says otherwise; their models {theirs}. Peak memory: {memory} while steps "
        f"are counted. MFU: time that the models' FLOPs would take at the best rate of a product of their type here (fp32 "
        f"{best['fp32']:.3g}, bf16 {best['bf16']:.3g} TFLOP/s) over the time taken; a picture costs the student "
        f"{flops['student image_train']:.3g} GFLOP forward and backward, the live teacher {flops['teacher image']:.3g} and "
        f"{flops['teacher text']:.3g} for a sentence. DIME-FM's loop is written anew after its released trainer (see "
        "benchmarks/step_dimefm.py), which has no live teacher of its own."
    )

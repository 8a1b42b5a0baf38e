"""The losses against each other on the embedded world: same student tower, budget and seeds.

    deepspeed --num_gpus 2 benchmarks/playground_losses.py steps=200

Writes benchmarks/results/playground_losses_cpu2_202611.{md,json}. Every registered loss alone, and the mixtures of the
field. Those marked `paired` train the same image tower with a text tower of its own, on as many pictures with their own
captions; everything else sees unpaired pictures and sentences and is judged with the teacher's text tower.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from receipt import receipt, write  # noqa: E402

from recipes import quickstart  # noqa: E402
from toolkit import distributed  # noqa: E402
from toolkit.config import Checkpoint, Logging, LossOptions, Run, Student  # noqa: E402
from toolkit.config.losses import FIELD_PRESETS, OPTIONS, DualHead  # noqa: E402
from toolkit.launch import launch  # noqa: E402
from toolkit.playground.prepare import prepare_world  # noqa: E402
from toolkit.train import train  # noqa: E402

OUT = Path("runs/playground_losses")
PAIRED = ("contrastive", "icl", "cross_kd", "gd", "afd", "clip_kd", "open_clip")
"""Losses that need pairs or train a text tower; all of them get both."""
MIXTURES = ("dimefm", "dimefm-udist", "clip_kd", "open_clip")
ALONE = {name: {name: replace(options(), weight=options().weight or 1.0)} for name, options in OPTIONS.items()}
METHODS: dict[str, dict[str, LossOptions]] = {**ALONE, **{name: dict(FIELD_PRESETS[name]) for name in MIXTURES}}
METHODS["dual_head"] = {"dual_head": DualHead(classes=str(OUT / "data" / "classes.json"))}
COLUMNS = {
    "scenes": ("top1", "seen_top1", "unseen_top1", "agreement_top1", "mean_cosine"),
    "captions": ("image_to_text_r1", "text_to_image_r1"),
}


def run_of(method: str, seed: int, steps: int) -> Run:
    """The quickstart with other losses."""
    run = replace(
        quickstart.DEFAULTS,
        losses=METHODS[method],
        teacher=replace(quickstart.DEFAULTS.teacher, store=str(OUT / "store")),
        seed=seed,
        steps=steps,
        out_dir=str(OUT / f"{method}_{seed}_{steps}"),
        checkpoint=Checkpoint(every_steps=0, keep_last=1),
        logging=Logging(every_steps=50, tensorboard=False),
        evaluation=replace(quickstart.DEFAULTS.evaluation, every_steps=0, best=""),
    )
    sets = {
        name: replace(s, shards=s.shards.replace(quickstart.DATA, str(OUT / "data")))
        for name, s in run.evaluation.sets.items()
    }
    sets = {name: replace(s, classes=s.classes.replace(quickstart.DATA, str(OUT / "data"))) for name, s in sets.items()}
    run = replace(run, evaluation=replace(run.evaluation, sets=sets))
    if method in PAIRED:
        kwargs = {"width": run.student.kwargs["width"], "text_width": 128}
        student = Student(name="toolkit.playground.towers:scene_clip", kwargs=kwargs, text_tower=True)
        return replace(
            run,
            student=student,
            teacher=replace(run.teacher, store=str(OUT / "store_of_pairs")),
            data=replace(run.data, images="", texts="", pairs=str(OUT / "data/train_pairs")),
        )
    data = replace(run.data, images=str(OUT / "data/train_images"), texts=str(OUT / "data/train_texts"))
    return replace(run, data=data)


def main(words: Sequence[str]) -> None:
    """Train all, then write the table; finished runs are not trained again."""
    given = dict(word.split("=", 1) for word in words if "=" in word and not word.startswith("--"))
    steps = int(given.get("steps", quickstart.DEFAULTS.steps))
    seeds = tuple(range(int(given.get("seeds", 3))))
    prepare_world(OUT / "data", images=20_000, texts=20_000, pairs=20_000)
    raw: dict[str, list[dict[str, Any]]] = {}
    for method in METHODS:
        for seed in seeds:
            run = run_of(method, seed, steps)
            done = Path(run.out_dir) / "evaluation.json"
            if not distributed.broadcast_object(done.is_file()):
                train(run)
            raw.setdefault(method, []).append(json.loads(done.read_text()))
    if distributed.is_main():
        facts = receipt(
            "deepspeed --num_gpus 2 benchmarks/playground_losses.py"
            + "".join(f" {w}" for w in words if "=" in w and "--" not in w)
        )
        facts |= {"budget": f"{steps} steps of {quickstart.DEFAULTS.data.global_batch_size} images, seeds {seeds}"}
        facts |= {
            "seconds of training per run": round(
                statistics.mean(r["seconds"] for runs in raw.values() for r in runs), 1
            )
        }
        title = "Losses on the embedded world (percent; mean and standard deviation over three seeds)"
        print(table(raw))
        write("playground_losses_cpu2_202611", title, table(raw), facts, raw)


def table(raw: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a row per method, then the teacher and the untrained student."""
    names = [(dataset, metric) for dataset, metrics in COLUMNS.items() for metric in metrics]
    lines = ["| | " + " | ".join(metric for _, metric in names) + " |", "|---|" + "---|" * len(names)]
    rows = [(method, runs, "student") for method, runs in raw.items()]
    rows.sort(key=lambda row: -statistics.mean(run["sets"]["scenes"]["rows"]["student"]["top1"] for run in row[1]))
    rows += [("teacher", raw["vl"][:1], "teacher"), ("untrained", raw["vl"], "untrained")]
    for label, runs, who in rows:
        cells = []
        for dataset, metric in names:
            values = [run["sets"][dataset]["rows"][who].get(metric) for run in runs]
            known = [value for value in values if value is not None]
            spread = f" ± {statistics.stdev(known):.2f}" if len(known) > 1 else ""
            cells.append(f"{statistics.mean(known):.2f}{spread}" if known else "-")
        lines.append(f"| {label}{' (paired)' if label in PAIRED else ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    launch(main)

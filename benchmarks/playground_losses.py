"""The losses against each other on the embedded world: same student tower, budget and seeds.

    deepspeed --num_gpus 2 benchmarks/playground_losses.py

Writes benchmarks/results/playground_losses_cpu2_202611.{md,json}. `contrastive` trains the same image tower with a text
tower of its own on as many paired samples; everything else sees unpaired pictures and sentences.
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
from toolkit.config.losses import PVL, VL, Contrastive, Feature, UDist  # noqa: E402
from toolkit.launch import launch  # noqa: E402
from toolkit.playground.prepare import prepare_world  # noqa: E402
from toolkit.train import train  # noqa: E402

OUT = Path("runs/playground_losses")
SEEDS = (0, 1, 2)
METHODS: dict[str, dict[str, LossOptions]] = {
    "vl": {"vl": VL(weight=1.0)},
    "pvl": {"pvl": PVL(weight=1.0)},
    "vl+pvl": {"vl": VL(), "pvl": PVL()},
    "vl+pvl+udist": {"vl": VL(weight=0.68), "pvl": PVL(weight=0.22), "udist": UDist(weight=0.10)},
    "feature": {"feature": Feature()},
    "contrastive (paired)": {"contrastive": Contrastive()},
}
COLUMNS = {
    "scenes": ("top1", "seen_top1", "unseen_top1", "agreement_top1", "mean_cosine"),
    "captions": ("image_to_text_r1", "text_to_image_r1"),
}


def run_of(method: str, seed: int, steps: int) -> Run:
    """The quickstart with other losses; paired for `contrastive`."""
    run = replace(
        quickstart.DEFAULTS,
        losses=METHODS[method],
        teacher=replace(quickstart.DEFAULTS.teacher, store=str(OUT / "store")),
        seed=seed,
        steps=steps,
        out_dir=str(OUT / f"{method.split()[0]}_{seed}"),
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
    if method.startswith("contrastive"):
        kwargs = {"width": run.student.kwargs["width"], "text_width": 128}
        student = Student(name="toolkit.playground.towers:scene_clip", kwargs=kwargs, text_tower=True)
        return replace(
            run, student=student, data=replace(run.data, images="", texts="", pairs=str(OUT / "data/train_pairs"))
        )
    data = replace(run.data, images=str(OUT / "data/train_images"), texts=str(OUT / "data/train_texts"))
    return replace(run, data=data)


def main(words: Sequence[str]) -> None:
    """Train all, then write the table; finished runs are not trained again."""
    given = dict(word.split("=", 1) for word in words if "=" in word and not word.startswith("--"))
    steps = int(given.get("steps", quickstart.DEFAULTS.steps))
    prepare_world(OUT / "data", images=20_000, texts=20_000, pairs=20_000)
    raw: dict[str, list[dict[str, Any]]] = {}
    for method in METHODS:
        for seed in SEEDS:
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
        facts |= {"budget": f"{steps} steps of {quickstart.DEFAULTS.data.global_batch_size} images, seeds {SEEDS}"}
        facts |= {
            "seconds of training per run": round(
                statistics.mean(r["seconds"] for runs in raw.values() for r in runs), 1
            )
        }
        title = "Losses on the embedded world (percent; mean and standard deviation over three seeds)"
        write("playground_losses_cpu2_202611", title, table(raw), facts, raw)
        print(table(raw))


def table(raw: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a row per method, then the teacher and the untrained student."""
    names = [(dataset, metric) for dataset, metrics in COLUMNS.items() for metric in metrics]
    lines = ["| | " + " | ".join(metric for _, metric in names) + " |", "|---|" + "---|" * len(names)]
    rows = [(method, runs, "student") for method, runs in raw.items()]
    rows += [("teacher", raw["vl"][:1], "teacher"), ("untrained", raw["vl"], "untrained")]
    for label, runs, who in rows:
        cells = []
        for dataset, metric in names:
            values = [run["sets"][dataset]["rows"][who].get(metric) for run in runs]
            known = [value for value in values if value is not None]
            spread = f" ± {statistics.stdev(known):.2f}" if len(known) > 1 else ""
            cells.append(f"{statistics.mean(known):.2f}{spread}" if known else "-")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    launch(main)

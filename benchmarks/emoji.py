"""Distil on real pictures: two artists drew the same emoji; learn from one (Noto), be judged on the other (Fluent).

    python benchmarks/emoji.py --data DIR [--out runs/emoji] [--steps N] [--teacher-steps N]

DIR/emoji holds noto_png72.tar, fluent_3d_png72.tar and captions.tsv (file, codepoints, name, keywords, group). Base concepts
fall into two halves. A teacher learns all Noto pairs; a student a third its size learns from it with pictures of half A
and sentences of half B, so that nothing can be paired; the same student learns half A's pairs by itself. All are judged
on one Fluent picture per concept. A stage that is done is not repeated. Result: benchmarks/results/emoji_cpu2_202611.md.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.emoji_models import VOCABULARY, prepare
from benchmarks.receipt import receipt, write

ROOT = Path(__file__).resolve().parents[1]
SOFTER = ["losses.vl.temperature=3", "losses.pvl.temperature=3"]
"""This teacher's own scale ends at 17, not at CLIP's 100: 33 is nearer to it."""
NOTES = ""
"""What the numbers do not say by themselves; goes below the table."""
TEACHER, STUDENT = "student.kwargs.width=48", "student.kwargs.width=24"
TEXT = [f"student.kwargs.{x}" for x in (f"vocab_size={VOCABULARY}", "text_width=96", "text_layers=1")]
METHOD = [
    *("data.global_batch_size=256", "data.augmentation.flip_fraction=0", "student.image_size=32"),
    *("student.kwargs.blocks=1", "student.kwargs.embed_dim=128", "optim.lr=2e-3", "optim.warmup_lr=1e-5"),
    *("optim.min_lr=1e-5", "optim.warmup_steps=100", "optim.gradient_clipping=1", "precision=bf16", "workers=0"),
    "evaluation.every_steps=0",
]


def launches(out: Path, steps: int, teacher_steps: int) -> dict[str, list[str]]:
    """Recipe and overrides of the three trainings, in order."""
    work, both = out / "data", f"{out}/data/judge_a::{out}/data/judge_b"
    judge = [f"evaluation.sets.{name}.kind=retrieval" for name in ("all", "a", "b")]
    judge += [f"evaluation.sets.all.shards={both}", *(f"evaluation.sets.{x}.shards={work}/judge_{x}" for x in "ab")]
    # The teacher's recipe brings a set called scenes, which an override cannot take away: it holds the groups here.
    judge += [f"evaluation.sets.scenes.shards={both}", f"evaluation.sets.scenes.classes={work}/classes.json"]
    clip = ["student.name=toolkit.playground.towers:scene_clip", f"student.tokenizer={work}/words.model", *TEXT]
    clip += [*METHOD, *judge, "data.augmentation.crop_scale=[0.5,1]"]
    teacher = f"{out}/teacher/checkpoints/step_{teacher_steps:08d}"
    return {
        "teacher": [
            *("train_teacher.py", *clip, TEACHER),
            *(f"steps={teacher_steps}", f"data.pairs={work}/pairs_a::{work}/pairs_b"),
        ],
        "student": [
            *("distill_vitb32.py", f"teacher.name={teacher}", "student.name=toolkit.playground.towers:scene_student"),
            *(STUDENT, *METHOD, *judge, "data.augmentation.crop_scale=[0.35,1]", "data.teacher_view=same"),
            *(f"steps={steps}", f"data.images={work}/images_a", f"data.texts={work}/texts_b", *SOFTER),
        ],
        # Half the concepts in half the steps: it sees each as often as the teacher does.
        "contrastive": [
            *("train_teacher.py", *clip, STUDENT, f"steps={teacher_steps // 2}", f"data.pairs={work}/pairs_a")
        ],
    }


def launch(out: Path, name: str, recipe: str, *overrides: str) -> None:
    """One run on two ranks, its output in `<name>.log`; stops the script when it fails."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    bin = Path(sys.executable).parent
    command = [str(bin / "deepspeed"), "--num_gpus", "2", "--master_port", str(port)]
    command += [str(ROOT / "recipes" / recipe), f"out_dir={out / name}", *overrides]
    # Another ninja than the one that built DeepSpeed's CPU operator would build it anew, in every launch.
    env = {"OMP_NUM_THREADS": "1", **os.environ, "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}"}
    with (out / f"{name}.log").open("w") as log:
        code = subprocess.run(command, stdout=log, stderr=log, env=env).returncode
    if code:
        sys.exit(f"{name} failed with {code}; {out / name}.log says why")


def rows_of(out: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics by set and model, from what the runs wrote."""
    student, contrastive = (
        json.loads((out / name / "evaluation.json").read_text())["sets"] for name in ("student", "contrastive")
    )
    return {
        name: {
            **{who: found["rows"][who] for who in ("teacher", "student")},
            "contrastive on A's pairs": contrastive[name]["rows"]["student"],
            "untrained": found["rows"]["untrained"],
        }
        for name, found in student.items()
    }


def facts_of(out: Path, command: str, seconds: dict[str, float]) -> dict[str, Any]:
    """How the numbers came about."""
    runs = {name: json.loads((out / name / "run.json").read_text()) for name in ("teacher", "student", "contrastive")}
    said = {name: run["command"].replace(" --local_rank=0", "") for name, run in runs.items()}
    sizes = {name: f"{run['student']['image_params']:,}" for name, run in runs.items()}
    return {
        **receipt(command),
        "seconds per stage": seconds,
        "data": json.loads((out / "data" / "world.json").read_text()),
        "parameters of the image towers": sizes,
        **{f"launch of the {name}": f"`deepspeed --num_gpus 2 recipes/{words}`" for name, words in said.items()},
        **{f"commit when the {name} was trained": run["git_commit"] for name, run in runs.items()},
    }


def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Retrieval over both halves, over each, and zero-shot over the groups, in percent."""
    asked = [f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]
    lines = ["| retrieval over | model | " + " | ".join(asked) + " |", "|---" * 8 + "|"]
    for name, title in {"all": "all", "a": "A (pictures seen)", "b": "B (sentences seen)"}.items():
        for who, row in rows[name].items():
            lines.append(f"| {title} | {who} | " + " | ".join(f"{row[key]:.1f}" for key in asked) + " |")
    lines += ["", "| zero-shot over the groups | top-1 | top-5 |", "|---|---|---|"]
    lines += [f"| {who} | {row['top1']:.1f} | {row['top5']:.1f} |" for who, row in rows["scenes"].items()]
    return "\n".join(lines)


def requirements(rows: dict[str, dict[str, float]], pictures: int) -> str:
    """How far the two things asked for are met: teacher 5 times chance, student 80 % of the teacher, both at R@10."""
    chance = 1000 / pictures
    lines = [f"R@10 over all {pictures} pictures; chance is {chance:.2f} %.", ""]
    for key in ("image_to_text_r10", "text_to_image_r10"):
        teacher, student = rows["teacher"][key], rows["student"][key]
        lines.append(
            f"- {key}: the teacher's is {teacher / chance:.1f} times chance (wanted 5), "
            f"the student's {100 * student / teacher:.1f} % of the teacher's (wanted 80)"
        )
    return "\n".join(lines)


def main() -> None:
    """Every stage that is not done yet, then the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds emoji/")
    parser.add_argument("--out", type=Path, default=Path("runs/emoji"), help="where shards and runs go")
    parser.add_argument("--steps", type=int, default=700, help="of the student")
    parser.add_argument("--teacher-steps", type=int, default=800, help="the contrastive one takes half")
    words = parser.parse_args()
    out, timing = words.out, words.out / "seconds.json"
    out.mkdir(parents=True, exist_ok=True)
    seconds = json.loads(timing.read_text()) if timing.exists() else {}
    stages = {"prepare": partial(prepare, words.data / "emoji", out / "data")}
    for name, run in launches(out, words.steps, words.teacher_steps).items():
        stages[name] = partial(launch, out, name, *run)
    for name, work in stages.items():
        if not (out / ("data/world.json" if name == "prepare" else f"{name}/evaluation.json")).exists():
            start = time.monotonic()
            work()
            seconds[name] = round(time.monotonic() - start, 1)
            timing.write_text(json.dumps(seconds) + "\n")
        print(f"{name}: {seconds.get(name)} s", flush=True)
    command = f"python benchmarks/emoji.py --data DIR --steps {words.steps} --teacher-steps {words.teacher_steps}"
    rows, facts = rows_of(out), facts_of(out, command, seconds)
    notes = requirements(rows["all"], facts["data"]["judged"])
    title = "Emoji: learnt from one artist, judged on another (percent)"
    write("emoji_cpu2_202611", title, table(rows), facts, rows, f"{notes}\n\n{NOTES}" if NOTES else notes)
    print(f"{table(rows)}\n\n{notes}")


if __name__ == "__main__":
    main()

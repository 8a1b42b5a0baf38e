"""From folders of pictures and a heap of text to a distilled student, each step by its command, timed and weighed.

    python benchmarks/photos_to_student.py --data DIR [--teacher FOLDER] [--out runs/photos] [--steps N]

DIR holds clothing/, grocery/ and emoji/ (tars of pictures, class lists, names and keywords) and interop/img2dataset/ (1,000
captions of the web). The teacher is that of benchmarks/emoji.py unless another checkpoint folder is named. Training reads the
stores alone; the teacher is loaded for the judgement after the last step. Result: benchmarks/results/photos_cpu2_202611.md.
"""

import argparse
import csv
import io
import json
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from benchmarks.emoji import METHOD, SOFTER, STUDENT, launch
from benchmarks.receipt import receipt, write

EMOJI = Path("runs/emoji")


def write_words(data: Path, out: Path) -> dict[str, int]:
    """`sentences.txt` (product texts, names and keywords of emoji) and `classes.txt`; how many lines each."""
    sentences: list[str] = []
    classes: list[str] = []
    with tarfile.open(data / "grocery/grocery_128.tar") as tar:
        rows = csv.DictReader(io.TextIOWrapper(tar.extractfile("dataset/classes.csv")))  # type: ignore[arg-type]
        for row in rows:
            classes += [row["Class Name (str)"].replace("-", " "), row["Coarse Class Name (str)"].replace("-", " ")]
            member = tar.extractfile("dataset" + row["Product Description Path (str)"])
            assert member is not None
            sentences += [
                part.strip() + "." for part in member.read().decode("utf-8", "replace").split(".") if part.strip()
            ]
    with tarfile.open(data / "clothing/clothing_128.tar") as tar:
        folders = {member.name.split("/")[1] for member in tar if member.name.count("/") == 2}
        classes += sorted(name.replace("-", " ") for name in folders)
    with open(data / "emoji/captions.tsv", encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            sentences += [f"an emoji of {line['name']}", line["keywords"].replace("|", " ")]
    out.mkdir(parents=True, exist_ok=True)
    found = {"sentences.txt": sentences, "classes.txt": list(dict.fromkeys(classes))}
    for name, lines in found.items():
        (out / name).write_text("".join(f"{' '.join(line.split())}\n" for line in lines))
    return {name: len(lines) for name, lines in found.items()}


def commands(data: Path, out: Path, teacher: Path, size: int) -> dict[str, list[str]]:
    """The words behind `dime`, in order."""
    pictures = [data / name for name in ("clothing/clothing_128.tar", "grocery/grocery_128.tar")]
    pictures += [data / f"emoji/{name}_png72.tar" for name in ("noto", "fluent_3d")]
    words, store = out / "words", out / "store"
    parquet = data / "interop/img2dataset/test_1000.parquet"
    by = ["--teacher", teacher, "--out", store, "--processes", "2", "--workers", "0"]
    found: dict[str, list[Any]] = {
        "shards of pictures": ["shards", "images", *pictures, "--out", out / "images"],
        "shards of sentences": ["shards", "texts", parquet, words / "sentences.txt", "--out", out / "texts", "--min-words", "2"],
        "shards of class prompts": [
            *("shards", "texts", "--classnames", words / "classes.txt", "--templates", "imagenet", "--out", out / "prompts")
        ],
        "check": ["shards", "check", out / "images"],
        "embed pictures": ["embed", "images", out / "images", *by],
        "embed sentences": ["embed", "texts", f"{out / 'texts'}::{out / 'prompts'}", *by],
        "verify": ["embed", "verify", store],
        "select": [
            *("select", "--images", store, "--texts", store, "--size", size, "--out", out / "corpus", "--store", out / "chosen"),
            *("--min-words", "2"),
        ],
    }  # fmt: skip
    return {name: [str(word) for word in [*words, "--json"]] for name, words in found.items()}


def training(out: Path, teacher: Path, steps: int) -> list[str]:
    """Overrides of recipes/distill_vitb32.py: the student of benchmarks/emoji.py, from the stores alone."""
    both = f"{EMOJI}/data/judge_a::{EMOJI}/data/judge_b"
    return [
        *(f"teacher.name={teacher}", f"teacher.store={out / 'train_store'}", "teacher.in_memory=false"),
        *("student.name=toolkit.playground.towers:scene_student", STUDENT, *METHOD, *SOFTER, f"steps={steps}"),
        *(f"data.images={out / 'images'}", f"data.texts={out / 'corpus'}", "data.augmentation.crop_scale=[0.35,1]"),
        *("evaluation.sets.all.kind=retrieval", f"evaluation.sets.all.shards={both}"),
    ]


def run(words: list[str]) -> dict[str, Any]:
    """One command; what it said, its seconds, and its JSON."""
    start = time.monotonic()
    done = subprocess.run([str(Path(sys.executable).with_name("dime")), *words], capture_output=True, text=True)
    seconds = round(time.monotonic() - start, 1)
    if done.returncode:
        sys.exit(f"dime {' '.join(words)} failed with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return {"seconds": seconds, "said": json.loads(done.stdout.splitlines()[-1])}


def weight(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def in_words(name: str, said: dict[str, Any]) -> str:
    """What came of a step."""
    if name.startswith("shards"):
        left = ", ".join(f"{count} {reason}" for reason, count in said["left_out"].items())
        return f"{said['samples']:,} of {said['inputs']:,}" + (f" (left out: {left})" if left else "")
    if name.startswith("embed"):
        (store,) = said["stores"]
        new = store["new"]
        return (
            f"{store['samples']:,} at {new['samples_per_second']:,.0f}/s, {store['bytes_per_sample']:.0f} bytes each, cosine at "
            f"least {new['cosine_min']:.5f}"
        )
    if name == "verify":
        return ", ".join(f"{Path(k).name}: cosine at least {v['cosine_min']:.5f}" for k, v in said["stores"].items())
    if name == "select":
        return f"{said['chosen']:,} of {said['pool']['sentences']:,} sentences"
    return f"{said['wrong']} wrong of {said['samples']:,}"


def main() -> None:
    """Every step from the start, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, default=EMOJI / "teacher/checkpoints/step_00000800")
    parser.add_argument("--out", type=Path, default=Path("runs/photos"))
    parser.add_argument("--size", type=int, default=6000, help="sentences to choose")
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()
    if not given.teacher.is_dir():
        sys.exit(
            f"{given.teacher} is not there; run benchmarks/emoji.py first, or name a checkpoint folder with --teacher"
        )
    shutil.rmtree(given.out, ignore_errors=True)
    lines = write_words(given.data, given.out / "words")
    written = {
        "shards of pictures": "images", "shards of sentences": "texts", "shards of class prompts": "prompts",
        "embed pictures": "store/image", "embed sentences": "store/text", "select": "corpus", "distil": "student",
    }  # fmt: skip
    found: dict[str, dict[str, Any]] = {}
    for name, words in commands(given.data, given.out, given.teacher, given.size).items():
        found[name] = run(words)
        print(f"{name}: {found[name]['seconds']} s, {in_words(name, found[name]['said'])}", flush=True)
    (given.out / "train_store").mkdir()
    (given.out / "train_store/image").symlink_to((given.out / "store/image").resolve())
    (given.out / "train_store/text").symlink_to((given.out / "chosen").resolve())
    start = time.monotonic()
    launch(given.out, "student", "distill_vitb32.py", *training(given.out, given.teacher, given.steps))
    found["distil"] = {"seconds": round(time.monotonic() - start, 1)}
    report = json.loads((given.out / "student/evaluation.json").read_text())["sets"]["all"]["rows"]
    rates = [json.loads(line) for line in (given.out / "student/metrics.jsonl").read_text().splitlines()]
    rate = max(line["speed/images_per_second"] for line in rates if "speed/images_per_second" in line)
    r10 = {who: row["image_to_text_r10"] for who, row in report.items()}
    rows = ["| step | seconds | bytes written | what came of it |", "|---|---|---|---|"]
    for name, step in found.items():
        size = f"{weight(given.out / written[name]):,}" if name in written else "-"
        what = (
            f"{given.steps} steps of 256 at up to {rate:,.0f} images/s"
            if name == "distil"
            else in_words(name, step["said"])
        )
        rows.append(f"| {name} | {step['seconds']} | {size} | {what} |")
    notes = (
        "R@10, image to text, over Fluent pictures that nobody trained on: "
        + ", ".join(f"{who} {value:.1f}" for who, value in r10.items())
        + ". Most of the training pictures are photos, which this teacher of emoji has never seen: the numbers show that the "
        "road holds, not what it is worth."
    )
    facts = receipt(f"python benchmarks/photos_to_student.py --data DIR --steps {given.steps} --size {given.size}")
    facts |= {"words": lines, "teacher": str(given.teacher)}
    write(
        "photos_cpu2_202611",
        "From pictures and text to a student, on stores alone",
        "\n".join(rows),
        facts,
        found,
        notes,
    )
    print("\n".join(rows), notes, sep="\n")


if __name__ == "__main__":
    main()

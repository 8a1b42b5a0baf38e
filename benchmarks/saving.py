"""How long a step waits for a checkpoint: written in the background against written at once, in turn.

    python benchmarks/saving.py [--rounds 3] [--no-receipt]          (about ten minutes, 15 GB written to a temporary folder)

A ViT-B/32 student (about a gigabyte of weights and AdamW moments) on two ranks in ZeRO-1, fed with the playground's small
pictures so that a step is short; a checkpoint every fifth step. The numbers are those of the run's own log: what the step
waited, and what the writing took. Each launch trains the same steps; the students at the end must be the same bytes.
"""

import argparse
import hashlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from receipt import receipt, write

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
STEPS, EVERY = 15, 5
LINE = re.compile(r"saved .*step_(\d+) \(([\d,.]+) MB; the step waited ([\d.]+) s, writing took ([\d.]+) s\)")
WAITED = re.compile(r'"checkpoint/waited_seconds": ([\d.e-]+)')


def main() -> None:
    """Launch in turn, read the logs, write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--student", default="ViT-B-32")
    words.add_argument("--no-receipt", action="store_true")
    given = words.parse_args()
    found: dict[str, list[dict[str, Any]]] = {"background": [], "at once": []}
    with tempfile.TemporaryDirectory() as temporary:
        from toolkit.playground.shards import write_world

        world = write_world(Path(temporary) / "world", images=256, texts=256, test_images_per_class=1, test_pairs=20)
        for number in range(given.rounds):
            for name in found if number % 2 == 0 else reversed(found):
                out = Path(temporary) / f"{name.replace(' ', '_')}_{number}"
                found[name].append(launched(out, world, given.student, background=name == "background"))
                last = out / "checkpoints" / f"step_{STEPS:08d}" / "student.safetensors"
                found[name][-1]["sha256"] = hashlib.sha256(last.read_bytes()).hexdigest()
                print(name, found[name][-1], flush=True)
                shutil.rmtree(out)
    same = len({entry["sha256"] for entries in found.values() for entry in entries}) == 1
    assert same, "the students differ"
    text = table(found)
    print(text)
    if not given.no_receipt:
        command = " ".join(["python benchmarks/saving.py", *sys.argv[1:]])
        write("saving_cpu2_202611", "How long a step waits for a checkpoint", text, receipt(command), found)


def launched(out: Path, world: Path, student: str, *, background: bool) -> dict[str, Any]:
    """One launch on two ranks; seconds by checkpoint."""
    chosen = {
        "out_dir": out, "data.images": world / "train_images", "data.texts": world / "train_texts", "teacher.store": "''",
        "student.name": student, "student.kwargs": "{}", "student.image_size": 32, "data.global_batch_size": 32, "steps": STEPS,
        "optim.warmup_steps": 1, "checkpoint.every_steps": EVERY, "checkpoint.keep_last": 1, "checkpoint.background": background,
        "logging.every_steps": 1, "logging.tensorboard": False, "evaluation.every_steps": 0, "evaluation.best": "''",
    }  # fmt: skip
    words = [str(ROOT / "recipes" / "quickstart.py"), *(f"{key}={value}" for key, value in chosen.items())]
    launcher = [str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", "2"]
    done = subprocess.run([*launcher, *words], cwd=ROOT, capture_output=True, text=True, timeout=900)
    if done.returncode:
        sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
    lines = LINE.findall(done.stdout)
    waited = [float(value) for value in WAITED.findall((out / "metrics.jsonl").read_text())]
    return {
        "megabytes": [float(size.replace(",", "")) for _, size, _, _ in lines],
        "copied_seconds": [float(copied) for _, _, copied, _ in lines],
        "written_seconds": [float(written) for _, _, _, written in lines],
        "waited_before_the_last": waited[-1],
    }


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Seconds by way of saving."""
    rows = ["| | a step waits (s, each save but the last) | writing takes (s) | checkpoint (MB) |", "|---|---|---|---|"]
    saves = STEPS // EVERY - 1
    for name, entries in found.items():
        waits = [entry["waited_before_the_last"] / saves for entry in entries]
        writes = [seconds for entry in entries for seconds in entry["written_seconds"]]
        rows.append(
            f"| {name} | {statistics.median(waits):.2f} ({min(waits):.2f}-{max(waits):.2f}) | {statistics.median(writes):.1f} "
            f"({min(writes):.1f}-{max(writes):.1f}) | {entries[0]['megabytes'][0]:,.0f} |"
        )
    note = f"{len(found['background'])} launches each, two ranks, ZeRO-1; the students at the end are the same bytes."
    return "\n".join([*rows, "", note])


if __name__ == "__main__":
    main()

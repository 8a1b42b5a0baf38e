"""Real photos: a student trained by one command, judged beside its teacher on clothing and groceries, and its words on SugarCrepe.

    python benchmarks/real_photos.py --data DIR [--keep] [--out runs/real_photos]

DIR holds clothing/, grocery/, emoji/, interop/img2dataset/ and text/sugar-crepe/. The student is that of
benchmarks/photos_to_student.py, trained anew unless --keep (its teacher, of emoji, is that of benchmarks/emoji.py); beside it stands
the student of benchmarks/emoji.py. Zero-shot, both linear probes and 5-shot. The report that goes with the numbers shows pictures
of the playground alone. Result: benchmarks/results/real_photos_cpu2_<yyyymm>.{md,json,html}.
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
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from benchmarks.receipt import RESULTS, receipt, write
from toolkit.playground.shards import write_world

STUDENT, EMOJI = Path("runs/photos/student"), Path("runs/emoji/student")
TASKS = ("zero_shot", "linear_probe", "linear_probe_clean", "5_shot")
SETS = ("clothing", "grocery", "scenes")
TEMPLATES = ["an emoji of {}", "{}"]
"""As the teacher's own sentences are; it has never seen "a photo of"."""
SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


def lay_out(data: Path, out: Path) -> dict[str, int]:
    """Pictures by class in folders, and the playground in shards; how many pictures each."""
    counts = {"clothing": clothing(data, out / "clothing"), "grocery": grocery(data, out / "grocery")}
    for name, seed in (("train", 1), ("test", 0)):
        world = write_world(out / f".world{seed}", seed=seed, images=1, texts=1, test_images_per_class=10, test_pairs=1)
        shutil.copytree(world / "test_classes", out / "scenes" / name)
        card = json.loads((world / "classes.json").read_text())
        shutil.rmtree(world)
    (out / "scenes/classes.json").write_text(json.dumps({key: card[key] for key in ("classnames", "templates")}))
    (out / "sugar-crepe").symlink_to((data / "text/sugar-crepe").resolve())
    return counts


def clothing(data: Path, out: Path) -> int:
    """train, validation and test folders of the tar."""
    count = 0
    with tarfile.open(data / "clothing/clothing_128.tar") as tar:
        for member in tar:
            split, _, rest = member.name.partition("/")
            if member.isfile() and split in SPLITS and rest.count("/") == 1:
                count += save(tar, member.name, out / SPLITS[split] / rest)
    card(out, {})
    return count


def grocery(data: Path, out: Path) -> int:
    """The fine classes of its lists."""
    count = 0
    with tarfile.open(data / "grocery/grocery_128.tar") as tar:
        rows = list(csv.DictReader(io.StringIO(text(tar, "dataset/classes.csv"))))
        names = {row["Class ID (int)"]: row["Class Name (str)"] for row in rows}
        for split in ("train", "val", "test"):
            for line in text(tar, f"dataset/{split}.txt").splitlines():
                path, fine, _ = (part.strip() for part in line.split(","))
                count += save(tar, f"dataset/{path}", out / split / names[fine] / PurePosixPath(path).name)
    card(out, {name: name.replace("-", " ").lower() for name in names.values()})
    return count


def card(out: Path, names: dict[str, str]) -> None:
    """Names and prompts of a set."""
    (out / "classes.json").write_text(json.dumps({"classnames": names, "templates": TEMPLATES}))


def text(tar: tarfile.TarFile, name: str) -> str:
    """A member as text."""
    member = tar.extractfile(name)
    assert member is not None
    return member.read().decode()


def save(tar: tarfile.TarFile, name: str, path: Path) -> int:
    """1."""
    member = tar.extractfile(name)
    assert member is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(member.read())
    return 1


def run(words: list[str]) -> float:
    """Seconds of a command that must succeed; what it says is shown."""
    start = time.monotonic()
    done = subprocess.run(words)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed with {done.returncode}")
    return round(time.monotonic() - start, 1)


def table(results: dict[str, Any]) -> str:
    """Set and task downwards, models across, with intervals, and the difference to the teacher."""
    models = list(results["models"])
    lines = [
        "| set | task | " + " | ".join(models) + " | student - teacher |",
        "|---|---|" + "---|" * (len(models) + 1),
    ]
    for name in SETS:
        for task in TASKS:
            found = results["sets"][name]["tasks"][task]
            cells = [f"{row['value']:.1f} ({row['low']:.1f} to {row['high']:.1f})" for row in found["rows"].values()]
            gap = found["differences"]["teacher"]
            cells.append(f"{gap['value']:+.1f} ({gap['low']:+.1f} to {gap['high']:+.1f}), p = {gap['p_value']:.3f}")
            lines.append(f"| {name} | {task} | " + " | ".join(cells) + " |")
    sugar = results["compositionality"]["sugar-crepe"]["rows"]
    lines += [
        "",
        "| SugarCrepe's captions, texts alone | mean cosine | indistinguishable % | told apart % |",
        "|---|---|---|---|",
    ]
    for who, row in sugar.items():
        only = row["text_only"]
        lines.append(
            f"| {who} | {only['mean_cosine']:.3f} | {only['indistinguishable']:.2f} | {only['told_apart']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Train, lay out, judge, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/real_photos"))
    parser.add_argument("--keep", action="store_true", help="judge the student that is there")
    given = parser.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)
    seconds: dict[str, float] = {}
    if not given.keep:
        seconds["train"] = run([sys.executable, "-m", "benchmarks.photos_to_student", "--data", str(given.data)])
    sets = given.out / "sets"
    counts = lay_out(given.data, sets)
    dime = str(Path(sys.executable).with_name("dime"))
    judged = given.out / "judged"
    words = [
        *(dime, "evaluate", str(STUDENT), "--data", str(sets), "--sets", ",".join((*SETS, "sugar-crepe"))),
        *("--tasks", "zero_shot,linear_probe,linear_probe_clean,k_shot,compositionality", "--beside", str(EMOJI)),
        *("--pictures", "scenes", "--out", str(judged / "benchmarks"), "--cache", str(given.out / "cache")),
    ]
    if EMOJI.name == STUDENT.name:  # two runs of one name: the second by a link of its own
        link = given.out / "emoji-student"
        link.symlink_to(EMOJI.resolve())
        words[words.index(str(EMOJI))] = str(link)
    seconds["judge"] = run(words)
    seconds["judge again, from the cache"] = run(words)
    run([dime, "report", str(judged)])
    results = json.loads((judged / "benchmarks/results.json").read_text())
    facts = receipt("python benchmarks/real_photos.py --data DIR" + (" --keep" if given.keep else ""))
    facts |= {"pictures": counts, "seconds": seconds}
    notes = (
        "Percent, 95 % bootstrap intervals over the test pictures. The teacher has seen emoji and nothing else, so that zero-shot on "
        "photos says little; probes show what its features and the students' hold. `linear_probe` and `5_shot` are ELEVATER's, which "
        "choose the epoch on test pictures; `linear_probe_clean` does not. The students borrow their teacher's text tower."
    )
    name = f"real_photos_cpu2_{datetime.now(UTC):%Y%m}"
    kept = {key: value for key, value in results.items() if key not in ("sets",)}
    kept["sets"] = {one: without_pictures(found) for one, found in results["sets"].items()}
    write(name, "Real photos: zero-shot, probes, few shots", table(results), facts, kept, notes)
    shutil.copy(judged / "report.html", RESULTS / f"{name}.html")


def without_pictures(found: dict[str, Any]) -> dict[str, Any]:
    """A set's numbers."""
    tasks = {
        task: {key: value for key, value in one.items() if key not in ("pictures", "worst")}
        for task, one in found["tasks"].items()
    }
    return {**found, "tasks": tasks}


if __name__ == "__main__":
    main()

"""The receipt of `make quickstart`: reads the finished run and writes benchmarks/results/quickstart_cpu2_202611.{md,json}.

make quickstart && .venv/bin/python benchmarks/quickstart.py
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks")]

from receipt import receipt, write  # noqa: E402

ROWS = ("top1", "seen_top1", "unseen_top1", "agreement_top1")


def main() -> None:
    """Table of the three models."""
    run = ROOT / "runs/quickstart"
    report = json.loads((run / "report.json").read_text())
    facts = json.loads((run / "run.json").read_text())
    lines = [
        "| | image parameters | " + " | ".join(ROWS) + " | captions R@1 (image to text) |",
        "|---|---|" + "---|" * (len(ROWS) + 1),
    ]
    captions = report["sets"]["captions"]["rows"]
    for who in ("teacher", "student", "untrained"):
        row = report[who]
        cells = [f"{row[key]:.1f}" if key in row else "-" for key in ROWS]
        params = report["teacher" if who == "teacher" else "student"]["image_params"]
        lines.append(f"| {who} | {params:,} | " + " | ".join(cells) + f" | {captions[who]['image_to_text_r1']:.1f} |")
    kept = {
        key: round(100 * report["student"][key] / report["teacher"][key], 1) for key in ("seen_top1", "unseen_top1")
    }
    notes = f"The student keeps {kept['seen_top1']} % of the teacher on seen and {kept['unseen_top1']} % on unseen combinations."
    about = receipt("make quickstart") | {
        "seconds of training": report["seconds"],
        "batch": facts["batch"],
        "run's commit": facts["git_commit"],
    }
    title = "make quickstart: zero-shot top-1 (percent), 120 classes of the embedded world"
    write("quickstart_cpu2_202611", title, "\n".join(lines), about, report, notes)
    print("\n".join(lines), notes, sep="\n")


if __name__ == "__main__":
    main()

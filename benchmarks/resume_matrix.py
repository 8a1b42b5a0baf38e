"""Resuming in every ZeRO stage on every number of ranks: what is bit for bit, what is equal up to rounding, and by how much.

    python benchmarks/resume_matrix.py [--worlds 1 2 4] [--no-receipt]          (about ten minutes on two cores)

A run of four steps is cut after two and gone on with on other ranks, in fp32, with dropout, drop-path, losses that keep a queue,
running statistics and a trained head, sizes that do not divide by the ranks. Compared with the run that was not cut, on as many
ranks as wrote the checkpoint: losses after the cut (relative), weights at the end (absolute), and the samples of every step.
"""

import argparse
import itertools
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from receipt import receipt, write

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "engine")]

import torch  # noqa: E402
from elastic_worker import CUT, LAST  # noqa: E402
from launch_ranks import run_ranks  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from toolkit.playground.shards import write_world  # noqa: E402

WORKER = ROOT / "tests" / "engine" / "elastic_worker.py"
STAGES = (0, 1, 2, 3)
ROWS = 6
"""Of a micro-batch: 24 rows are four micro-batches, on one, two or four ranks."""


def main() -> None:
    """Train straight, cut, go on, compare."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--worlds", type=int, nargs="+", default=[1, 2, 4])
    words.add_argument("--no-receipt", action="store_true")
    given = words.parse_args()
    cells = list(itertools.product(STAGES, given.worlds, given.worlds))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_world(folder / "world", images=192, texts=192, test_images_per_class=1, test_pairs=20)
        classes = {
            "classnames": ["red circle", "blue square", "green star"],
            "templates": ["a {}", "a picture of a {}"],
        }
        (folder / "classes.json").write_text(json.dumps(classes))
        for world in given.worlds:
            print(f"straight on {world} ranks", flush=True)
            cases = [f"zero{stage}/straight_{stage}_{world}/{LAST}/0/{ROWS}" for stage in STAGES]
            run_ranks(WORKER, str(folder), *cases, ranks=world, timeout=1200)
        for stage, old, new in cells:
            cut = folder / name_of(stage, old, new)
            shutil.copytree(folder / f"straight_{stage}_{old}", cut)
            shutil.rmtree(cut / "checkpoints" / f"step_{LAST:08d}")
        for world in given.worlds:
            print(f"going on on {world} ranks", flush=True)
            cases = [
                f"zero{stage}/{name_of(stage, old, new)}/{LAST}/0/{ROWS}" for stage, old, new in cells if new == world
            ]
            run_ranks(WORKER, str(folder), *cases, ranks=world, timeout=1200)
        raw = {name_of(*cell): compared(folder, *cell) for cell in cells}
    text = table(given.worlds, raw)
    print(text)
    if not given.no_receipt:
        command = " ".join(["python benchmarks/resume_matrix.py", *sys.argv[1:]])
        write(
            "resume_matrix_cpu2_202611",
            "Resuming in every ZeRO stage on every number of ranks",
            text,
            receipt(command),
            raw,
        )


def name_of(stage: int, old: int, new: int) -> str:
    """Folder of a cell."""
    return f"zero{stage}_{old}_to_{new}"


def compared(folder: Path, stage: int, old: int, new: int) -> dict[str, Any]:
    """A cell against the run that was not cut."""
    name, wanted = name_of(stage, old, new), f"straight_{stage}_{old}"
    pairs = list(zip(losses(folder / name), losses(folder / wanted), strict=True))
    assert len(pairs) == LAST - CUT
    found, other = (
        load_file(folder / which / "checkpoints" / f"step_{LAST:08d}" / "student.safetensors")
        for which in (name, wanted)
    )
    assert found.keys() == other.keys()
    return {
        "losses": max(abs(a - b) / abs(b) for a, b in pairs),
        "weights": max(float((found[key].double() - other[key].double()).abs().max()) for key in found),
        "bit_for_bit": all(torch.equal(found[key], other[key]) for key in found) and all(a == b for a, b in pairs),
        "same_samples": samples(folder, name, new) == samples(folder, wanted, old)[CUT:],
    }


def losses(run: Path) -> list[float]:
    """After the cut."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if line["step"] > CUT]


def samples(folder: Path, name: str, ranks: int) -> list[dict[str, list[str]]]:
    """`shard:key` of every row of every step, by stream, in the order of the global batch."""
    parts = [
        [json.loads(line) for line in (folder / f"{name}.samples.{ranks}.{rank}").read_text().splitlines()]
        for rank in range(ranks)
    ]
    return [
        {stream: [key for part in step for key in part[stream]] for stream in step[0]}
        for step in zip(*parts, strict=True)
    ]


def table(worlds: list[int], raw: dict[str, dict[str, Any]]) -> str:
    """A row for each stage and number of ranks that wrote, a column for each that went on."""
    rows = [
        "Largest difference of the losses after the cut (relative) and of the weights at the end (absolute).",
        "",
        "| ZeRO | written by | " + " | ".join(f"gone on with {world}" for world in worlds) + " |",
        "|---|---|" + "---|" * len(worlds),
    ]
    for stage, old in itertools.product(STAGES, worlds):
        cells = [raw[name_of(stage, old, new)] for new in worlds]
        said = [
            "bit for bit" if cell["bit_for_bit"] else f"{cell['losses']:.1e}, {cell['weights']:.1e}" for cell in cells
        ]
        rows.append(f"| {stage} | {old} | " + " | ".join(said) + " |")
    same = all(cell["same_samples"] for cell in raw.values())
    return "\n".join(
        [
            *rows,
            "",
            f"Samples of every step after the cut: {'the same in every cell' if same else 'NOT the same everywhere'}.",
        ]
    )


if __name__ == "__main__":
    main()

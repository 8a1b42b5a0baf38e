"""The paper's architectures on real photographs: ViT-L/14 (untrained) into ViT-B/32, two ranks, stop, resume, compare.

    python benchmarks/vitb32_photos.py --data DIR

DIR holds `clothing/clothing_128.tar` (photographs) and `text/sugar-crepe/*.json` (captions). It shows that the real sizes run
and resume, not that they learn: five steps, random teacher. Writes benchmarks/results/vitb32_photos_cpu2_202611.{md,json}.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from receipt import receipt, write  # noqa: E402

from toolkit.data.shards import write_shards  # noqa: E402

OUT = Path("runs/vitb32_photos")
SETTINGS = [
    "teacher.pretrained=random",
    "teacher.dtype=bf16",
    "precision=fp32",
    "data.global_batch_size=16",
    "data.batch_size_per_gpu=8",
    "deepspeed=ds_configs/zero1.json",
    "steps=5",
    "optim.warmup_steps=2",
    "workers=0",
    "logging.every_steps=1",
    f"data.images={OUT}/images",
    f"data.texts={OUT}/texts",
]


def photographs(archive: Path, count: int) -> Iterator[dict[str, Any]]:
    """JPEGs with a short side of 224 pixels."""
    with tarfile.open(archive) as tar:
        members = (member for member in tar if member.name.lower().endswith((".jpg", ".jpeg", ".png")))
        for number, member in zip(range(count), members, strict=False):
            content = tar.extractfile(member)
            assert content is not None
            image = Image.open(io.BytesIO(content.read())).convert("RGB")
            factor = 224 / min(image.size)
            image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=90)
            yield {"__key__": f"{number:06d}", "jpg": buffer.getvalue()}


def captions(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """Sentences that have nothing to do with the photographs."""
    entries = [entry for path in sorted(folder.glob("*.json")) for entry in json.loads(path.read_text()).values()]
    for number, entry in enumerate(entries[:count]):
        yield {"__key__": f"{number:06d}", "txt": entry["caption"]}


def launch(name: str, *more: str) -> dict[str, Any]:
    """One launch of two ranks; seconds and the losses so far."""
    started = time.monotonic()
    command = [str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", "2", "recipes/distill_vitb32.py"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [*command, *SETTINGS, f"out_dir={OUT}/{name}", *more], cwd=ROOT, env=env, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
    lines = [json.loads(line) for line in (ROOT / OUT / name / "metrics.jsonl").read_text().splitlines()]
    return {"seconds": round(time.monotonic() - started, 1), "losses": [line["train/loss"] for line in lines]}


def main() -> None:
    """Shards, three steps, two more, five straight."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    os.chdir(ROOT)
    shutil.rmtree(OUT, ignore_errors=True)
    write_shards(OUT / "images", photographs(data / "clothing/clothing_128.tar", 400), 100)
    write_shards(OUT / "texts", captions(data / "text/sugar-crepe", 400), 100)
    first = launch("stopped", "stop_at_step=3")
    resumed = launch("stopped")
    straight = launch("straight")
    params = json.loads((OUT / "stopped/run.json").read_text())["student"]["image_params"]
    same = resumed["losses"] == straight["losses"]
    facts = receipt("python benchmarks/vitb32_photos.py --data DIR") | {"settings": " ".join(SETTINGS)}
    table = "\n".join(
        [
            "| | seconds | losses of steps 1 to 5 |",
            "|---|---|---|",
            f"| three steps, checkpoint | {first['seconds']} | {first['losses']} |",
            f"| same command again: two more | {resumed['seconds']} | {resumed['losses']} |",
            f"| five steps straight | {straight['seconds']} | {straight['losses']} |",
        ]
    )
    notes = (
        f"Resumed equals straight, bit for bit in every logged loss: {same}. Three steps, checkpoint and two more took "
        f"{first['seconds'] + resumed['seconds']:.0f} s. Student parameters: {params:,}."
    )
    raw = {"first": first, "resumed": resumed, "straight": straight, "equal": same, "student_params": params}
    write(
        "vitb32_photos_cpu2_202611",
        "ViT-L/14 (untrained) into ViT-B/32 on photographs, two ranks x 8 images, ZeRO 1",
        table,
        facts,
        raw,
        notes,
    )
    print(f"{table}\n{notes}")


if __name__ == "__main__":
    main()

"""How fast TSV files of DIME-FM become shards: rows per second and core, one worker, every picture decoded once.

    python benchmarks/tsv.py [ROWS]            (100,000 rows: about two minutes on one core)

Makes synthetic rows (64 px JPEGs of smooth noise, all different; sentences of JSON captions; 768 float32 features), converts
pictures with their features, pictures alone, and sentences, and reads all of it back byte for byte. Writes
benchmarks/results/tsv_cpu2_202611.{md,json} when run at full size.
"""

import base64
import io
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from receipt import receipt, write

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from toolkit.data.convert.convert import convert_images  # noqa: E402
from toolkit.data.convert.convert_texts import convert_texts  # noqa: E402
from toolkit.data.convert.pictures import PictureOptions  # noqa: E402
from toolkit.data.convert.sentences import SentenceOptions  # noqa: E402

FULL = 100_000
SIDE, WIDTH = 64, 768
PER_FILE = 50_000
FEATURED = 2
"""The run with features takes one row in so many: a feature is 4 KiB. Its seconds include the import of torch."""


def main() -> None:
    """Make, convert, read back, print."""
    rows = int(sys.argv[1].replace("_", "")) if len(sys.argv) > 1 else FULL
    raw: dict[str, Any] = {"rows": rows}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures, texts = make_pictures(folder / "in", rows), make_texts(folder / "in", rows)
        some = make_features(folder / "features", rows // FEATURED)
        runs: dict[str, tuple[int, Callable[[], dict[str, Any]]]] = {
            "pictures, bytes kept": (rows, lambda: images([*pictures], folder / "kept", PictureOptions())),
            "pictures, short side 48": (
                rows,
                lambda: images([*pictures], folder / "small", PictureOptions(short_side=48)),
            ),
            "pictures and features": (
                rows // FEATURED,
                lambda: images([*some], folder / "featured", PictureOptions(), teacher="synthetic"),
            ),
            "sentences": (rows, lambda: convert_texts([str(p) for p in texts], folder / "texts", SentenceOptions())),
        }
        for title, (count, run) in runs.items():
            began, cpu = time.perf_counter(), time.process_time()
            report = run()
            seconds, busy = time.perf_counter() - began, time.process_time() - cpu
            raw[title] = {"rows": count, "seconds": seconds, "cpu_seconds": busy, "samples": report["samples"]}
            raw[title] |= {"rows_per_second": count / seconds, "rows_per_cpu_second": count / busy}
            assert report["samples"] == count and not report["left_out"]
        compare(pictures, folder / "kept", "jpg")
        compare(texts, folder / "texts", "txt")
        shutil.rmtree(folder / "kept")
    lines = ["| what | rows | seconds | rows/s | rows per CPU second |", "|---|---|---|---|---|"]
    for title in runs:
        one = raw[title]
        speeds = f"{one['rows_per_second']:,.0f} | {one['rows_per_cpu_second']:,.0f}"
        lines.append(f"| {title} | {one['rows']:,} | {one['seconds']:.1f} | {speeds} |")
    text = "\n".join(lines)
    print(text)
    print(f"{2 * rows:,} rows read back byte for byte")
    if rows >= FULL:
        notes = f"{2 * rows:,} rows (pictures with bytes kept, sentences) were read back from the shards byte for byte."
        title = "TSV files of DIME-FM into shards, one worker"
        write("tsv_cpu2_202611", title, text, receipt(f"python benchmarks/tsv.py {rows}"), raw, notes)


def images(paths: list[Path], out: Path, options: PictureOptions, teacher: str = "") -> dict[str, Any]:
    """One worker."""
    return convert_images([str(path) for path in paths], out, options, teacher=teacher)


def jpeg(number: int) -> bytes:
    """A different picture for every number; ten thousand patterns, the rest of the number in a corner."""
    pixels = np.random.default_rng(number % 10_000).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    image.putpixel((0, 0), (number // 10_000 * 20 % 256, 0, 0))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", comment=str(number).encode())
    return buffer.getvalue()


def make_pictures(folder: Path, rows: int) -> list[Path]:
    """Files of at most PER_FILE rows, without a .lineidx: making it is part of what is measured."""
    return write_rows(folder, "image", rows, lambda n: base64.b64encode(jpeg(n)).decode())


def make_texts(folder: Path, rows: int) -> list[Path]:
    """JSON captions."""
    return write_rows(
        folder, "text", rows, lambda n: json.dumps({"captions": [f"synthetic caption number {n} of a pool"]})
    )


def make_features(folder: Path, rows: int) -> list[Path]:
    """Pictures, and a random unit vector for each under the same key, in another order."""
    rng = np.random.default_rng(0)

    def vector(_: int) -> str:
        found = rng.standard_normal(WIDTH).astype("<f4")
        return base64.b64encode((found / np.linalg.norm(found)).tobytes()).decode()

    paths = make_pictures(folder, rows)
    return [*paths, *write_rows(folder, "image", rows, vector, ".feat.tsv", backwards=True)]


def write_rows(
    folder: Path, stem: str, rows: int, column: Callable[[int], str], suffix: str = ".tsv", backwards: bool = False
) -> list[Path]:
    """`<stem>_00<suffix>`, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for start in range(0, rows, PER_FILE):
        numbers = range(start, min(start + PER_FILE, rows))
        paths.append(folder / f"{stem}_{len(paths):02d}{suffix}")
        with open(paths[-1], "w") as file:
            file.writelines(f"key{n:09d}\t{column(n)}\n" for n in (reversed(numbers) if backwards else numbers))
    return paths


def compare(paths: list[Path], out: Path, extension: str) -> None:
    """Every row against its sample, read as a run reads it."""
    from toolkit.data.shards import expand_shards, scan_shard

    shards = (scan_shard(path) for path in expand_shards(str(out), asked_by="out"))
    samples = (shard.read(row, extension) for shard in shards for row in range(shard.count))
    for path in paths:
        with open(path, "rb") as file:
            for line in file:
                column = line.split(b"\t")[1].strip()
                wanted = base64.b64decode(column) if extension == "jpg" else json.loads(column)["captions"][0].encode()
                if next(samples) != wanted:
                    raise SystemExit(f"{path}: row {line[:20]!r} came back otherwise")
    assert next(samples, None) is None


if __name__ == "__main__":
    main()

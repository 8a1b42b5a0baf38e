"""Images per second of one core: our stream against webdataset's plain pipeline, open_clip's loader and DIME-FM's TSV loader.

    python benchmarks/data.py [--quick]            (about five minutes; --quick: seconds, nothing is written)

All in this process without workers, one thread, at 224 px with RandomResizedCrop 0.08-1 and flips, from synthetic photographs
(smooth noise of several scales and grain, JPEG quality 90) of short side 256 and 768. The loaders take turns in rounds; a
number is images per second of CPU time, the median over rounds. Ours gives bytes, which are normalised on the device; theirs
normalise. Open_clip's `get_wds_dataset` is called as its package has it, its captions are not tokenised, and flips are added
to its transform. Then the memory of our stream over 100,000 small pictures. Writes benchmarks/results/data_cpu2_202611.{md,json}.
"""

import argparse
import base64
import io
import json
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset as wds
from photographs import TSV_ROWS, TsvRow, photo
from PIL import Image
from receipt import receipt, write
from torchvision import transforms as T
from webdataset.tariterators import tar_file_expander

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from toolkit.config import Augmentation, Preprocess  # noqa: E402
from toolkit.data.boxes import Crop, draw_box, frame_size  # noqa: E402
from toolkit.data.images import HOW, EncodedPicture, cropped  # noqa: E402
from toolkit.data.jpeg import simplejpeg  # noqa: E402
from toolkit.data.shards import expand_shards, write_shards  # noqa: E402
from toolkit.data.streams import Field, ShardStream, batches  # noqa: E402
from toolkit.data.views import TrainingViews  # noqa: E402

BATCH, UNIQUE, SMALL = 64, 48, 100_000
PICTURES = {"256": (384, 256, 2_048, 512), "1024": (1024, 768, 1_152, 128)}
"""Width, height, samples on disk, images per round."""
ROUNDS = 9
NAMES = {
    "ours": "our stream",
    "ours_live": "our stream, with a live teacher's plain view too",
    "webdataset": "webdataset, PIL and torchvision",
    "open_clip": "open_clip's loader",
    "tsv": "DIME-FM's TSV loader, 100,000 rows",
    "bare": "bare decode and resize of bytes in memory, to tensors",
    "bare_pil": "the same, left as PIL pictures",
}
NORMALISE = [T.ToTensor(), T.Normalize(Preprocess().mean, Preprocess().std)]
Step = Callable[[], int]
"""Does some work and returns how many images it gave."""


def ours(shards: Path, live: bool = False) -> Step:
    """As a run reads pictures."""
    teachers = {"teacher": Preprocess()} if live else {}
    field = Field(["jpg", "png"], TrainingViews(Preprocess(), teachers, Augmentation(), "plain", 10**8))
    return batch_by_batch(iter(batches(stream_of(shards, field), BATCH, rank=0, world=1, first_step=0, workers=0)))


def stream_of(shards: Path, field: Field) -> ShardStream:
    """The default window of a run."""
    paths = expand_shards(str(shards), asked_by="shards")
    return ShardStream("shards", paths, [field], seed=0, window_shards=8, max_skip_fraction=0.0)


def batch_by_batch(iterator: Iterator[Any]) -> Step:
    """A step is a batch; the first, in which buffers fill and files open, is taken now."""
    next(iterator)

    def step() -> int:
        next(iterator)
        return BATCH

    return step


def webdataset(shards: Path) -> Step:
    """The pipeline of its README."""
    view = T.Compose([T.RandomResizedCrop(224), T.RandomHorizontalFlip(), *NORMALISE])
    urls = [str(path) for path in sorted(shards.glob("*.tar"))]
    found = wds.WebDataset(urls, shardshuffle=100).shuffle(1000).decode("pil").to_tuple("jpg").map_tuple(view)
    return batch_by_batch(iter(wds.WebLoader(found.batched(BATCH).repeat(), batch_size=None, num_workers=0)))


def open_clip(shards: Path) -> Step:
    """`get_wds_dataset` itself."""
    sys.modules.setdefault("pandas", types.ModuleType("pandas"))  # imported by that file for CSV lists only
    import open_clip_train.data as theirs
    from open_clip.transform import image_transform

    # webdataset 1.0 marks the end of a shard with an empty member, at which open_clip's grouping stops with a KeyError
    theirs.tar_file_expander = partial(tar_file_expander, eof_value=None)
    view = image_transform(224, is_train=True, aug_cfg={"scale": (0.08, 1.0)})
    view.transforms.insert(1, T.RandomHorizontalFlip())
    names = sorted(path.name for path in shards.glob("*.tar"))
    pattern = f"{shards}/{{{names[0][:-4]}..{names[-1][:-4]}}}.tar"
    args = types.SimpleNamespace(
        train_data=pattern, train_num_samples=10**9, dataset_resampled=False, train_data_upsampling_factors=None,
        seed=0, batch_size=BATCH, workers=0, world_size=1,
    )  # fmt: skip
    found = theirs.get_wds_dataset(args, view, is_train=True, tokenizer=lambda text: [0])
    return batch_by_batch(iter(found.dataloader))


def tsv(path: Path) -> Step:
    """Its transform: short side 256 (bicubic), crop (bilinear), flip, normalised."""
    shrink = T.Resize(256, T.InterpolationMode.BICUBIC)
    view = T.Compose([shrink, T.RandomResizedCrop(224), T.RandomHorizontalFlip(), *NORMALISE])
    draw = np.random.default_rng(0)

    def step() -> int:
        rows = [TsvRow(path).read(int(row)) for row in draw.integers(TSV_ROWS, size=8)]
        torch.stack([view(Image.open(io.BytesIO(base64.b64decode(row[1]))).convert("RGB")) for row in rows])
        return 8

    return step


def make_tsv(path: Path, blobs: list[bytes]) -> Path:
    """So many rows in the .lineidx, which point at a few lines again and again: the reader cannot tell."""
    offsets = []
    with open(path, "w") as file:
        for number, blob in enumerate(blobs):
            offsets.append(file.tell())
            file.write(f"key{number}\t{base64.b64encode(blob).decode()}\n")
    path.with_suffix(".lineidx").write_text("".join(f"{offsets[row % len(blobs)]}\n" for row in range(TSV_ROWS)))
    return path


def bare(blobs: list[bytes], to_tensor: bool) -> Step:
    """The ceiling: our decoding and resizing of boxes drawn before; no shards, order, draws or batches."""
    torch.manual_seed(0)
    usual, number = Augmentation(), 0
    shapes = [frame_size(Image.open(io.BytesIO(blob)).size, 224) for blob in blobs]
    boxes = [draw_box(*shape, usual.crop_scale, usual.crop_ratio) for shape in shapes]

    def step() -> int:
        nonlocal number
        for _ in range(BATCH):
            frame = EncodedPicture(blobs[number % len(blobs)], 10**8).frame(224)
            top, left, height, width = boxes[number % len(boxes)]
            if to_tensor:
                cropped(frame, Crop(top, left, height, width, flip=False), 224)
            else:
                box = np.ascontiguousarray(np.asarray(frame)[top : top + height, left : left + width])
                Image.fromarray(box).resize((224, 224), HOW["bilinear"])
            number += 1
        return BATCH

    return step


def measure(folder: Path, rounds: int, kind: str) -> dict[str, Any]:
    """Images per second of CPU and of wall time, for each loader and round."""
    width, height, samples, per_round = PICTURES[kind]
    blobs = [photo(number, width, height) for number in range(UNIQUE)]
    made = ({"__key__": f"{k:06d}", "jpg": blobs[k % UNIQUE], "txt": "a photograph"} for k in range(samples))
    shards = write_shards(folder / kind, made, samples_per_shard=128)
    apart = [
        bytes(bytearray(blobs[k % UNIQUE])) for k in range(samples)
    ]  # not in the core's cache, as in no run they are
    steps = {
        "ours": ours(shards), "ours_live": ours(shards, live=True), "webdataset": webdataset(shards),
        "open_clip": open_clip(shards), "tsv": tsv(make_tsv(folder / f"image_{kind}.tsv", blobs)), "bare": bare(apart, True),
        "bare_pil": bare(apart, False),
    }  # fmt: skip
    found: dict[str, Any] = {name: {"cpu": [], "wall": []} for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            began, cpu, images = time.perf_counter(), time.process_time(), 0
            while images < (8 if name == "tsv" else per_round):
                images += step()
            found[name]["cpu"].append(images / (time.process_time() - cpu))
            found[name]["wall"].append(images / (time.perf_counter() - began))
    return {"kib": round(sum(map(len, blobs)) / len(blobs) / 1024, 1), "rates": found}


def resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def memory(folder: Path, samples: int) -> list[float]:
    """MiB of this process after each tenth of a pass over so many 40 px PNGs."""
    blobs = []
    for number in range(200):
        pixels = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((40, 40), Image.Resampling.BICUBIC).save(buffer, "PNG")
        blobs.append(buffer.getvalue())
    made = ({"__key__": f"{k:06d}", "png": blobs[k % 200]} for k in range(samples))
    field = Field(["png"], TrainingViews(Preprocess(image_size=32), {}, Augmentation(), "plain", 10**6))
    stream = stream_of(write_shards(folder / "small", made), field)
    iterator = batches(stream, 100, rank=0, world=1, first_step=0, workers=0)
    return [(drop(iterator, samples // 1000), resident())[1] for _ in range(10)]


def drop(iterator: Iterator[Any], count: int) -> None:
    """Take so many batches and forget them."""
    for _ in range(count):
        next(iterator)


def ratio(rates: dict[str, Any], ours: str, theirs: str) -> float:
    """Median over rounds of quotients within a round: what slows the machine down slows both."""
    return statistics.median(a / b for a, b in zip(rates[ours]["cpu"], rates[theirs]["cpu"], strict=True))


def table(raw: dict[str, Any]) -> str:
    """One column per size of picture."""
    head = [f"{PICTURES[kind][0]} x {PICTURES[kind][1]}, {raw[kind]['kib']:.0f} KiB" for kind in PICTURES]
    lines = [
        f"| images per second of one core | {' | '.join(f'{one} | ours is' for one in head)} |",
        "|---|" + "---|" * 4,
    ]
    for name, title in NAMES.items():
        cells = []
        for kind in PICTURES:
            rates = raw[kind]["rates"]
            low, middle, high = np.percentile(rates[name]["cpu"], (25, 50, 75))
            cells += [f"{middle:,.0f} ({low:,.0f}-{high:,.0f})", f"{ratio(rates, 'ours', name):.2f} x"]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Make, measure, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        raw: dict[str, Any] = {"mib": memory(Path(name), 2_000 if quick else SMALL)}  # before the others leave room
        raw |= {kind: measure(Path(name), 1 if quick else ROUNDS, kind) for kind in PICTURES}
    raw["decoder"] = "simplejpeg" if simplejpeg else "torchvision"
    text = table(raw)
    growth = max(raw["mib"][1:]) - raw["mib"][1]
    said = (
        f"Median over {ROUNDS} rounds in turn (quartiles), CPU time; JPEGs decoded by {raw['decoder']}. "
        f"Memory over {SMALL:,} small pictures: {raw['mib'][1]:,.0f} MiB after a fifth, {raw['mib'][-1]:,.0f} at the end, "
        f"never more than {growth:.1f} above."
    )
    print(f"{text}\n{said}\n{json.dumps(raw['mib'])}")
    if not quick:
        write(
            "data_cpu2_202611",
            "Pictures from shards to batches, one core",
            text,
            receipt("python benchmarks/data.py"),
            raw,
            said,
        )


if __name__ == "__main__":
    main()

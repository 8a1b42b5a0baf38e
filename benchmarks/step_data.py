"""What the step benchmark reads: shards of photo-like JPEGs with sentences, stores of their embeddings, and DIME-FM's TSV files.

    python benchmarks/step_data.py FOLDER SAMPLES WIDTH

The stores are filled by a small untrained model of the teacher's width: what stands in the rows does not change a step's
work. All of it is made once per run of benchmarks/step.py.
"""

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from photographs import TSV_ROWS, photo  # noqa: E402

from toolkit.config import Teacher  # noqa: E402
from toolkit.data.shards import write_shards  # noqa: E402
from toolkit.embed.command import Request, embed  # noqa: E402

UNIQUE, SHARDS = 48, 16
"""Different pictures (as many are enough: every sample is decoded anew), and shards, of which open_clip needs one per worker."""
WORDS = [
    "a", "the", "one", "two", "small", "large", "red", "blue", "old", "new", "wooden", "bright", "wet", "quiet",
    "street", "dog", "horse", "boat", "table", "lamp", "river", "child", "bridge", "train", "flower", "on", "under",
    "beside", "near", "with",
]  # fmt: skip


class SmallTeacher(nn.Module):
    """Untrained; colours of a 4 x 4 grid and a bag of words, projected."""

    image_size = 224
    tokenizer = "ViT-L-14"
    context_length = 77

    def __init__(self, width: int) -> None:
        """`width` is that of the real teacher."""
        super().__init__()
        self.image = nn.Linear(48, width)
        self.text = nn.Embedding(49_408, width)
        self.logit_scale = nn.Parameter(torch.full((1,), 4.6052))

    def encode_image(self, images: Tensor) -> Tensor:
        """[b, 3, h, w] -> [b, width]."""
        return self.image(F.adaptive_avg_pool2d(images, 4).flatten(1))  # type: ignore[no-any-return]

    def encode_text(self, tokens: Tensor) -> Tensor:
        """[m, l] -> [m, width]."""
        return self.text(tokens).mean(1)  # type: ignore[no-any-return]


def small_teacher(width: int) -> nn.Module:
    """As `teacher.name` asks for it."""
    torch.manual_seed(0)
    return SmallTeacher(width)


def sentence(number: int) -> str:
    """About as long as a caption."""
    draw = np.random.default_rng(number)
    return " ".join(str(word) for word in draw.choice(WORDS, int(draw.integers(8, 16))))


def samples(blobs: list[bytes], count: int) -> Iterator[dict[str, Any]]:
    """Pictures, each with a sentence."""
    for k in range(count):
        yield {"__key__": f"{k:06d}", "jpg": blobs[k % len(blobs)], "txt": sentence(k)}


def write_tsv(path: Path, rows: list[str]) -> None:
    """Rows in DIME-FM's format with so many in the .lineidx, which point at a few again and again: the reader cannot tell."""
    offsets = []
    with open(path, "w") as file:
        for number, row in enumerate(rows):
            offsets.append(file.tell())
            file.write(f"key{number}\t{row}\n")
    path.with_suffix(".lineidx").write_text("".join(f"{offsets[row % len(rows)]}\n" for row in range(TSV_ROWS)))


def make(folder: Path, count: int, width: int) -> None:
    """`shards`, `store`, `image_00.tsv` and `text_00.tsv` in the folder."""
    blobs = [photo(number, 384, 256) for number in range(UNIQUE)]
    write_shards(folder / "shards", samples(blobs, count), -(-count // SHARDS))
    teacher = Teacher(name="benchmarks.step_data:small_teacher", pretrained="random", kwargs={"width": width})
    for kind, key in (("image", "jpg"), ("text", "txt")):
        request = Request(
            kind, str(folder / "shards"), folder / "store", {"": teacher}, "fp32", keys=key, workers=0, batch_size=64
        )
        embed(request, as_json=False)
    write_tsv(folder / "image_00.tsv", [base64.b64encode(blob).decode() for blob in blobs])
    write_tsv(folder / "text_00.tsv", [json.dumps({"captions": [sentence(number)]}) for number in range(UNIQUE)])


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

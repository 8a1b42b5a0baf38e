"""Pictures that cost what photographs cost, and DIME-FM's way to a row of a TSV file; for the data and the step benchmark."""

import gc
import io
from pathlib import Path

import numpy as np
from PIL import Image

TSV_ROWS = 100_000


def photo(number: int, width: int, height: int) -> bytes:
    """A JPEG that costs what a photograph costs."""
    draw = np.random.default_rng(number)
    pixels = np.full((height, width, 3), 120, dtype=np.float32) + 5 * draw.standard_normal((height, width, 1))
    for cells, strength in ((4, 60), (16, 40), (64, 22), (128, 10)):
        coarse = draw.standard_normal((max(2, cells * height // width), cells, 3)).astype(np.float32)
        for channel in range(3):
            plane = Image.fromarray(coarse[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            pixels[..., channel] += strength * np.asarray(plane)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


class TsvRow:
    """What the released loader does for each sample: open, parse the whole .lineidx, read, close, collect garbage."""

    def __init__(self, path: Path) -> None:
        """Of a .tsv with its .lineidx beside it."""
        self.file = open(path)  # noqa: SIM115
        with open(path.with_suffix(".lineidx")) as file:
            self.offsets = [int(line.strip()) for line in file.readlines()]

    def read(self, row: int) -> list[str]:
        """Columns."""
        self.file.seek(self.offsets[row])
        return [column.strip() for column in self.file.readline().split("\t")]

    def __del__(self) -> None:
        """As there."""
        self.file.close()
        gc.collect()

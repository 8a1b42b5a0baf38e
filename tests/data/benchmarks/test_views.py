"""Pictures of a set as a model sees them, against PIL's own resizing."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from toolkit.config import Preprocess
from toolkit.data.benchmarks import Split
from toolkit.data.benchmarks.split import Arrays
from toolkit.data.benchmarks.views import SplitViews, view_of
from toolkit.data.decode import BadSample
from toolkit.errors import DataError

PREPROCESS = Preprocess(image_size=8)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB picture."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **more: object) -> bytes:
    """Its bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def planes(image: Image.Image) -> torch.Tensor:
    """[3, h, w]"""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def split_of(count: int = 3) -> Split:
    """Noise of 20 x 12."""
    pixels = np.random.default_rng(1).integers(0, 256, (count, 12, 20, 3), dtype=np.uint8)
    return Split("made-up", "train", "folders", Path("here"), ["a", "b"], np.arange(count) % 2, Arrays(pixels))


def test_the_shorter_side_and_a_crop_or_both_sides() -> None:
    """24 x 12 becomes 16 x 8 and loses 4 columns at each side; squashed it is 8 x 8 at once."""
    image = noise(24, 12)
    shortest = image.resize((16, 8), Image.Resampling.BICUBIC).crop((4, 0, 12, 8))
    squashed = image.resize((8, 8), Image.Resampling.BICUBIC)
    assert torch.equal(view_of(encoded(image), PREPROCESS, False), planes(shortest))
    assert torch.equal(view_of(encoded(image), PREPROCESS, True), planes(squashed))
    assert not torch.equal(planes(shortest), planes(squashed))


def test_of_its_own_size_nothing_is_touched() -> None:
    """Pixel by pixel, one of 16 bits and a grey one included."""
    image = noise(8, 8)
    assert torch.equal(view_of(encoded(image), PREPROCESS, False), planes(image))
    grey = image.convert("L")
    assert torch.equal(view_of(encoded(grey), PREPROCESS, False), planes(grey.convert("RGB")))


def test_upright_as_exif_says() -> None:
    """Orientation 6: the camera was turned, rows are columns from the right."""
    image = noise(8, 8)
    exif = Image.Exif()
    exif[0x0112] = 6
    found = view_of(encoded(image, exif=exif), PREPROCESS, False)
    assert torch.equal(found, torch.rot90(planes(image), -1, (1, 2))) and not torch.equal(found, planes(image))


def test_a_split_in_its_order_also_as_a_copy() -> None:
    """What a worker process gets."""
    views = SplitViews(split_of(), PREPROCESS, False)
    copied = pickle.loads(pickle.dumps(views))  # noqa: S301
    assert len(views) == len(copied) == 3
    for row in range(3):
        found = copied[row]
        assert found["index"] == row and found["images"].shape == (3, 8, 8)
        assert torch.equal(found["images"], view_of(views.split.pictures[row], PREPROCESS, False))


def test_a_picture_that_is_none_is_named() -> None:
    """By its key in the set."""

    class Torn(Arrays):
        def __getitem__(self, row: int) -> bytes:
            return super().__getitem__(row)[: 60 if row == 1 else None]

    split = split_of()
    torn = Split(**{**vars(split), "pictures": Torn(split.pictures.pixels)})
    views = SplitViews(torn, PREPROCESS, False)
    assert views[0]["index"] == 0
    with pytest.raises(DataError, match="made-up train: 1 in here cannot be judged: undecodable"):
        views[1]
    with pytest.raises(BadSample):
        view_of(b"no picture", PREPROCESS, False)

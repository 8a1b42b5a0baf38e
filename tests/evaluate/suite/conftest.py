"""Small sets in folders, and runs small enough to be judged in every test."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from export.conftest import clip, image_run, own_text_run, small_scene_run  # noqa: F401  fixtures
from PIL import Image

COLOURS = ("blue", "green", "red")
MakeSet = Callable[..., Path]


def write_pictures(folder: Path, each: int, seed: int) -> None:
    """`each` noisy pictures of every colour; the two sides differ, so that a crop would be seen."""
    rng = np.random.default_rng(seed)
    for number, colour in enumerate(COLOURS):
        (folder / colour).mkdir(parents=True)
        for row in range(each):
            pixels = rng.integers(0, 150, (40, 48, 3), dtype=np.uint8)
            pixels[:, :, 2 - number] += 100
            Image.fromarray(pixels).save(folder / colour / f"{row}.png")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """`colours` with train and test, `few` with test alone."""
    write_pictures(tmp_path / "data/colours/train", 8, 0)
    write_pictures(tmp_path / "data/colours/test", 5, 1)
    write_pictures(tmp_path / "data/few/test", 2, 2)
    card = {"classnames": {"red": "red colour"}, "templates": ["a {} picture", "all {}", "{}"]}
    (tmp_path / "data/colours/classes.json").write_text(json.dumps(card))
    return tmp_path / "data"

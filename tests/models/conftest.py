"""A tiny architecture that open_clip knows by name, and the user's own module in a file."""

import json
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import open_clip
import pytest

TINY = {
    "embed_dim": 12,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
NUMBER = count()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a CLIP of width 12 at 32 pixels."""
    folder = tmp_path_factory.mktemp("open_clip_configs")
    (folder / "tiny-clip-for-tests.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    return "tiny-clip-for-tests"


@pytest.fixture
def tiny_kwargs() -> dict[str, Any]:
    """What makes a known architecture small."""
    return {"vision_cfg": TINY["vision_cfg"], "text_cfg": TINY["text_cfg"]}


NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width, side=8):
        super().__init__()
        self.image_size = side
        self.flat = nn.Linear(3, width)
        self.words = nn.Embedding(50, width)

    def encode_image(self, images):
        return self.flat(images.mean(dim=(2, 3)))

    def encode_text(self, tokens):
        return self.words(tokens).mean(dim=1)


def net(width=6):
    return Net(width)
"""


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """`own_file(code, net=True)` writes a module into the working directory and returns its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    made: list[str] = []

    def write(code: str = "", net: bool = True) -> str:
        made.append(f"users_own_model_{next(NUMBER)}")
        (tmp_path / f"{made[-1]}.py").write_text((NET if net else "") + code)
        return made[-1]

    yield write
    for name in made:
        sys.modules.pop(name, None)

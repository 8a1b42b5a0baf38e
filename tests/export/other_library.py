"""The scripts of people without this toolkit, called in this process: starting Python for each would take seconds."""

import ast
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from toolkit.models import Model, build_tokenizer

SCRIPTS = Path(__file__).parent / "scripts"


def classify_with(library: str) -> Callable[..., list[float]]:
    """`classify(folder, picture, prompts)` of `scripts/with_<library>.py`, which imports nothing of ours."""
    path = SCRIPTS / f"with_{library}.py"
    tree = ast.walk(ast.parse(path.read_text()))
    imported = {alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(n.module) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)}
    assert imported and not any(name.split(".")[0] in ("toolkit", "recipes", "tests") for name in imported)
    classify: Callable[..., list[float]] = runpy.run_path(str(path))["classify"]
    return classify


def noise(path: Path, width: int, height: int) -> Path:
    """A picture of noise."""
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def by_hand(image: Model, text: Model, picture: Path, prompts: list[str], scale: float) -> list[float]:
    """Probabilities from the two modules, with preparation written out."""
    side = image.preprocess.image_size
    with Image.open(picture) as opened:
        small = opened.convert("RGB")
    if small.size != (side, side):
        short = min(small.size)
        small = small.resize((small.width * side // short, small.height * side // short), Image.Resampling.BICUBIC)
        left, top = (small.width - side) // 2, (small.height - side) // 2
        small = small.crop((left, top, left + side, top + side))
    pixels = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)[None].double() / 255
    mean, std = (
        torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (image.preprocess.mean, image.preprocess.std)
    )
    assert text.tokenizer is not None
    tokens = build_tokenizer(text.tokenizer, text.context_length)(prompts)
    modules: list[Any] = [image.module.eval(), text.module.eval()]
    with torch.no_grad():
        z = modules[0].encode_image(((pixels - mean) / std).float()).double()
        t = modules[1].encode_text(tokens).double()
    cosines = (z / z.norm(dim=-1, keepdim=True)) @ (t / t.norm(dim=-1, keepdim=True)).T
    return torch.softmax(scale * cosines[0], dim=0).tolist()

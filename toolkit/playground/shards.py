"""The world written down as WebDataset shards, the same bytes for the same arguments."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.data.index import aside_of
from toolkit.data.shards import write_shards
from toolkit.errors import DataError
from toolkit.playground.scenes import CLASSNAMES, COMBOS, SEEN, Scene, render, sample_scene
from toolkit.playground.sentences import CLASS_TEMPLATES, sentence

_STREAMS = {"train_images": 0, "train_texts": 1, "train_pairs": 2, "test_classes": 3, "test_pairs": 4}
"""One random stream per folder, so that no sentence of one pool tells of a scene drawn in another."""
_COMPLETE = "world.json"
_FORMAT = 1
"""Raise it whenever the same arguments begin to give other bytes: worlds written before are then refused."""


def write_world(
    folder: Path,
    *,
    seed: int = 0,
    images: int = 20_000,
    texts: int = 20_000,
    pairs: int = 0,
    test_images_per_class: int = 20,
    test_pairs: int = 500,
) -> Path:
    """Writes the two unpaired training pools, `train_pairs/` if `pairs` is not 0, two test sets and `classes.json`.

    `train_images/` and `train_texts/` tell of different scenes. `test_classes/` holds every class equally often,
    unseen ones too; in `test_pairs/` no two captions agree. Returns at once where a complete world of the same
    arguments lies already; raises DataError where `folder` holds anything else.
    """
    folder = Path(folder)
    arguments = {"format": _FORMAT, "seed": seed, "images": images, "texts": texts, "pairs": pairs}
    arguments |= {"test_images_per_class": test_images_per_class, "test_pairs": test_pairs}
    if _is_complete(folder, arguments):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_of(folder)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        write_shards(aside / "train_images", _images(seed, images))
        write_shards(aside / "train_texts", _texts(seed, texts))
        if pairs:
            write_shards(aside / "train_pairs", _pairs(seed, pairs))
        write_shards(aside / "test_classes", _classes(seed, test_images_per_class))
        write_shards(aside / "test_pairs", _distinct_pairs(seed, test_pairs))
        _write_json(aside / "classes.json", class_list())
        _write_json(aside / _COMPLETE, arguments)
        aside.rename(folder)
    except OSError:
        if not _is_complete(folder, arguments):  # another process may have finished the same world first
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def class_list() -> dict[str, object]:
    """Class names, prompts, and which class numbers occur in training (`seen`) and which never do (`unseen`)."""
    seen = [index for index, combo in enumerate(COMBOS) if combo in SEEN]
    unseen = [index for index, combo in enumerate(COMBOS) if combo not in SEEN]
    groups = {"seen": seen, "unseen": unseen}
    return {"classnames": list(CLASSNAMES), "templates": list(CLASS_TEMPLATES), "groups": groups}


def _is_complete(folder: Path, arguments: dict[str, int]) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    marker = folder / _COMPLETE
    if marker.is_file() and (found := json.loads(marker.read_text())) == arguments:
        return True
    what = f"a world of {found}" if marker.is_file() else "something that is not a playground world"
    raise DataError(f"asked to write a playground world of {arguments} to {folder}, which holds {what}; choose another")


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _rng(seed: int, pool: str, index: int) -> np.random.Generator:
    """A generator of its own for each sample, so that a longer pool begins like a shorter one."""
    return np.random.default_rng([seed, _STREAMS[pool], index])


def _png(scene: Scene, rng: np.random.Generator) -> bytes:
    data = io.BytesIO()
    Image.fromarray(render(scene, rng)).save(data, format="png", compress_level=1)
    return data.getvalue()


def _images(seed: int, count: int) -> Iterator[dict]:
    for index in range(count):
        rng = _rng(seed, "train_images", index)
        yield {"__key__": f"{index:06d}", "png": _png(sample_scene(rng), rng)}


def _texts(seed: int, count: int) -> Iterator[dict]:
    for index in range(count):
        rng = _rng(seed, "train_texts", index)
        yield {"__key__": f"{index:06d}", "txt": sentence(sample_scene(rng), rng)}


def _pairs(seed: int, count: int) -> Iterator[dict]:
    for index in range(count):
        rng = _rng(seed, "train_pairs", index)
        scene = sample_scene(rng)
        yield {"__key__": f"{index:06d}", "png": _png(scene, rng), "txt": sentence(scene, rng)}


def _classes(seed: int, images_per_class: int) -> Iterator[dict]:
    for index in range(images_per_class * len(COMBOS)):
        rng = _rng(seed, "test_classes", index)
        label = index % len(COMBOS)
        scene = sample_scene(rng, combos=(COMBOS[label],), objects=1)
        yield {"__key__": f"{index:06d}", "png": _png(scene, rng), "cls": label}


def _distinct_pairs(seed: int, count: int) -> Iterator[dict]:
    told: set[str] = set()
    attempt = 0
    while len(told) < count:
        rng = _rng(seed, "test_pairs", attempt)
        attempt += 1
        scene = sample_scene(rng, objects=2)
        caption = sentence(scene, rng, full=True)
        if caption not in told:
            yield {"__key__": f"{len(told):06d}", "png": _png(scene, rng), "txt": caption}
            told.add(caption)

"""Captions and indexes with bytes changed at random: read, or refused in one sentence; nothing else."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from caption_copies import case, write_coco, write_sugar
from set_copies import png

from toolkit.data.pairs import open_compositions, open_pairs
from toolkit.errors import DataError

ROUNDS = 100


def coco(data: Path) -> tuple[Path, Callable[[], object]]:
    """Karpathy's index."""
    return write_coco(data), lambda: open_pairs("coco", data)


def sugar(data: Path) -> tuple[Path, Callable[[], object]]:
    """One of SugarCrepe's files."""
    return write_sugar(data) / "add_obj.json", lambda: open_compositions("sugar-crepe", data)


def aro(data: Path) -> tuple[Path, Callable[[], object]]:
    """Relations."""
    (data / "aro/images").mkdir(parents=True)
    (data / "aro/images/1.jpg").write_bytes(png(1))
    path = data / "aro/visual_genome_relation.json"
    path.write_text(json.dumps([case("1.jpg", (0, 0, k, 2), relation_name="on") for k in range(1, 4)]))
    return path, lambda: list(map(open_compositions("aro-relation", data).picture, range(3)))


def table(data: Path) -> tuple[Path, Callable[[], object]]:
    """Captions of one's own."""
    (data / "mine").mkdir(parents=True)
    (data / "mine/a.png").write_bytes(png(1))
    (data / "mine/captions.tsv").write_text("a.png\tone\na.png\ttwo\n")
    return data / "mine/captions.tsv", lambda: open_pairs("mine", data)


def lines(data: Path) -> tuple[Path, Callable[[], object]]:
    """The same as JSON lines."""
    table(data)[0].unlink()
    path = data / "mine/captions.jsonl"
    path.write_text('{"file": "a.png", "captions": ["one", "two"]}\n' * 2)
    return path, lambda: open_pairs("mine", data)


@pytest.mark.parametrize("kind", [coco, sugar, aro, table, lines])
def test_changed_bytes(kind: Callable[[Path], tuple[Path, Callable[[], object]]], tmp_path: Path) -> None:
    """Bytes replaced, taken out, put in, the end cut off; the values of keys swapped for others of JSON."""
    path, read = kind(tmp_path)
    whole = path.read_bytes()
    read()
    rng = random.Random(kind.__name__)
    refused: list[str] = []
    for _ in range(ROUNDS):
        at, until = sorted(rng.sample(range(len(whole) + 1), 2))
        torn = rng.choice(
            [
                whole[:at],
                whole[:at] + bytes([rng.randrange(256)]) + whole[at + 1 :],
                whole[:at] + whole[at + 1 :],
                whole[:at] + rng.choice([b'"', b"{", b"-", b"9" * 400, b"1e999", b"\0", b"../", b"null,"]) + whole[at:],
                whole[:at] + whole[min(until, at + 20) :],
            ]
        )
        path.write_bytes(torn)
        try:
            read()
        except DataError as error:
            refused.append(str(error))
    assert 0 < len(refused) < ROUNDS
    assert all("\n" not in said and len(said) < 2000 for said in refused)

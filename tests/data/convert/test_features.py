"""Stored float32 features of a TSV set into a store that a run reads, matched by key."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.data.decode import BadSample
from toolkit.data.shards import scan_shard
from toolkit.data.store import EmbeddingStore
from toolkit.errors import ConfigError, DataError

Dime = Callable[..., Any]
TEACHER = ["--teacher-name", "ViT-L-14-quickgelu/openai"]


def unit(number: int, width: int = 8) -> bytes:
    """A vector of length 1."""
    vector = np.random.default_rng(number).normal(size=width)
    return (vector / np.linalg.norm(vector)).astype("<f4").tobytes()


def stored(folder: Path, shards: Any, kind: str) -> dict[str, torch.Tensor | None]:
    """By original name, read as a run does."""
    store = EmbeddingStore(folder / kind, {"teacher": "ViT-L-14-quickgelu/openai", "width": 8})
    store.check_identity()
    found: dict[str, torch.Tensor | None] = {}
    names = iter(name for name, _, _ in shards.samples())
    for entry in shards.index:
        shard = scan_shard(shards.folder / entry["name"])
        for row in range(shard.count):
            try:
                found[next(names)] = store.read(shard.path, shard.keys, row).features
            except BadSample:
                found[next(names)] = None
    return found


def test_features_follow_their_keys(dime: Dime, make: Any, tmp_path: Path) -> None:
    """In another order, with rows the pictures lack and the other way round; duplicates take nothing along."""
    make.tsv(tmp_path / "in" / "tsv" / "image_00.tsv", [(f"k{n}", make.photo(n % 6)) for n in range(8)])
    make.tsv(tmp_path / "in" / "feat" / "image_00.feat.tsv", [(f"k{n}", unit(n)) for n in (7, 5, 3, 2, 1, 0, 99)])
    made = dime("images", tmp_path / "in", "--samples-per-shard", 4, *TEACHER)
    found = stored(tmp_path / "out" / "teacher_store", made, "image")
    assert list(found) == [f"k{n}" for n in range(6)]
    for n in range(6):
        vector = found[f"k{n}"]
        assert (vector is None) == (n == 4) and (vector is None or vector.numpy().tobytes() == unit(n))
    assert made.report["features"]["stored"] == 5 and made.report["features"]["missing"] == {
        "no_feature_of_this_key": 1
    }


def test_repeated_keys_are_told_apart_by_row_or_left_out(dime: Dime, make: Any, tmp_path: Path) -> None:
    """A key that stands twice is only believed in the same row."""
    make.tsv(tmp_path / "in" / "image_00.tsv", [("same", make.photo(0)), ("same", make.photo(1)), ("x", make.photo(2))])
    path = tmp_path / "in" / "image_00.feat.tsv"
    make.tsv(path, [("same", unit(0)), ("same", unit(1)), ("x", unit(2))])
    made = dime("images", tmp_path / "in", *TEACHER)
    assert made.report["features"]["missing"] == {}
    path.with_suffix(".lineidx").unlink()
    make.tsv(path, [("x", unit(2)), ("y", unit(3)), ("same", unit(0)), ("same", unit(1))])
    made = dime("images", tmp_path / "in", *TEACHER, out="b")
    assert made.report["features"]["missing"] == {"several_of_this_key": 2} and made.report["features"]["stored"] == 1


def test_texts_with_features_give_one_sentence_per_row(dime: Dime, make: Any, tmp_path: Path) -> None:
    """The store may be shared with that of the pictures."""
    rows = [("a", '{"captions": ["first caption of a", "second caption of a"]}'), ("b", "the caption of b")]
    make.tsv(tmp_path / "in" / "text_00.tsv", rows)
    make.tsv(tmp_path / "in" / "text_00.feat.tsv", [("a", unit(1)), ("b", unit(2))])
    made = dime("texts", tmp_path / "in", "--store", tmp_path / "store", *TEACHER)
    found = stored(tmp_path / "store", made, "text")
    assert {name: v.numpy().tobytes() for name, v in found.items() if v is not None} == {"a": unit(1), "b": unit(2)}
    assert made.report["left_out"] == {"other_caption": 1}


def test_broken_features_are_counted(dime: Dime, make: Any, tmp_path: Path) -> None:
    """NaN, zero, short and undecodable ones are marked as missing; long ones are brought to length 1."""
    bad = {"nan": np.full(8, np.nan, "<f4").tobytes(), "zero": np.zeros(8, "<f4").tobytes(), "short": unit(0, 4)}
    long = (np.frombuffer(unit(5), "<f4") * 3).tobytes()
    names = ["good", *bad, "junk", "long"]
    make.tsv(tmp_path / "in" / "image_00.tsv", [(name, make.photo(n)) for n, name in enumerate(names)])
    rows: list[tuple[str, bytes | str]] = [("good", unit(9)), *bad.items(), ("junk", "!A"), ("long", long)]
    make.tsv(tmp_path / "in" / "image_00.feat.tsv", rows)
    made = dime("images", tmp_path / "in", *TEACHER)
    missing = {"bad_base64": 1, "not_finite": 1, "wrong_width": 1, "zero": 1}
    assert made.report["features"]["missing"] == missing and made.report["features"]["stored"] == 2
    found = stored(tmp_path / "out" / "teacher_store", made, "image")
    assert found["nan"] is None and found["long"] is not None and abs(float(found["long"].norm()) - 1) < 1e-6


def test_a_store_of_another_teacher_is_refused(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Whoever filled it first; and nobody's features are never imported."""
    make.tsv(tmp_path / "in" / "image_00.tsv", [("a", make.photo(0))])
    make.tsv(tmp_path / "in" / "image_00.feat.tsv", [("a", unit(0))])
    with pytest.raises(ConfigError, match="nothing in them says whose they are; give --teacher-name"):
        dime("images", tmp_path / "in")
    dime("images", tmp_path / "in", "--store", tmp_path / "store", *TEACHER)
    with pytest.raises(DataError, match=r"holds embeddings of another teacher or view \(teacher: ViT-L-14"):
        dime("images", tmp_path / "in", "--store", tmp_path / "store", "--teacher-name", "other", out="b")
    make.tsv(tmp_path / "only" / "image_00.tsv", [("a", make.photo(0))])
    with pytest.raises(ConfigError, match=r"no file of stored features \(\*\.feat\.tsv\) among the SRC"):
        dime("images", tmp_path / "only", *TEACHER, out="c")

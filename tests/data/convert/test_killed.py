"""`dime shards` killed ten times at random moments and started again: the bytes of one run, and no worker left behind."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from killing import Started, differing, entries, killed_often, moments, needs_proc, straight
from pyarrow import parquet

REPO = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.slow, needs_proc]


def killed_and_whole(tmp_path: Path, *words: str, alone: bool) -> None:
    """The verb on two workers, once in one go and once with ten kills."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "toolkit.cli", "shards", *words, "--workers", "2", "--out", str(out)]

    def start() -> Started:
        return Started(command, REPO, tmp_path / "log")

    whole, took = straight(start, out)
    for found in killed_often(start, out, moments(took, entries, 15), 10, alone=alone):
        assert differing(found, whole) == []


def test_pictures(make: Any, tmp_path: Path) -> None:
    """From TSV files with stored features, some pictures broken and some repeated; the first process alone is killed."""
    vectors = np.random.default_rng(0).normal(size=(600, 8)).astype("<f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for number in range(6):
        names = range(100 * number, 100 * (number + 1))
        pictures = [(f"k{n}", b"junk %d" % n if n % 7 == 3 else make.photo(n % 500, 320, 240)) for n in names]
        make.tsv(tmp_path / "in" / f"image_{number:02d}.tsv", pictures)
        make.tsv(tmp_path / "in" / f"image_{number:02d}.feat.tsv", [(f"k{n}", vectors[n].tobytes()) for n in names])
    words = ["--samples-per-shard", "10", "--short-side", "64", "--teacher-name", "t"]
    killed_and_whole(tmp_path, "images", str(tmp_path / "in"), *words, alone=True)


def test_tables(make: Any, tmp_path: Path) -> None:
    """Pictures of parquet tables with their captions; the first process alone is killed."""
    (tmp_path / "in").mkdir()
    for number in range(4):
        names = range(150 * number, 150 * (number + 1))
        columns: dict[str, Any] = {"key": [f"k{n}" for n in names], "caption": [f"word {n}" for n in names]}
        columns["jpg"] = [None if n % 7 == 3 else make.photo(n % 500, 320, 240) for n in names]
        parquet.write_table(pyarrow.table(columns), tmp_path / "in" / f"{number:05d}.parquet", row_group_size=40)
    words = ["--samples-per-shard", "10", "--short-side", "64", "--keep", "txt,json"]
    killed_and_whole(tmp_path, "images", str(tmp_path / "in"), *words, alone=True)


def test_sentences(tmp_path: Path) -> None:
    """With repeats across files; all processes are killed at once."""
    rng = np.random.default_rng(0)
    for number in range(12):
        drawn = rng.integers(0, 20_000, 3_000)
        (tmp_path / f"{number}.txt").write_text("".join(f"a sentence about {n} things\n" for n in drawn.tolist()))
    sources = [str(tmp_path / f"{number}.txt") for number in range(12)]
    killed_and_whole(tmp_path, "texts", *sources, "--samples-per-shard", "200", alone=False)

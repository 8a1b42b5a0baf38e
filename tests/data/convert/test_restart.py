"""Killed anywhere and run again, or run by any number of workers: the same bytes."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from toolkit.data.convert import finish, plan, workspace
from toolkit.data.convert.workspace import Workspace
from toolkit.errors import DataError

Dime = Callable[..., Any]


class Killed(BaseException):
    """No `except Exception` may catch it, as none catches a signal."""


@pytest.fixture
def source(make: Any, tmp_path: Path) -> Path:
    """Good, bad and repeated pictures, and features for most."""
    rows = [(f"k{n}", b"junk %d" % n if n % 7 == 3 else make.photo(n % 29)) for n in range(40)]
    make.tsv(tmp_path / "in" / "image_00.tsv", rows[:25])
    make.tsv(tmp_path / "in" / "image_01.tsv", rows[25:])
    vectors = np.random.default_rng(0).normal(size=(40, 4)).astype("<f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    make.tsv(tmp_path / "in" / "image_00.feat.tsv", [(f"k{n}", vectors[n].tobytes()) for n in range(25)])
    return tmp_path / "in"


def words(source: Path) -> list[object]:
    """The command of these tests."""
    return [source, "--samples-per-shard", 3, "--short-side", 20, "--teacher-name", "t"]


def portable(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without what names the output folder: the store's files are called after the shard's path."""
    return {name: data for name, data in files.items() if not name.startswith(("teacher_store", "report.json"))}


@pytest.fixture
def table(make: Any, tmp_path: Path) -> Path:
    """The same of a parquet table in small row groups, with captions, some of which are missing."""
    rows = [
        (f"k{n}", None if n % 7 == 3 else make.photo(n % 29), None if n % 5 == 2 else f"word {n}") for n in range(40)
    ]
    (tmp_path / "tables").mkdir()
    for number, part in enumerate((rows[:25], rows[25:])):
        columns = dict(zip(("key", "jpg", "caption"), map(list, zip(*part, strict=True)), strict=True))
        parquet.write_table(pyarrow.table(columns), tmp_path / "tables" / f"{number:05d}.parquet", row_group_size=4)
    return tmp_path / "tables"


def words_of(table: Path) -> list[object]:
    """With what lies beside the pictures."""
    return [table, "--samples-per-shard", 3, "--short-side", 20, "--keep", "txt,json"]


def killed_at_each_write(
    dime: Dime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[object]
) -> Iterator[tuple[Any, Any]]:
    """What one run makes, and what one makes that was killed before a rename: before each fifth in turn."""
    whole = dime("images", *command, out="whole")
    renames = 0
    limit: int | None = None

    def counting(self: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if limit is not None and renames > limit:
            raise Killed
        os.replace(self, target)
        return target

    monkeypatch.setattr(Path, "replace", counting)
    dime("images", *command, out="counted")
    total = renames
    assert total > 40
    for limit in range(0, total, 5):
        renames = 0
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        with pytest.raises(Killed):
            dime("images", *command, out="killed")
        limit = None
        yield whole, dime("images", *command, out="killed")


def test_every_write_may_be_the_last(source: Path, dime: Dime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before each rename in turn, each time run to the end: every file as of one run."""
    for whole, again in killed_at_each_write(dime, tmp_path, monkeypatch, words(source)):
        assert portable(again.files()) == portable(whole.files())
        stored, expected = (
            {path.stat().st_size for path in (made.folder / "teacher_store" / "image").glob("*.safetensors")}
            for made in (again, whole)
        )
        assert stored == expected


def test_tables_go_on_too(table: Path, dime: Dime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of parquet tables, and any number of workers."""
    for whole, again in killed_at_each_write(dime, tmp_path, monkeypatch, words_of(table)):
        assert portable(again.files()) == portable(whole.files())
    assert whole.report["left_out"] == {"duplicate": 5, "no_picture": 5, "txt_missing": 8}
    monkeypatch.undo()
    many = dime("images", *words_of(table), "--workers", 2, out="many")
    assert portable(many.files()) == portable(whole.files())


def test_sentences_go_on_too(dime: Dime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while reading, planning and packing."""
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(
            "".join(f"sentence {n} of a file {name if n % 2 else ''}\n" for n in range(30))
        )
    paths = sorted(tmp_path.glob("*.txt"))
    whole = dime("texts", *paths, "--samples-per-shard", 7, out="whole")
    for place in (
        "toolkit.data.convert.convert.scan_piece",
        "toolkit.data.convert.convert.make_plan",
        "toolkit.data.convert.convert.pack_unit",
    ):
        with monkeypatch.context() as patched:
            calls = iter(range(100))
            real = {"scan_piece": plan.scan_piece, "make_plan": plan.make_plan}.get(place.rpartition(".")[2])
            from toolkit.data.convert.pack import pack_unit

            def dying(*given: Any, real: Any = real or pack_unit, calls: Iterator[int] = calls) -> Any:
                if next(calls) == 2 or real is plan.make_plan:
                    raise Killed
                return real(*given)

            patched.setattr(place, dying)
            with pytest.raises(Killed):
                dime("texts", *paths, "--samples-per-shard", 7, out="killed")
    assert dime("texts", *paths, "--samples-per-shard", 7, out="killed").files() == whole.files()


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_change_nothing(workers: int, source: Path, dime: Dime, tmp_path: Path) -> None:
    """Neither order nor bytes."""
    one = dime("images", *words(source), out="one")
    many = dime("images", *words(source), "--workers", workers, out="many")
    assert portable(many.files()) == portable(one.files())
    left_out = {key: value for key, value in many.report.items() if key not in ("request", "features")}
    assert left_out == {key: value for key, value in one.report.items() if key not in ("request", "features")}


def test_another_command_does_not_go_on(source: Path, dime: Dime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither other options nor changed sources nor a second process at the same time."""

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("toolkit.data.convert.convert.pack_all", die)
        with pytest.raises(Killed):
            dime("images", *words(source))
    with pytest.raises(
        DataError, match=r"an unfinished conversion from other sources or options \(short_side: 20 there, 0 here"
    ):
        dime("images", source, "--samples-per-shard", 3, "--teacher-name", "t")
    os.utime(source / "image_00.tsv", (1, 1))
    with pytest.raises(DataError, match=r"other sources or options \(sources: "):
        dime("images", *words(source))


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    """The second is told to wait."""
    first, second = (Workspace(tmp_path / "out", {}) for _ in range(2))
    with first.opened(), pytest.raises(DataError, match="another process is writing to"), second.opened():
        pass
    with second.opened():
        pass
    assert workspace.WORK in os.listdir(tmp_path / "out") and finish.SKIPPED == "skipped.jsonl"

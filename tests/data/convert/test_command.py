"""The words of `dime shards`: what README shows parses, what is no command is told, nothing heavy is imported."""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from toolkit.cli_shards import add_shards
from toolkit.errors import DataError

REPO = Path(__file__).resolve().parents[3]
SHOWN = re.findall(r"^dime shards (.*)$", (REPO / "README.md").read_text(), re.M)


def parsed(line: str) -> argparse.Namespace:
    """As `dime` does."""
    parser = argparse.ArgumentParser()
    add_shards(parser)
    return parser.parse_args(shlex.split(line))


@pytest.mark.parametrize("line", SHOWN)
def test_what_the_readme_shows_parses(line: str) -> None:
    """With all its options."""
    assert parsed(line).shards_verb in ("images", "texts", "check")


def test_the_readme_shows_every_kind() -> None:
    """Or the test above tests nothing."""
    assert {line.split()[0] for line in SHOWN} == {"images", "texts", "check"}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "images",
        "images x",
        "images --out y",
        "texts x",
        "check",
        "images x --out y --dedupe all",
        "images x --out y --workers -1",
    ],
)
def test_words_that_are_no_command(line: str) -> None:
    """Usage, exit code 2."""
    with pytest.raises(SystemExit) as ended:
        parsed(line)
    assert ended.value.code == 2


def test_mistakes_have_no_traceback_and_nothing_heavy_is_imported(tmp_path: Path) -> None:
    """One line and exit code 2, within a second: neither torch nor webdataset."""
    run = [sys.executable, "-m", "toolkit.cli", "shards", "images", "nowhere", "--out", str(tmp_path / "out")]
    done = subprocess.run(run, cwd=REPO, capture_output=True, text=True, timeout=60)
    assert (
        done.returncode == 2
        and done.stderr.startswith("DataError: 1 of 1 SRC do not exist")
        and done.stderr.count("\n") == 1
    )
    code = (
        "import sys, toolkit.data.convert.convert_texts, toolkit.data.convert.check\n"
        "sys.exit(str({'torch', 'webdataset', 'pyarrow'} & set(sys.modules) or ''))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, timeout=60, capture_output=True).stderr.strip() == b""


def test_format_forces_the_kind(tmp_path: Path, make: Any, dime: Any) -> None:
    """A tar of lone pictures read as WebDataset samples, a folder as its TSV files, any file as lines."""
    make.tar(
        tmp_path / "in" / "a.tar",
        {"1.jpg": make.photo(1), "1.seg.png": make.photo(2, kind="PNG"), "2.JPG": make.photo(3)},
    )
    assert list(dime("images", tmp_path / "in" / "a.tar", out="plain").contents()) == ["1.jpg", "1.seg.png", "2.JPG"]
    assert list(dime("images", tmp_path / "in", "--format", "webdataset", out="b").contents()) == ["1", "2"]
    make.folder(tmp_path, {"words": b"a sentence without an extension\n", "x/loose.jpg": make.photo(4)})
    make.tsv(tmp_path / "x" / "y.tsv", [("k", make.photo(5))])
    assert len(dime("texts", tmp_path / "words", "--format", "txt", out="c").samples()) == 1
    assert list(dime("images", tmp_path / "x", "--format", "tsv", out="d").contents()) == ["k"]
    assert list(dime("images", tmp_path / "x", out="e").contents()) == ["loose.jpg", "k"]
    for words in (["images", tmp_path / "words", "--format", "folder"], ["images", tmp_path / "in", "--format", "tsv"]):
        with pytest.raises(DataError, match="--format"):
            dime(*words, out="f")


def test_what_the_system_refuses_is_told(tmp_path: Path, make: Any, dime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, say."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "00000.tar")

    make.folder(tmp_path / "in", {"a.jpg": make.photo(1)})
    with monkeypatch.context() as patched:
        patched.setattr("toolkit.data.convert.convert.pack_all", full)
        with pytest.raises(
            DataError, match=r"00000\.tar: No space left on device; see to that and run the same command again"
        ):
            dime("images", tmp_path / "in")
    assert len(dime("images", tmp_path / "in").samples()) == 1

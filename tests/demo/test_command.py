"""`dime demo RUN`: its words, and the sample pictures."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.cli import dispatch
from toolkit.config import EvalSet, Evaluation, Run
from toolkit.demo.samples import samples_of
from toolkit.errors import ConfigError


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the page would be opened with."""
    calls: list[Any] = []
    monkeypatch.setattr("toolkit.demo.command.show_run", lambda *words, **more: calls.append((*words, more)))
    return calls


@pytest.mark.parametrize(
    ("words", "right"),
    [
        ("r", ("newest", [], 0, False)),
        ("r a=b --port 81 c=d", ("newest", ["a=b", "c=d"], 81, False)),
        ("--port 81 r a=b", ("newest", ["a=b"], 81, False)),
        ("--open r --checkpoint best", ("best", [], 0, True)),
    ],
)
def test_words(words: str, right: tuple[Any, ...], shown: list[Any]) -> None:
    """In any order."""
    dispatch(["demo", *words.split()])
    which, overrides, port, opens = right
    assert shown == [(Path("r"), which, overrides, {"port": port, "open_browser": opens})]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--port 81", "--port goes with a RUN"),
        ("--open steps=3", "--open goes with a RUN"),
        ("--checkpoint best", "--checkpoint goes with a RUN"),
        ("r --ranks 2", "--ranks does not go with r"),
        ("r --json", "--json does not go with r"),
        ("r --dry-run", "--dry-run does not go with r"),
        ("r s", "shows one run, 2 were given"),
        ("nowhere --port 70000", "no port"),
        ("nowhere", "nowhere is no run"),
    ],
)
def test_words_that_do_not_fit(words: str, said: str) -> None:
    """One sentence."""
    with pytest.raises(ConfigError, match=said):
        dispatch(["demo", *words.split()])


def run_of(**sets: EvalSet) -> Run:
    """With these evaluation sets."""
    return Run(evaluation=Evaluation(sets=sets))


def test_samples(make_shards: Callable[..., Path], png: Callable[..., bytes], tmp_path: Path) -> None:
    """Six pictures of the first set with classes, as they are in it, with their true names."""
    (tmp_path / "classes.json").write_text(
        json.dumps({"classnames": ["red", "green", "blue"], "templates": ["a {}", "{}"]})
    )
    broken = {k: {"png": b"no picture"} for k in range(0, 30, 2)} | {1: {"cls": b"77"}}
    folder = str(make_shards("set", 30, fields=("png", "txt", "cls"), broken=broken))
    pairs, mine = (
        EvalSet(shards="nowhere", kind="retrieval"),
        EvalSet(shards=folder, classes=str(tmp_path / "classes.json")),
    )
    found, why = samples_of(run_of(pairs=pairs, mine=mine))
    assert (
        not why and found["set"] == "mine" and found["labels"] == ["red", "green", "blue"] and found["prompt"] == "a {}"
    )
    originals = {png(k): ("red", "green", "blue")[k % 3] for k in range(3, 30, 2)}
    assert len(found["pictures"]) == 6
    for sample in found["pictures"]:
        kind, _, data = sample["data"].partition(";base64,")
        assert kind == "data:image/png" and originals[base64.b64decode(data)] == sample["name"]
    assert samples_of(run_of(pairs=pairs, mine=mine))[0] == found


def test_no_samples(tmp_path: Path) -> None:
    """Always with the reason; nothing is fetched."""
    cases = {
        "names no evaluation set": run_of(pairs=EvalSet(shards="x", kind="retrieval")),
        "behind a URL": run_of(mine=EvalSet(shards="https://host/{0..9}.tar", classes="x")),
        "is no classes file": run_of(mine=EvalSet(shards="x", classes=str(tmp_path / "none.json"))),
    }
    for words, run in cases.items():
        found, why = samples_of(run)
        assert found == {} and why.startswith("no sample pictures: ") and words in why

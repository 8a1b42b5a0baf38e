"""Names to callables."""

import sys
from pathlib import Path

import pytest

from toolkit.errors import CheckpointError, ConfigError, DataError, ToolkitError
from toolkit.registry import did_you_mean, load_callable


def test_did_you_mean() -> None:
    """The nearest, or nothing."""
    assert did_you_mean("lrr", ["lr", "eps"], "optim.") == "; did you mean optim.lr?"
    assert did_you_mean("zzz", ["lr", "eps"]) == ""


def test_the_working_directory_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a package in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine_for_registry").mkdir()
    (tmp_path / "mine_for_registry" / "models.py").write_text("def small(): return 7\nNUMBER = 3\n")
    assert load_callable("mine_for_registry.models:small", asked_by="student.name")() == 7
    with pytest.raises(ConfigError, match="has no function 'NUMBER'"):
        load_callable("mine_for_registry.models:NUMBER", asked_by="student.name")


def test_errors_are_value_errors() -> None:
    """A KeyError would print its message in quotes."""
    for kind in (ConfigError, DataError, CheckpointError):
        assert issubclass(kind, ToolkitError) and issubclass(kind, ValueError) and str(kind("a 'b'")) == "a 'b'"

"""`dime`: each verb reaches its function, and a mistake is one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.cli import dispatch
from toolkit.errors import ToolkitError


def dime(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """In a fresh process."""
    return subprocess.run(
        [sys.executable, "-m", "toolkit.cli", *words], cwd=cwd, capture_output=True, text=True, timeout=120
    )


def test_students_can_be_searched(capsys: pytest.CaptureFixture[str]) -> None:
    """Names that student.name takes as they are."""
    dispatch(["students", "vit-b-32"])
    names = capsys.readouterr().out.split()
    assert "ViT-B-32-quickgelu" in names and all("vit-b-32" in name.lower() for name in names)
    dispatch(["students", "test_vit"])
    assert "timm/test_vit" in capsys.readouterr().out.split()


def test_evaluating_what_is_no_run(tmp_path: Path) -> None:
    """One line, exit code 2."""
    done = dime("evaluate", "nowhere", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr == "ConfigError: nowhere is no run: it has no config.yaml; give the out_dir of a run\n"


def test_a_report_of_what_is_no_run(tmp_path: Path) -> None:
    """A mistake of the user, too."""
    with pytest.raises(ToolkitError):
        dispatch(["report", str(tmp_path / "nowhere")])


@pytest.mark.parametrize("words", [[], ["evalute", "x"], ["report"], ["report", "x", "--fast"]])
def test_words_that_are_no_command(words: list[str], tmp_path: Path) -> None:
    """Usage, exit code 2."""
    done = dime(*words, cwd=tmp_path)
    assert done.returncode == 2 and "usage: dime" in done.stderr and "Traceback" not in done.stderr


def test_demo_passes_overrides_and_the_exit_code_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is the quickstart recipe under DeepSpeed's launcher beside this Python."""
    script = tmp_path / "deepspeed"
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/words\nexit 3\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(SystemExit) as ended:
        dispatch(["demo", "--ranks", "1", "steps=5", "--dry-run"])
    words = (tmp_path / "words").read_text().split()
    assert ended.value.code == 3 and words[0] == "--master_port" and words[2:4] == ["--num_gpus", "1"]
    assert words[4].endswith("recipes/quickstart.py") and words[5:] == ["steps=5", "--dry-run"]

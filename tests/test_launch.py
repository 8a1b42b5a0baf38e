"""How a recipe ends: a user's mistake is one message and exit code 2; --dry-run writes nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from toolkit.launch import launch

REPO = Path(__file__).resolve().parents[1]
RECIPE = REPO / "recipes" / "distill_vitb32.py"
DATA = ("data.images=shards/{00000..00003}.tar", "data.texts=shards/texts")


def run(*words: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh Python, outside any launcher."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "RANK", "WORLD", "LOCAL"))
    }
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=3", "no setting named optim.lrr; did you mean optim.lr?"),
        ("steps=5000", "optim.warmup_steps (12992) must be below steps (5000); lower it or raise steps"),
        ("deepspeed=none.json", "deepspeed=none.json is no file"),
        ("data.batch_size_per_gpu=500", "(12288) must be a multiple of data.batch_size_per_gpu (500) x 1 ranks = 500"),
        ("data.images={0..3}.tar", "could not be read"),
    ],
)
def test_a_mistake_is_one_line(override: str, message: str, tmp_path: Path) -> None:
    """On stderr, with the kind of error, exit code 2, no traceback, nothing written."""
    done = run(RECIPE, *DATA, override, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("ConfigError: ") and message in done.stderr and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr and list(tmp_path.iterdir()) == []


def test_dry_run_prints_and_writes_nothing(tmp_path: Path) -> None:
    """The resolved config as YAML, the batch in words, and how many images will be seen."""
    done = run(RECIPE, "--dry-run", "optim.lr=4e-4", "--local_rank=0", cwd=tmp_path, WORLD_SIZE="24")
    assert done.returncode == 0, done.stderr
    config, words, seen = done.stdout.rsplit("\n\n", 1)[0], *done.stdout.strip().splitlines()[-2:]
    shown = yaml.safe_load(config)
    assert shown["optim"]["lr"] == 4e-4 and shown["student"]["name"] == "ViT-B-32-quickgelu"
    assert "12288 images per step = 24 ranks x 512 per rank" in words
    assert seen == "324,800 steps see 3,991,142,400 images"
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    """All ranks find it, rank 0 says it."""
    done = run(RECIPE, "stps=3", cwd=tmp_path, RANK="1")
    assert done.returncode == 2 and done.stderr == ""
    done = run(RECIPE, "stps=3", cwd=tmp_path, RANK="0")
    assert "did you mean steps?" in done.stderr


FAILING = """
import sys
from toolkit.errors import DataError, ConfigError
from toolkit.launch import launch
def main(words):
    if words[0] == "torch":
        import torch
    raise {"data": DataError, "bug": RuntimeError, "torch": ConfigError}[words[0]]("shards/7.tar is torn")
launch(main)
"""


def test_what_one_rank_finds_is_told_by_that_rank(tmp_path: Path) -> None:
    """A torn shard is met by whoever reads it."""
    (tmp_path / "fails.py").write_text(FAILING)
    done = run("fails.py", "data", cwd=tmp_path, RANK="3")
    assert (done.returncode, done.stderr) == (2, "DataError (rank 3): shards/7.tar is torn\n")


def test_a_mistake_after_torch_is_loaded(tmp_path: Path) -> None:
    """Left without waiting for other ranks, the message still whole."""
    (tmp_path / "fails.py").write_text(FAILING)
    done = run("fails.py", "torch", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "ConfigError: shards/7.tar is torn\n")


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    """It is ours, not the user's."""
    (tmp_path / "fails.py").write_text(FAILING)
    done = run("fails.py", "bug", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" in done.stderr and "RuntimeError" in done.stderr


def test_launch_passes_the_words_on() -> None:
    """And ends with 0."""
    seen: list[str] = []
    with pytest.raises(SystemExit) as ended:
        launch(seen.extend, ["steps=3", "--dry-run"])
    assert ended.value.code == 0 and seen == ["steps=3", "--dry-run"]


def test_ctrl_c_of_a_verb_is_no_traceback(tmp_path: Path) -> None:
    """A verb without a checkpoint to save ends with the shell's code for it."""
    script = "from toolkit.launch import launch\ndef stop(words):\n    raise KeyboardInterrupt\nlaunch(stop, [], stoppable=False)"
    done = run("-c", script, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (130, "stopped by Ctrl-C\n")

"""Every command in the README and in recipe docstrings parses and resolves; every file it names exists."""

import re
import shlex
from pathlib import Path

import pytest

from toolkit import config
from toolkit.config.resolve import merge, parse_overrides

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    """Shell lines of the README's sh blocks and the indented ones of recipe docstrings."""
    found = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()]
    for recipe in sorted((ROOT / "recipes").glob("*.py")):
        docstring = recipe.read_text().split('"""')[1]
        found += [line.strip() for line in docstring.splitlines() if re.match(r"\s+(deepspeed|sbatch) ", line)]
    return sorted({line.split("   #")[0].strip() for line in found if line.strip()})


def test_there_are_commands():
    assert len(commands()) >= 10


@pytest.mark.parametrize("command", commands())
def test_command_holds(command):
    words = [word for word in shlex.split(re.sub(r"\(make \w+\)$", "", command)) if word != "..."]
    program, rest = words[0], words[1:]
    if program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.M)
        return
    if program == "dime":
        from toolkit import cli

        assert f'add_parser("{rest[0]}"' in Path(cli.__file__).read_text()
        return
    if program == "cp":
        return
    assert program in ("deepspeed", "torchrun", "sbatch", "python")
    files = [word for word in rest if word.endswith((".py", ".sh"))]
    assert files and all((ROOT / name).is_file() for name in files)
    if files[0] in ("slurm/embed.sh", "slurm/evaluate.sh"):  # their words are those of the verb
        from toolkit.cli import build_parser

        build_parser().parse_args([Path(files[0]).stem, *rest[rest.index(files[0]) + 1 :]])
        return
    overrides = [word for word in rest if ("=" in word and not word.startswith("--")) or word == "--dry-run"]
    overrides = [word.replace("=...", "=shards") for word in overrides]
    assert isinstance(merge(config.Run(), parse_overrides(overrides)), config.Run)


def test_links_and_files_exist():
    missing = [
        target
        for target in re.findall(r"\]\(([^)#]+)\)", README)
        if "://" not in target and not (ROOT / target).exists()
    ]
    assert not missing


def test_table_of_losses_is_the_registry():
    from toolkit.losses import LOSSES

    section = README.split("## Losses")[1].split("##")[0]
    assert set(re.findall(r"^\| `(\w+)`", section, re.M)) == set(LOSSES)

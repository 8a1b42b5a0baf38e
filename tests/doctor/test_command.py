"""The command line: table, exit codes, JSON, options."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doctor.looking import alone, crew, environment_of_one, playground_run, write_recipe

from toolkit.cli import dispatch
from toolkit.doctor.check import Row
from toolkit.doctor.checks import CHECKS
from toolkit.doctor.command import Options, came, chosen_checks, doctor
from toolkit.doctor.table import as_dict, as_text, summary
from toolkit.errors import ConfigError

FAST = "compute,models,disk,evaluation"


def code_of(*words: str) -> int:
    """As the shell sees it."""
    with pytest.raises(SystemExit) as ended:
        dispatch(["doctor", *words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_exit_codes_and_json(kept_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 with a healthy run, 1 with a bad one, and the last line says the same."""
    recipe = str(write_recipe(tmp_path, kept_world))
    assert code_of(recipe, "--json", "--skip", FAST) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out.splitlines()[-1])
    assert found["verdict"] in ("good", "warn") and found["ranks"] == 1 and found["left_out"][0] == "evaluation"
    assert "0 bad" in shown.out and ": ready" in shown.out and "\033" not in shown.out
    assert re.search(r"\[\d/\d] versions: packages, drivers, commit, recipe \.\.\. good \(\d+\.\d s\)", shown.err)
    assert code_of(recipe, "--json", f"data.texts={tmp_path}/nowhere/0.tar", "--skip", FAST) == 1
    shown = capsys.readouterr()
    found = json.loads(shown.out.splitlines()[-1])
    assert found["verdict"] == "bad"
    (row,) = (row for row in found["rows"] if row["verdict"] == "bad")
    assert row["check"] == "shards" and row["what"] == "data.texts" and "do not exist" in row["found"]
    assert "\nBAD " in shown.out and "do not start the run" in shown.out and "Traceback" not in shown.err


def test_options_before_and_behind_the_recipe(
    kept_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Overrides too."""
    recipe = str(write_recipe(tmp_path, kept_world))
    every = ",".join(name for name in CHECKS if name != "resume")
    assert code_of("--skip", every, recipe, f"out_dir={tmp_path / 'other'}", "--json", "seed=3") == 0
    assert f"out_dir={tmp_path / 'other'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.py"], "recipe nowhere.py: found nothing there"),
        (["RECIPE", "steps=ten"], "steps"),
        (["RECIPE", "--skip", "modles"], "--skip modles: no such check; did you mean models"),
        (["RECIPE", "--limit", "0"], "--limit (0) must be above 0"),
        (["RECIPE", "--ranks", "3"], "data.global_batch_size (16) does not divide by 3 ranks"),
        (["RECIPE", "--ranks", "-1"], "--ranks -1"),
        (["RECIPE", "deepspeed=nothing.json"], "deepspeed=nothing.json is no file"),
    ],
)
def test_mistakes(words: list[str], said: str, kept_world: Path, tmp_path: Path) -> None:
    """Told at once, not as rows."""
    recipe = str(write_recipe(tmp_path, kept_world))
    with pytest.raises(ConfigError, match=re.escape(said)):
        dispatch(["doctor", *(recipe if word == "RECIPE" else word for word in words)])


def test_a_mistake_of_all_ranks_is_told_once(kept_world: Path, tmp_path: Path) -> None:
    """Exit code 2, one line, also where ranks would be started."""
    recipe = str(write_recipe(tmp_path, kept_world))
    words = [sys.executable, "-m", "toolkit.cli", "doctor", recipe, "--ranks", "3"]
    done = subprocess.run(words, env=environment_of_one(), capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("ConfigError: data.global")


def test_the_list_needs_no_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Every check with what it looks at."""
    assert code_of("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(CHECKS)


def test_what_needs_a_skipped_check_is_skipped() -> None:
    """A batch cannot be tried without models."""
    names = [check.name for check in chosen_checks(["models"])]
    assert names == [name for name in CHECKS if name not in ("models", "store", "batch", "room")]


def test_a_taken_port(kept_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As training says it."""
    import socket

    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_PORT": taken.getsockname()[1]}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        with pytest.raises(ConfigError, match=r"port \d+ is taken"):
            doctor(playground_run(kept_world, tmp_path / "run"), Options(wait=5.0))


ROWS = [
    Row("torch", "rank 2 (b)", "2.14", "2.15, as on 3 others", "bad", "install it", "versions"),
    Row("clocks", "all 4 ranks", "within 1 ms", check="clock"),
    Row("a" * 100, "rank 0 (a)", "word " * 60, "", "warn", "look at it", "disk"),
]


def test_the_table(tmp_path: Path) -> None:
    """Words always, colour where asked; what is bad stands last, with what to do; long entries are broken."""
    text = as_text(ROWS, colour=False)
    lines = text.splitlines()
    assert lines[0].split() == ["check", "what", "where", "found", "wanted"]
    assert [line.split()[0] for line in lines if re.match("good|warn|BAD", line)] == ["good", "warn", "BAD"]
    assert lines[-1].strip() == "-> install it" and lines[-2].startswith("BAD   versions")
    assert "\033" not in text and max(map(len, lines)) < 240
    assert text.replace("\n", " ").count("word") == 60
    painted = as_text(ROWS, colour=True)
    assert "\033[31;1mBAD" in painted and "\033[33mwarn" in painted and "\033[32m" not in painted
    context = crew(playground_run(tmp_path, tmp_path), ("a", "a", "b", "b"))
    assert summary(ROWS, context, 61.4, ["models"]) == (
        "1 bad, 1 to look at, 1 good; 4 of 4 ranks on 2 hosts in 61 s; left out: models: do not start the run"
    )
    assert as_dict(ROWS, context, 1.0, [])["verdict"] == "bad"
    assert as_dict(ROWS[1:], context, 1.0, [])["verdict"] == "warn"
    assert as_dict(ROWS[1:2], context, 1.0, [])["rows"][0]["found"] == "within 1 ms"


def test_who_came(tmp_path: Path) -> None:
    """Ranks by host; the absent are named."""
    context = crew(playground_run(tmp_path, tmp_path), ("a", "a", "b", "b"))
    assert came(context, 5.0)[0].found == "a: 2, b: 2"
    del context.hosts[3]
    (row,) = came(context, 5.0)
    assert (row.verdict, row.where) == ("bad", "rank 3 (host unknown)")


def test_where() -> None:
    """Ranks in words."""
    run = playground_run(Path("x"), Path("x"))
    context = crew(run, tuple(f"node{rank // 8}" for rank in range(64)))
    assert context.where(range(64)) == "all 64 ranks"
    assert context.where([9]) == "rank 9 (node1)"
    assert context.where(range(8)) == "ranks 0, 1, 2, 3, 4, 5 and 2 more (node0)"
    assert context.where([0, 8, 16, 24, 32]) == "ranks 0, 8, 16, 24, 32 (node0, node1, node2 and 2 more)"
    assert alone(run).where([0]) == "rank 0 (here)"

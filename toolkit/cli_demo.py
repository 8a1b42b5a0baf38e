"""Options of `dime demo`: the page of a run, or without one the quickstart."""

import argparse
import json
import socket
import subprocess
import sys
from pathlib import Path

from toolkit.errors import ConfigError


def add_demo(parser: argparse.ArgumentParser) -> None:
    """A run and how to show it; or the quickstart's options."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="RUN | key=value",
        help="folder of a run (or of dime import): opens its page; key=value as for any recipe",
    )
    page = parser.add_argument_group("with a RUN: a local page, student beside teacher on your own picture")
    page.add_argument("--checkpoint", default=None, help="newest, best, or a checkpoint folder (default newest)")
    page.add_argument("--port", type=int, default=None, help="of 127.0.0.1 (default: a free one, printed)")
    page.add_argument("--open", action="store_true", help="open it in the browser")
    quick = parser.add_argument_group("without one: recipes/quickstart.py distils the embedded teacher here")
    quick.add_argument("--ranks", type=int, default=None, help="processes to launch (default 2)")
    quick.add_argument("--json", action="store_true", help="print the report as one JSON object as the last line")


def run_demo(words: argparse.Namespace) -> None:
    """The page where a word is no key=value, else the quickstart."""
    runs = [word for word in words.overrides if "=" not in word and not word.startswith("-")]
    page = {"--checkpoint": words.checkpoint, "--port": words.port, "--open": words.open or None}
    if not runs:
        refuse(page, "goes with a RUN: dime demo RUN opens its page, dime demo alone runs the quickstart")
        return run_quickstart(words)
    options = {word: True for word in words.overrides if word.startswith("-")}
    quick = {"--ranks": words.ranks, "--json": words.json or None}
    refuse(options | quick, f"does not go with {runs[0]}; it is of the quickstart, or no option: see dime demo --help")
    if len(runs) > 1:
        raise ConfigError(f"dime demo shows one run, {len(runs)} were given ({', '.join(runs)}); leave all but one out")
    from toolkit.demo.command import show_run

    overrides = [word for word in words.overrides if word not in runs]
    show_run(
        Path(runs[0]), words.checkpoint or "newest", overrides, port=words.port or 0, open_browser=bool(words.open)
    )


def refuse(given: dict[str, object], why: str) -> None:
    """Raise ConfigError for an option that was given."""
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"{name} {why}")


def run_quickstart(words: argparse.Namespace) -> None:
    """Launch the quickstart recipe through DeepSpeed's launcher."""
    from toolkit.config.shipped import shipped

    recipe = shipped("recipes/quickstart.py")
    if recipe is None:
        raise ConfigError("recipes/quickstart.py is not in this installation; install the wheel again")
    launcher = Path(sys.executable).with_name("deepspeed")
    with socket.socket() as probe:  # a free port: the launcher's default is taken while another run goes on
        probe.bind(("127.0.0.1", 0))
        port = ["--master_port", str(probe.getsockname()[1])]
    ranks = 2 if words.ranks is None else words.ranks
    code = subprocess.run([str(launcher), *port, "--num_gpus", str(ranks), str(recipe), *words.overrides]).returncode
    if words.json and not code:
        out_dir = next(
            (w.split("=", 1)[1] for w in reversed(words.overrides) if w.startswith("out_dir=")), "runs/quickstart"
        )
        print(json.dumps(json.loads((Path(out_dir) / "report.json").read_text())))
    sys.exit(code)

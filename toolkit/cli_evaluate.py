"""Options of `dime evaluate`: a run's own sets, the protocol's tasks on sets in a folder, or which of them are there."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import ConfigError

if TYPE_CHECKING:
    from toolkit.evaluate.suite.request import Request

FORMS = """\
MODEL is the out_dir of a run, a folder of `dime import` or `dime export`, or open_clip:NAME/TAG (a weights file may stand for the tag).
Without --tasks, --sets and --data a run is judged on the sets of its own config. With them, on the protocol's: ImageNet-1K, the 20 sets
of ELEVATER, five of robustness, your own folders of pictures by class, pairs for retrieval, and captions with hard negatives.
"""


FOR_SETS: dict[str, Any] = {
    "beside": [], "out": None, "cache": None, "predictions": None, "sentences": None, "two_lr": False, "trained_projection": False,
    "no_cost": False, "shots": "5", "seeds": "0,1,2", "learning_rates": "", "trial_epochs": 10, "final_epochs": 50,
    "precision": "fp32", "pictures": "all", "processes": 0,
}  # fmt: skip
"""Options that a run's own sets have no use for, with their defaults."""


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Which model, which tasks, on what."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = FORMS
    add = parser.add_argument
    run = add("run", metavar="MODEL", help="run, import, export, or open_clip:NAME/TAG")
    add("--list", action=instead_of(run), help="which evaluation sets are in --data, and how to get the others")
    add(
        "--combine",
        action=instead_of(run),
        help="join the files of --predictions DIR into ELEVATER's all_predictions.zip",
    )
    add("--partial", action="store_true", help="with --combine: fewer than the 20 sets will do")
    add("--data", type=Path, default=None, help="folder of evaluation sets (default data)")
    add(
        "--tasks",
        default="",
        help="zero_shot,linear_probe,linear_probe_clean,fine_tune,fine_tune_clean,k_shot,k_shot_fine_tune,retrieval,compositionality",
    )
    add("--sets", default="", help="names, or imagenet, elevater, robustness, yours, all (default all that are there)")
    add(
        "--beside",
        action="append",
        default=[],
        metavar="MODEL",
        help="another model to judge on the same pictures; may be repeated",
    )
    add("--checkpoint", default="newest", help="newest, best, or a checkpoint folder (default newest)")
    add("--out", type=Path, default=None, help="folder of results.json (default MODEL/benchmarks)")
    add("--cache", type=Path, default=None, help="folder of what has been computed (default ~/.cache/dime/evaluate)")
    add("--predictions", type=Path, default=None, metavar="DIR", help="write ELEVATER's submission files there")
    add_training(parser)
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="of the models (default fp32)")
    add("--batch-size", type=int, default=64, help="pictures per forward (default 64)")
    add("--workers", type=int, default=2, help="data processes of each process (default 2)")
    add("--processes", type=int, default=0, help="processes at work (default one per GPU, else one)")
    add(
        "--pictures",
        default="all",
        help="sets whose pictures may stand in the results: all, none, or names (default all)",
    )
    add(
        "--sentences",
        type=Path,
        default=None,
        metavar="FILE",
        help="a sentence per line; the nearest to sample pictures are shown",
    )
    add("--no-cost", action="store_true", help="do not measure sizes and latencies")
    add("--json", action="store_true", help="print one JSON object as the last line")
    add(
        "overrides",
        nargs="*",
        default=[],
        help="key=value, for example evaluation.sets.mine.shards=... or teacher.name=...",
    )
    # a default: else argparse wants them where the run is left out


def add_training(parser: argparse.ArgumentParser) -> None:
    """Of the tasks that train something."""
    add = parser.add_argument
    add("--shots", default="5", help="pictures per class of the k-shot tasks (default 5)")
    add("--seeds", default="0,1,2", help="draws of the k-shot tasks (default 0,1,2)")
    add("--learning-rates", default="", help="that the searches try (default 1e-6,1e-5,...,1e-1)")
    add("--trial-epochs", type=int, default=10, help="of each setting of a search (default 10)")
    add("--final-epochs", type=int, default=50, help="with the setting found (default 50)")
    add("--two-lr", action="store_true", help="fine-tuning: a tenth of the learning rate for the image tower")
    add(
        "--trained-projection",
        action="store_true",
        help="linear probes train the image projection too, as DIME-FM's own did",
    )


def instead_of(positional: argparse.Action) -> type[argparse.Action]:
    """A flag with which the positional may be left out; `nargs='?'` would lose one that stands behind an option."""

    class Flag(argparse.Action):
        def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
            super().__init__(option_strings, dest, nargs=0, default=False, help=help)

        def __call__(self, parser: Any, namespace: argparse.Namespace, *_: Any) -> None:
            setattr(namespace, self.dest, True)
            positional.required = False

    return Flag


def run_evaluate(words: argparse.Namespace, argv: Sequence[str]) -> None:
    """List, combine, or judge."""
    for flag in ("list", "combine"):
        if getattr(words, flag) and (words.run or words.overrides):
            raise ConfigError(f"--{flag} does not go with {words.run or words.overrides[0]}; leave one of them out")
    if words.list:
        from toolkit.data.benchmarks.listing import print_list

        return print_list(words.data or Path("data"), as_json_line=words.json)
    if words.combine:
        return combine(words)
    if not (words.tasks or words.sets or words.data):
        if words.run.startswith("open_clip:"):
            raise ConfigError(f"{words.run} has no sets of its own; say which: --data DIR, with --tasks and --sets")
        idle = [f"--{name.replace('_', '-')}" for name, usual in FOR_SETS.items() if getattr(words, name) != usual]
        if idle:
            raise ConfigError(
                f"{', '.join(idle)}: for evaluation sets alone; say which, with --data DIR, or leave it out"
            )
        from toolkit.evaluate.run import evaluate_run

        evaluate_run(Path(words.run), words.checkpoint, words.overrides, as_json=words.json)
        return None
    request = request_of(words)
    processes = several(words.processes)
    if processes > 1 and "RANK" not in os.environ:
        from toolkit.cli_embed import launcher

        sys.exit(subprocess.run([*launcher(processes), *argv]).returncode)
    from toolkit.evaluate.suite.command import evaluate

    evaluate(request, command=shlex.join(["dime", *argv]), as_json=words.json)
    return None


def several(asked: int) -> int:
    """Processes of this machine; inside `srun` each task is one already."""
    if os.environ.get("SLURM_NTASKS", "1") != "1":
        return 1
    if asked:
        return asked
    from toolkit.cli_embed import gpus

    return gpus() or 1


def combine(words: argparse.Namespace) -> None:
    """Write the zip and say where."""
    from toolkit.evaluate.submission import combine_predictions

    if words.predictions is None:
        raise ConfigError(
            "--combine joins the files of a folder; give it as --predictions DIR (one task's, such as DIR/zero_shot)"
        )
    print(combine_predictions(words.predictions, partial=words.partial))


def request_of(words: argparse.Namespace) -> "Request":
    """From the words of the command line, checked."""
    from toolkit.evaluate.suite.request import Request, check, listed

    return check(
        Request(
            model=words.run,
            data=words.data or Path("data"),
            tasks=listed(words.tasks, str, "--tasks") or ("zero_shot",),
            sets=listed(words.sets, str, "--sets"),
            beside=tuple(words.beside),
            checkpoint=words.checkpoint,
            overrides=tuple(words.overrides),
            out=words.out,
            cache=words.cache,
            predictions=words.predictions,
            shots=listed(words.shots, int, "--shots"),
            seeds=listed(words.seeds, int, "--seeds"),
            learning_rates=listed(words.learning_rates, float, "--learning-rates"),
            trial_epochs=words.trial_epochs,
            final_epochs=words.final_epochs,
            two_lr=words.two_lr,
            trained_projection=words.trained_projection,
            precision=words.precision,
            batch_size=words.batch_size,
            workers=words.workers,
            pictures=listed(words.pictures, str, "--pictures"),
            sentences=words.sentences,
            cost=not words.no_cost,
        )
    )

"""`dime`: parses a verb and overrides, calls one function."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.cli_checkpoints import add_checkpoints, run_checkpoints
from toolkit.cli_demo import add_demo, run_demo
from toolkit.cli_doctor import add_doctor, run_doctor
from toolkit.cli_embed import add_embed, run_embed
from toolkit.cli_estimate import add_estimate, run_estimate
from toolkit.cli_evaluate import add_evaluate, run_evaluate
from toolkit.cli_export import add_export, run_export
from toolkit.cli_import import add_import, run_import
from toolkit.cli_profile import add_profile, run_profile
from toolkit.cli_select import add_options, run_select
from toolkit.cli_shards import add_shards, run_shards
from toolkit.errors import ConfigError
from toolkit.launch import launch


def main() -> None:
    """Console entry point."""
    launch(dispatch, stoppable=False)


def dispatch(argv: Sequence[str]) -> None:
    """Parse the words and call the verb."""
    parser = build_parser()
    given = [word for word in argv if not word.startswith(("--local_rank", "--local-rank"))]  # the launcher's
    words, others = parser.parse_known_args(given)
    if "overrides" in words:
        later = [
            word for word in others if is_override(word) or words.verb == "demo"
        ]  # behind an option; demo: --dry-run
        words.overrides += later
        others = [word for word in others if word not in later]
    if others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    {
        "demo": run_demo,
        "evaluate": lambda words: run_evaluate(words, given),
        "report": run_report,
        "calibrate": run_calibrate,
        "checkpoints": run_checkpoints,
        "doctor": lambda words: run_doctor(words, given),
        "estimate": run_estimate,
        "export": run_export,
        "import": run_import,
        "profile": run_profile,
        "select": run_select,
        "students": run_students,
        "shards": run_shards,
        "embed": lambda words: run_embed(words, given),
    }[words.verb](words)


def build_parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    parser = argparse.ArgumentParser(prog="dime", description="Distil large vision-language models on unpaired data.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    add_verbs_of_runs(verbs)
    add_checkpoints(
        verbs.add_parser("checkpoints", help="what a run has saved: whole or torn, newest, best, and its launches")
    )

    add_export(
        verbs.add_parser("export", help="hand a student to open_clip, transformers, onnxruntime or torch.export")
    )

    add_profile(verbs.add_parser("profile", help="how fast one core feeds a run, and how many cores a GPU needs"))

    add_doctor(
        verbs.add_parser("doctor", help="check every node before a long run: one table, red where something is bad")
    )

    add_estimate(
        verbs.add_parser("estimate", help="time, memory, network, storage and energy of a recipe, without a GPU")
    )

    add_import(
        verbs.add_parser("import", help="weights from elsewhere -> a folder that is a student and a teacher here")
    )

    add_options(
        verbs.add_parser("select", help="choose the sentences to distil on: visually grounded ones, or a baseline")
    )

    add_embed(verbs.add_parser("embed", help="a teacher's embeddings of shards, computed once; or look a store over"))

    students = verbs.add_parser("students", help="architectures a recipe can name as student.name")
    students.add_argument("filter", nargs="?", default="", help="part of the name")

    add_shards(
        verbs.add_parser("shards", help="pictures and sentences as you have them -> shards; or look shards over")
    )
    return parser


def add_verbs_of_runs(verbs: Any) -> None:
    """demo, evaluate, report and calibrate."""
    add_demo(verbs.add_parser("demo", help="student beside teacher on your picture; without a RUN the quickstart"))

    add_evaluate(verbs.add_parser("evaluate", help="judge a student beside its teacher, or any CLIP-like model"))

    report = verbs.add_parser("report", help="write report.html of a run or a benchmark again; or compare several")
    report.add_argument("run", type=Path, nargs="+", help="folder of the run; several are compared in comparison.html")
    report.add_argument("--out", type=Path, default=None, help="folder of a comparison (default the first one)")

    calibrate = verbs.add_parser("calibrate", help="measure how sharp a run's targets are and propose temperatures")
    calibrate.add_argument("recipe", help="Python file with DEFAULTS and main, such as recipes/distill_vitb32.py")
    calibrate.add_argument(
        "--samples",
        type=int,
        default=None,
        help="images and sentences to look at (default a global batch, at most 4096)",
    )
    calibrate.add_argument("--out", type=Path, default=None, help="page or folder (default out_dir/calibration.html)")
    calibrate.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    calibrate.add_argument("overrides", nargs="*", help="key=value, as for the recipe")


def is_override(word: str) -> bool:
    """key=value, not an option."""
    return "=" in word and not word.startswith("-")


def run_report(words: argparse.Namespace) -> None:
    """Write the report and say where."""
    from toolkit.report import write_comparison, write_report

    if len(words.run) > 1:
        return print(write_comparison(words.run, words.out))
    if words.out:
        raise ConfigError(
            f"--out {words.out} goes with several folders to compare; the report of one is written into it: leave it out"
        )
    print(write_report(words.run[0]))


def run_calibrate(words: argparse.Namespace) -> None:
    """Print the table and write the page, with --json the result as the last line."""
    from toolkit.config import resolve
    from toolkit.recipe import load_defaults

    run = resolve(load_defaults(words.recipe), words.overrides)
    from toolkit.calibrate import calibrate_run  # a bad setting is told before torch is imported

    calibrate_run(run, samples=words.samples, out=words.out, as_json=words.json)


def run_students(words: argparse.Namespace) -> None:
    """One name per line."""
    import open_clip
    import timm

    names = [*open_clip.list_models(), *(f"timm/{name}" for name in timm.list_models())]
    print("\n".join(name for name in names if words.filter.lower() in name.lower()))


if __name__ == "__main__":
    main()

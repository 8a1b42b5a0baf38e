"""Options of `dime estimate`."""

import argparse

FIELDS = (
    "hardware", "gpus", "gpus_per_node", "mfu", "teacher_mfu", "images_per_second", "images", "sentences", "short_side",
    "jpeg_quality", "views", "cores_per_gpu", "images_per_second_per_core", "pue",
)  # fmt: skip


def add_estimate(parser: argparse.ArgumentParser) -> None:
    """What is known of hardware and data; everything has a default that is printed."""
    parser.add_argument("recipe", help="Python file with DEFAULTS and main, such as recipes/distill_vitb32.py")
    parser.add_argument(
        "--hardware",
        default="h100",
        metavar="NAME[xN]",
        help="v100, a100-40, a100-80, l40s, h100, h200, mi250x (one die), mi300x, with a count as in h100x8; or numbers of your "
        "own, the rest as an H100: tflops=200,fp32_tflops=50,memory_gb=48,memory_gb_s=900,watts=300,link_gb_s=32,network_gb_s=25",
    )
    parser.add_argument("--gpus", type=int, metavar="N", help="in all (default 8)")
    parser.add_argument("--gpus-per-node", type=int, metavar="N", help="default 8")
    parser.add_argument(
        "--mfu", type=float, metavar="FRACTION", help="share of the peak that is reached (default 0.25, teacher 0.45)"
    )
    parser.add_argument("--teacher-mfu", type=float, metavar="FRACTION", help="the teacher's alone")
    parser.add_argument(
        "--images-per-second",
        type=float,
        metavar="X",
        help="measured in a minute on one GPU with this recipe and micro-batch; replaces the FLOPs",
    )
    parser.add_argument("--images", type=int, metavar="N", help="in the shards, for their sizes (default a million)")
    parser.add_argument("--sentences", type=int, metavar="N", help="in the shards (default as many as images)")
    parser.add_argument("--short-side", type=int, default=256, metavar="PIXELS", help="of the pictures (default 256)")
    parser.add_argument("--jpeg-quality", type=int, default=90, help="75, 85, 90 or 95 (default 90)")
    parser.add_argument(
        "--views", type=int, default=1, metavar="K", help="crops per picture in the store (default 1, plain)"
    )
    parser.add_argument("--cores-per-gpu", type=int, metavar="N", help="that decode (default as many as needed)")
    parser.add_argument("--images-per-second-per-core", type=float, metavar="X", help="as `dime profile data` says")
    parser.add_argument("--pue", type=float, default=1.2, help="power of the building over its machines' (default 1.2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("overrides", nargs="*", help="key=value, as for the recipe")


def run_estimate(words: argparse.Namespace) -> None:
    """Print the tables; shards need not exist, as in a dry run."""
    from toolkit.config import resolve
    from toolkit.recipe import load_defaults

    run = resolve(load_defaults(words.recipe), [*words.overrides, "dry_run=true"])
    from toolkit.estimate.plan import Wishes

    wishes = Wishes(**{name: getattr(words, name) for name in FIELDS})
    from toolkit.estimate.hardware import cluster_of

    cluster_of(wishes.hardware, wishes.gpus, wishes.gpus_per_node, wishes.mfu, wishes.teacher_mfu)
    from toolkit.estimate.command import estimate_run  # a bad setting is told before torch is imported

    estimate_run(run, wishes, as_json=words.json)

"""Options of `dime profile`."""

import argparse


def add_profile(parser: argparse.ArgumentParser) -> None:
    """What there is to profile, and of which run."""
    parser.add_argument("what", choices=["data"], help="data: shards, decoding, views, tokens, batches")
    parser.add_argument("recipe", help="Python file with DEFAULTS and main, such as recipes/distill_vitb32.py")
    parser.add_argument("--samples", type=int, default=256, help="of each stream (default 256)")
    parser.add_argument(
        "--gpu-images-per-second",
        type=float,
        default=None,
        metavar="N",
        help="what one GPU of yours takes (speed/images_per_second of a run over its GPUs; default: estimates for an H100)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("overrides", nargs="*", help="key=value, as for the recipe")


def run_profile(words: argparse.Namespace) -> None:
    """Print the table and what it comes to."""
    from toolkit.config import resolve
    from toolkit.recipe import load_defaults

    run = resolve(load_defaults(words.recipe), words.overrides)
    from toolkit.profile import profile_data  # a bad setting is told before torch is imported

    profile_data(run, samples=words.samples, gpu_images_per_second=words.gpu_images_per_second, as_json=words.json)

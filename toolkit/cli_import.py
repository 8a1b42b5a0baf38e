"""Options of `dime import`."""

import argparse
from pathlib import Path


def add_import(parser: argparse.ArgumentParser) -> None:
    """What there is, what it is taken for, and where it goes."""
    parser.add_argument(
        "file", type=Path, help="weights: safetensors, a torch file of tensors, or the folder of a model"
    )
    parser.add_argument(
        "--layout",
        choices=["auto", "dimefm", "openai", "open_clip", "hugging_face"],
        default="auto",
        help="whose names the weights have; auto says what it took them for (default auto)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new folder: student.pretrained, teacher.name"
    )
    parser.add_argument("--architecture", metavar="NAME", help="open_clip name, for --layout open_clip")
    parser.add_argument(
        "--layer-norm-eps",
        type=float,
        metavar="X",
        help="which no weight shows (default as the layout says: dimefm 1e-5 for what its training script writes, 1e-12 for "
        "the released ViTs; hugging_face its config.json)",
    )
    parser.add_argument(
        "--mean-std",
        choices=["clip", "imagenet", "half"],
        default=None,
        help="of the pictures it was trained on (default as the layout says, mostly clip)",
    )
    parser.add_argument("--image-only", action="store_true", help="leave the text tower out, for a student without one")
    parser.add_argument("--json", action="store_true", help="print the card as one JSON object as the last line")


def run_import(words: argparse.Namespace) -> None:
    """Print what was found and how to use it."""
    from toolkit.imports import Wishes, import_weights

    wishes = Wishes(words.layout, words.architecture, words.layer_norm_eps, words.mean_std, words.image_only)
    import_weights(words.file, words.out, wishes, as_json=words.json)

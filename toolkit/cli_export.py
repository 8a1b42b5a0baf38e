"""Options of `dime export`."""

import argparse
import json
from pathlib import Path

TO = ("open_clip", "hugging_face", "onnx", "onnx_int8", "torch_export")


def add_export(parser: argparse.ArgumentParser) -> None:
    """Which run, into what, where to."""
    parser.add_argument("run", type=Path, help="folder of the run, or one of dime import")
    parser.add_argument("--to", required=True, choices=TO, help="the library that shall load it")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--checkpoint", default="newest", help="newest, best, or a checkpoint folder (default newest)")
    parser.add_argument(
        "--classes",
        type=Path,
        default=None,
        help="JSON with classnames and templates: bakes the head in, picture -> class probabilities (onnx, onnx_int8, torch_export)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("overrides", nargs="*", help="key=value, for example teacher.pretrained=FILE")


def run_export(words: argparse.Namespace) -> None:
    """Write the folder and print how well it agrees."""
    from toolkit.export.command import export_run, in_words

    record = export_run(
        words.run, words.to, words.out, which=words.checkpoint, classes=words.classes, overrides=words.overrides
    )
    print(in_words(record, words.out))
    if words.json:
        print(json.dumps(record))

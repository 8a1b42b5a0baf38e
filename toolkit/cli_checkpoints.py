"""`dime checkpoints RUN`."""

import argparse
import json
import sys
from pathlib import Path


def add_checkpoints(parser: argparse.ArgumentParser) -> None:
    """Its words."""
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run_checkpoints(words: argparse.Namespace) -> None:
    """Print the table; exit code 1 when a checkpoint is torn."""
    from toolkit.checkpoint.listing import in_words, listing

    found = listing(words.run)
    print(in_words(found))
    if words.json:
        print(json.dumps(found))
    if any(entry["complaint"] for entry in found["checkpoints"]):
        sys.exit(1)

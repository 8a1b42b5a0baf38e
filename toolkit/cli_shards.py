"""`dime shards images | texts | check`: the words of the command line and what is said at the end."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from toolkit.errors import DataError

T = TypeVar("T")


def add_shards(shards: argparse.ArgumentParser) -> None:
    """Give the verb its three kinds and their options."""
    kinds = shards.add_subparsers(dest="shards_verb", required=True, metavar="images|texts|check")
    for parser in (_add_images(kinds), _add_texts(kinds), _add_check(kinds)):
        parser.add_argument(
            "--workers", type=_number, default=0, help="processes (default one per core); the result is the same"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def _add_images(kinds: Any) -> argparse.ArgumentParser:
    images: argparse.ArgumentParser = kinds.add_parser(
        "images", help="from folders, tars, parquet tables, DIME-FM TSV files, img2dataset's output, other shards"
    )
    _add_sources(images, "folder, tar, webdataset, tsv, parquet", "1000")
    images.add_argument("--column", default="", help="column of the pictures in parquet tables that have several")
    images.add_argument(
        "--keep",
        type=_words,
        default=(),
        metavar="FIELDS",
        help="fields kept beside the picture, for pairs: txt, json, cls, txt=alt_text (default none); a picture without is left out",
    )
    images.add_argument(
        "--short-side", type=_number, default=0, help="shrink larger pictures to this (256, 288; default 0: do not)"
    )
    images.add_argument(
        "--jpeg-quality", type=_number, default=95, help="of pictures that are written anew (default 95)"
    )
    images.add_argument(
        "--dedupe",
        choices=("exact", "near", "none"),
        default="exact",
        help="same bytes, perceptual hash, or keep repeats (default exact)",
    )
    images.add_argument(
        "--near-distance", type=_number, default=3, help="with --dedupe near: bits of 64 that may differ (default 3)"
    )
    images.add_argument("--min-side", type=_number, default=0, help="leave out pictures with a shorter side below this")
    images.add_argument(
        "--max-pixels",
        type=_number,
        default=89_478_485,
        help="leave out larger pictures before decoding (default 89478485)",
    )
    return images


def _add_texts(kinds: Any) -> argparse.ArgumentParser:
    texts: argparse.ArgumentParser = kinds.add_parser(
        "texts", help="from parquet, CSV, JSONL, JSON, plain text, TSV, WebDataset, or class names x prompts"
    )
    _add_sources(texts, "tsv, parquet, csv, jsonl, json, txt, webdataset, classes", "10000")
    texts.add_argument(
        "--column", default="", help="column or key that holds the sentence; a number for files without header"
    )
    texts.add_argument(
        "--captions",
        choices=("all", "first"),
        default="all",
        help="of a TSV row with several (default all; first where features are given)",
    )
    texts.add_argument(
        "--classnames",
        default="",
        help="file of class names, a set of CLIP's (cifar10, food-101, ...), `clip` or `elevater` for all",
    )
    texts.add_argument(
        "--templates", default="", help="file of templates with {}, or a set of CLIP's (default the class names' own)"
    )
    texts.add_argument(
        "--dedupe",
        choices=("exact", "near", "none"),
        default="exact",
        help="same words, same but for case and punctuation, or keep repeats",
    )
    texts.add_argument(
        "--min-words",
        type=_number,
        default=3,
        help="leave out shorter sentences (default 3; class prompts are never too short)",
    )
    texts.add_argument("--max-words", type=_number, default=0, help="leave out longer sentences (default 0: no limit)")
    return texts


def _add_check(kinds: Any) -> argparse.ArgumentParser:
    check: argparse.ArgumentParser = kinds.add_parser(
        "check", help="shards against their index, and every sample; exit code 1 when something is wrong"
    )
    check.add_argument("folder", type=Path, metavar="DIR")
    check.add_argument("--fast", action="store_true", help="headers only: no hash, no picture decoded, no text read")
    check.add_argument(
        "--max-pixels", type=_number, default=89_478_485, help="larger pictures are wrong (default 89478485)"
    )
    return check


def _add_sources(parser: argparse.ArgumentParser, kinds: str, per_shard: str) -> None:
    parser.add_argument(
        "sources",
        nargs="*" if "classes" in kinds else "+",
        metavar="SRC",
        help="folders and files; recognised by what they hold",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the shards; run again with the same words, it goes on",
    )
    parser.add_argument("--format", choices=kinds.split(", "), default="", help="read every SRC as this")
    parser.add_argument("--samples-per-shard", type=_number, default=int(per_shard), help=f"default {per_shard}")
    parser.add_argument("--teacher-name", default="", help="whose the stored features (*.feat.tsv) among the SRC are")
    parser.add_argument("--store", default="", help="where stored features go (default DIR/teacher_store)")


def _number(word: str) -> int:
    """0 or more; argparse prints the message."""
    value = int(word.replace("_", ""))
    if value < 0:
        raise ValueError
    return value


def _words(word: str) -> tuple[str, ...]:
    """Of a list with commas."""
    return tuple(part.strip() for part in word.split(",") if part.strip())


def run_shards(words: argparse.Namespace) -> None:
    """Convert or check; with --json one object as the last line."""
    from toolkit.data.convert.pool import default_workers

    words.workers = words.workers or default_workers()
    try:
        {"images": _images, "texts": _texts, "check": _check}[words.shards_verb](words)
    except OSError as error:
        raise DataError(
            f"{error.filename or words}: {error.strerror or error}; see to that and run the same command again, what is done "
            "stays done"
        ) from error
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def _options(kind: Callable[..., T], words: argparse.Namespace) -> T:
    """The options whose fields are named as the words of the command line."""
    return kind(**{option.name: getattr(words, option.name) for option in fields(kind)})  # type: ignore[arg-type]


def _images(words: argparse.Namespace) -> None:
    from toolkit.data.convert.convert import convert_images
    from toolkit.data.convert.pictures import PictureOptions

    options = _options(PictureOptions, words)
    options.check()
    report = convert_images(
        words.sources,
        words.out,
        options,
        workers=words.workers,
        forced=words.format,
        column=words.column,
        teacher=words.teacher_name,
        store=words.store,
    )
    _say(
        report,
        words,
        f"{report['kept_as_they_were']:,} pictures kept byte for byte, {report['written_anew']:,} written anew",
    )


def _texts(words: argparse.Namespace) -> None:
    from toolkit.data.convert.convert_texts import convert_texts
    from toolkit.data.convert.sentences import SentenceOptions

    options = _options(SentenceOptions, words)
    options.check()
    report = convert_texts(
        words.sources,
        words.out,
        options,
        workers=words.workers,
        forced=words.format,
        classnames=words.classnames,
        templates=words.templates,
        teacher=words.teacher_name,
        store=words.store,
    )
    _say(report, words, "")


def _say(report: dict[str, Any], words: argparse.Namespace, how: str) -> None:
    """What came of it, in words and as JSON."""
    print(
        f"{report['samples']:,} of {report['inputs']:,} in {report['shards']:,} shards ({report['bytes']:,} bytes) in {words.out}"
    )
    if how:
        print(how)
    if report["left_out"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in report["left_out"].items())
        print(f"left out: {reasons} (each in {words.out / 'skipped.jsonl'})")
    if features := report.get("features"):
        missing = ", ".join(f"{count:,} {reason}" for reason, count in features["missing"].items()) or "none missing"
        print(f"{features['stored']:,} stored features in {features['store']} ({missing})")
    if words.json:
        print(json.dumps({"out": str(words.out), **{key: report[key] for key in report if key != "request"}}))


def _check(words: argparse.Namespace) -> None:
    from toolkit.data.convert.check import check_folder

    found = check_folder(words.folder, fast=words.fast, max_pixels=words.max_pixels, workers=words.workers, say=print)
    print(f"{found['samples']:,} samples in {found['shards']:,} shards: {found['wrong']:,} things wrong")
    if words.json:
        print(json.dumps(found))
    if found["wrong"]:
        sys.exit(1)

"""Options of `dime embed images | texts | verify`, and its launch on several processes."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.config import Augmentation, Teacher
from toolkit.errors import ConfigError

if TYPE_CHECKING:
    from toolkit.embed.command import Request

TEACHERS = """\
A teacher T is an open_clip name and tag or weights file (ViT-L-14-quickgelu:openai), a checkpoint folder, your own function and
its weights (package.module:function:weights.safetensors), or a recipe (its teacher and extra_teachers). Several --teacher make
an ensemble: the first is the main one (teacher.store=STORE), others are named, id=T, and lie in STORE/id
(extra_teachers.id.store=STORE/id). Killed and run again, the same command goes on with the shards that are missing.
"""


def add_embed(embed: argparse.ArgumentParser) -> None:
    """Give the verb its three kinds and their options."""
    kinds = embed.add_subparsers(dest="embed_verb", required=True, metavar="images|texts|verify")
    raw = argparse.RawDescriptionHelpFormatter
    images = kinds.add_parser(
        "images", help="pictures, plain or through recorded crops", epilog=TEACHERS, formatter_class=raw
    )
    _add_filling(images, "jpg;jpeg;png;webp")
    add = images.add_argument
    add(
        "--views",
        type=int,
        default=0,
        help="random crops per picture, recorded for the student (default 0: the plain view)",
    )
    add(
        "--crop-scale",
        type=float,
        nargs=2,
        default=(0.08, 1.0),
        metavar=("MIN", "MAX"),
        help="area of the crops (default 0.08 1)",
    )
    add(
        "--crop-ratio",
        type=float,
        nargs=2,
        default=(3 / 4, 4 / 3),
        metavar=("MIN", "MAX"),
        help="width over height (default 3/4 4/3)",
    )
    add("--flip", type=float, default=0.5, help="share of the crops that are mirrored (default 0.5)")
    add("--seed", type=int, default=0, help="of the crops (default 0)")
    add("--max-pixels", type=int, default=89_478_485, help="larger pictures are not decoded (default 89478485)")
    texts = kinds.add_parser("texts", help="sentences", epilog=TEACHERS, formatter_class=raw)
    _add_filling(texts, "txt")
    verify = kinds.add_parser("verify", help="encode a sample of a store again; exit code 1 when something is wrong")
    verify.add_argument("store", type=Path, metavar="STORE")
    verify.add_argument("--samples", type=int, default=64, help="per store (default 64)")
    verify.add_argument("--seed", type=int, default=0, help="which samples (default 0)")
    verify.add_argument("--teacher", default="", metavar="T", help="instead of the one in the manifest")
    verify.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def _add_filling(parser: argparse.ArgumentParser, keys: str) -> None:
    add = parser.add_argument
    add("shards", metavar="SHARDS", help="a folder, a brace pattern, or several joined by ::")
    add("--teacher", action="append", required=True, metavar="T", help="who encodes; several for an ensemble")
    add("--out", type=Path, required=True, metavar="STORE", help="folder of the store, the same for images and texts")
    add("--precision", choices=("bf16", "fp32"), default="bf16", help="of the teacher (default bf16)")
    add("--store-as", choices=("fp32", "bf16", "fp16", "int8"), default="bf16", help="of the rows (default bf16)")
    add("--key", default=keys, help=f"fields that may hold the sample (default {keys})")
    add("--batch-size", type=int, default=256, help="pictures or sentences per forward (default 256)")
    add("--workers", type=int, default=2, help="data processes of each process (default 2)")
    add("--processes", type=int, default=0, help="teachers at work (default one per GPU, else one)")
    add("--part", default="0/1", metavar="I/N", help="only every N-th shard from the I-th (from 0) on, for array jobs")
    add("--json", action="store_true", help="print one JSON object as the last line")


def run_embed(words: argparse.Namespace, argv: Sequence[str]) -> None:
    """Embed or verify; on several processes this command is started again by torchrun."""
    if words.embed_verb == "verify":
        from toolkit.embed.command import verify

        teacher = next(iter(teachers_of([words.teacher]).values())) if words.teacher else None
        if verify(words.store, words.samples, words.seed, teacher, as_json=words.json)["wrong"]:
            sys.exit(1)
        return
    from toolkit.embed.command import check, embed

    request = request_of(words)
    check(request)
    from toolkit import distributed

    if os.environ.get("SLURM_NTASKS", "1") != "1":  # one task per GPU; a single task may start a process per GPU itself
        distributed.adopt_slurm_ranks()
    processes = words.processes or gpus() or 1
    if processes > 1 and "RANK" not in os.environ:
        sys.exit(subprocess.run([*launcher(processes), *argv]).returncode)
    embed(request, as_json=words.json)


def request_of(words: argparse.Namespace) -> "Request":
    """From the words of the command line."""
    from toolkit.embed.command import Request

    try:
        i, n = (int(number) for number in words.part.split("/"))
    except ValueError:
        raise ConfigError(f"--part {words.part} is not I/N; for example --part 3/16") from None
    shared: dict[str, Any] = {
        "shards": words.shards, "out": words.out, "teachers": teachers_of(words.teacher), "precision": words.precision,
        "store_as": words.store_as, "keys": words.key, "workers": words.workers, "batch_size": words.batch_size, "part": (i, n),
    }  # fmt: skip
    if words.embed_verb == "texts":
        return Request("text", **shared)
    rules = Augmentation(tuple(words.crop_scale), tuple(words.crop_ratio), words.flip)
    crops = {"views": words.views, "augmentation": rules, "seed": words.seed, "max_pixels": words.max_pixels}
    return Request("image", **shared, **crops)


def teachers_of(words: Sequence[str]) -> dict[str, Teacher]:
    """By the folder of their stores, empty for the main one; raises ConfigError for what names nobody."""
    found: dict[str, Teacher] = {}
    for word in words:
        name, _, spec = word.rpartition("=")
        if spec.endswith(".py"):
            from toolkit.recipe import load_defaults

            run = load_defaults(spec)
            given = {name: run.teacher, **({} if name else run.extra_teachers)}
        else:
            given = {name: teacher_of(spec)}
        twice = [key for key in given if key in found]
        if twice:
            raise ConfigError(
                f"--teacher {word}: there is one {twice[0] or 'without a name'!s} already; name others, id=T"
            )
        found |= given
    if "" not in found:
        raise ConfigError("--teacher: none is the main teacher; give one without `id=`")
    return found


def teacher_of(spec: str) -> Teacher:
    """`name:tag`, `module:function:weights`, or a folder."""
    if Path(spec).is_dir() or spec.startswith(("hf-hub:", "local-dir:")):
        return Teacher(name=spec)
    name, _, last = spec.rpartition(":")
    if not name:
        return Teacher(name=spec)
    is_function = "." in name and ":" not in name and not Path(last).exists() and last.isidentifier()
    return Teacher(name=spec) if is_function else Teacher(name=name, pretrained=last)


def gpus() -> int:
    """Without starting CUDA here."""
    import torch

    return torch.cuda.device_count()


def launcher(processes: int) -> list[str]:
    """torchrun of this very command on this machine; accelerate takes the ranks from it."""
    found = gpus()
    if found and processes > found:
        raise ConfigError(f"--processes {processes}: this machine has {found} GPUs; give at most as many")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m", "toolkit.cli"
    ]  # fmt: skip

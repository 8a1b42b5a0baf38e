"""`dime export`: write aside, load back through the other library, compare, then give the folder its name."""

import json
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit import __version__
from toolkit.checkpoint import files
from toolkit.errors import ConfigError
from toolkit.evaluate.sets import Classes, read_classes
from toolkit.evaluate.zero_shot import class_head
from toolkit.export.formats import FORMATS, check_classifier, check_packages, check_student
from toolkit.export.int8 import Towers, loss_of_int8, student_towers
from toolkit.export.parity import BOUND, LoadedBack, compare, insist
from toolkit.export.preparing import write_preparing
from toolkit.export.source import Source, load_source

RECORD = "export.json"
LIBRARIES = ("torch", "open_clip_torch", "timm", "transformers", "onnx", "onnxscript", "onnxruntime")


def export_run(
    run: Path, to: str, out: Path, *, which: str = "newest", classes: Path | None = None, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Export the student of a run and return the record that lies beside it as `export.json`.

    `classes` bakes the head of a classes file in: picture -> class probabilities. Raises ConfigError for settings,
    ExportError where the format cannot hold the student or the export, loaded back, differs from it; then nothing is left.
    """
    check_packages(to)
    chosen = None
    if classes is not None:
        check_classifier(to)
        chosen = read_classes(str(classes), asked_by="--classes")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} exists and is not an empty folder; give another one, or remove it")
    source = load_source(run, which, overrides)
    check_student(to, source)
    aside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        record = written(source, to, aside, chosen)
        (aside / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        if out.exists():
            out.rmdir()
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return record


def written(source: Source, to: str, out: Path, classes: Classes | None) -> dict[str, Any]:
    """Write the files into `out`, load them back and compare; the record."""
    kind = FORMATS[to]
    head = None if classes is None else classifier_head(source, classes)
    kind.write(source, out, head)
    if not kind.prepared_by_library:
        write_preparing(source, out, classes.classnames if classes is not None else None)
    loaded = kind.read(out)
    record: dict[str, Any] = {"format": to, **source.facts()}
    if classes is not None:
        record["classes"] = {"classnames": classes.classnames, "templates": classes.templates}
    if to == "onnx_int8":
        record["int8"] = loss_of_int8(source, loaded, head)
    else:
        record["parity"] = parity_of(source, to, loaded, head)
    found = {path.name: files.written(path) for path in sorted(out.iterdir())}
    facts = {
        "bytes": {name: one.bytes for name, one in found.items()},
        "sha256": {name: one.sha256 for name, one in found.items()},
    }
    return {**record, **facts, "versions": versions()}


def parity_of(source: Source, to: str, loaded: LoadedBack, head: Tensor | None) -> dict[str, float]:
    """The differences with their bound; raises ExportError above it."""
    found = compare(source, loaded, head)
    insist(found, to)
    return {"bound": BOUND, **found}


@torch.no_grad()
def classifier_head(source: Source, classes: Classes) -> Tensor:
    """Zero-shot weights [k, e] of the classes times the logit scale; a bias is the same for all and falls out."""
    return class_head(Towers(source, student_towers(source)), classes) * source.logit_scale


def versions() -> dict[str, str]:
    """Of everything that had a part in it."""
    found = {"dime-fm-toolkit": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # of another format's extra
            continue
    return found


def in_words(record: dict[str, Any], out: Path) -> str:
    """What is printed."""
    total = sum(record["bytes"].values())
    lines = [
        f"{record['format']} export of {record['student']['name']} ({record['checkpoint']}) in {out}, {total:,} bytes"
    ]
    if "parity" in record:
        shown = ", ".join(f"{name} {value:.2e}" for name, value in record["parity"].items() if name != "bound")
        lines.append(f"loaded back and compared on random inputs (bound {record['parity']['bound']:.0e}): {shown}")
    for name, value in record.get("int8", {}).items():
        if name == "sets":
            lines += [
                f"int8 on {which}: top-1 {row['fp32_top1']:.2f} -> {row['int8_top1']:.2f} ({row['samples']:,} pictures)"
                for which, row in value.items()
            ]
        else:
            lines.append(f"int8 {name}: {value if isinstance(value, str) else f'{value:.6f}'}")
    if "licence" in record["text_tower"]:
        lines.append(record["text_tower"]["licence"])
    return "\n".join(lines)

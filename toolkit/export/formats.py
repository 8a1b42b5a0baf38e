"""The formats: what each needs, which students it refuses and why, how it is written and loaded back."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from toolkit.errors import ConfigError, ExportError
from toolkit.export import hugging_face, int8, onnx, open_clip, torch_export
from toolkit.export.parity import LoadedBack
from toolkit.export.source import Source


@dataclass(frozen=True)
class Format:
    """One value of --to."""

    write: Callable[[Source, Path, Tensor | None], None]
    """Source, folder, and the head of a classifier [k, e] where one is asked for."""
    read: Callable[[Path], LoadedBack]
    refusal: Callable[[Source], str] = lambda source: ""
    """Why a student cannot have this form, or an empty string."""
    packages: tuple[str, ...] = ()
    """Of the export extra."""
    classifier: bool = True
    """Can a head be baked in."""
    prepared_by_library: bool = False
    """Does the other library know how to prepare pictures and sentences; else `preprocessing.json` says it."""


FORMATS = {
    "open_clip": Format(
        lambda source, out, head: open_clip.write(source, out), open_clip.read, open_clip.refusal,
        classifier=False, prepared_by_library=True,
    ),
    "hugging_face": Format(
        lambda source, out, head: hugging_face.write(source, out), hugging_face.read, hugging_face.refusal,
        packages=("transformers",), classifier=False, prepared_by_library=True,
    ),
    "onnx": Format(onnx.write, onnx.read, packages=("onnx", "onnxscript", "onnxruntime")),
    "onnx_int8": Format(int8.write, onnx.read, packages=("onnx", "onnxscript", "onnxruntime")),
    "torch_export": Format(torch_export.write, torch_export.read),
}  # fmt: skip


def check_packages(to: str) -> None:
    """Raise ConfigError where the other library is not installed, before anything is loaded."""
    missing = [name for name in FORMATS[to].packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--to {to} needs {', '.join(missing)}, not installed here; pip install 'dime-fm-toolkit[export]'"
        )


def check_classifier(to: str) -> None:
    """Raise ConfigError where a format has no place for a head."""
    if not FORMATS[to].classifier:
        able = ", ".join(name for name, one in FORMATS.items() if one.classifier)
        raise ConfigError(f"--classes bakes a head in, for which --to {to} has no place; use --to {able}")


def check_student(to: str, source: Source) -> None:
    """Raise ExportError with the reason and the alternative where the student cannot have this form."""
    why = FORMATS[to].refusal(source)
    if why:
        able = [name for name in ("open_clip", "hugging_face") if name != to and not FORMATS[name].refusal(source)]
        raise ExportError(
            f"--to {to}: {why}; use --to {', '.join([*able, 'onnx'])} or torch_export, which take any student"
        )

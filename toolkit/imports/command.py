"""`dime import`: read, recognise, check every key, and write a folder that this toolkit loads."""

import json
import shlex
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from toolkit.config import Preprocess
from toolkit.errors import ConfigError
from toolkit.imports.clip import from_open_clip_file, from_openai
from toolkit.imports.detect import detect
from toolkit.imports.dimefm import from_dimefm
from toolkit.imports.fitting import check_fit
from toolkit.imports.found import Found
from toolkit.imports.hugging_face import from_hugging_face
from toolkit.imports.reading import Weights, read_weights
from toolkit.imports.shapes import CLIP_WORDS
from toolkit.models.build import WEIGHTS_NAME, build_model, from_folder, write_card
from toolkit.models.numerics import as_overrides, numerics

MEAN_STD: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "clip": (Preprocess().mean, Preprocess().std),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@dataclass(frozen=True)
class Wishes:
    """What the command line says beyond file and folder."""

    layout: str = "auto"
    architecture: str | None = None
    """Of open_clip, for its layout."""
    layer_norm_eps: float | None = None
    """None: as the layout says."""
    mean_std: str | None = None
    """A key of MEAN_STD; None: as the layout says."""
    image_only: bool = False
    """Leave the text tower out."""


def import_weights(path: Path, out: Path, wishes: Wishes | None = None, *, as_json: bool = False) -> dict[str, Any]:
    """Write `out`: student.safetensors (fp32, open_clip's names) and student.json. Prints what was found and how to use it.

    The folder gets its name only after it was loaded once and gave the same weights. Returns its card. Raises ConfigError for
    options and folders, CheckpointError for files; nothing is ever loaded in part.
    """
    wishes = wishes or Wishes()
    check_wishes(wishes, out)
    weights = read_weights(path)
    found, why = understood(weights, wishes)
    if wishes.image_only and found.text_tower:
        found = found.without_text()
    if wishes.mean_std is not None:
        mean, std = MEAN_STD[wishes.mean_std]
        found = replace(found, preprocess=replace(found.preprocess, mean=mean, std=std))
    words = found.kwargs.get("text_cfg", {}).get("vocab_size", CLIP_WORDS)
    if found.text_tower and found.layout != "open_clip" and words != CLIP_WORDS:
        raise ConfigError(
            f"{path} has a vocabulary of {words:,} tokens, CLIP's tokenizer {CLIP_WORDS:,}: sentences would be read wrongly; "
            "import its pictures' side with --image-only"
        )
    card = write_folder(found, weights, out)
    print("\n".join(in_words(found, weights, why, out, card)))
    if as_json:
        print(json.dumps(card))
    return card


def check_wishes(wishes: Wishes, out: Path) -> None:
    """Raise ConfigError for what needs no file to be seen wrong."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} exists and is not an empty folder; name a new one, or remove it")
    if wishes.layer_norm_eps is not None and not 0 < wishes.layer_norm_eps < 1:
        raise ConfigError(f"--layer-norm-eps {wishes.layer_norm_eps:g} must lie between 0 and 1, such as 1e-5")
    if wishes.architecture is not None and wishes.layout not in ("auto", "open_clip"):
        raise ConfigError(
            f"--architecture goes with --layout open_clip; weights of {wishes.layout} say theirs, leave it out"
        )


def understood(weights: Weights, wishes: Wishes) -> tuple[Found, str]:
    """(the model, why this layout)."""
    layout, why = (wishes.layout, "as you say") if wishes.layout != "auto" else detect(weights, wishes.architecture)
    if wishes.architecture is not None and layout != "open_clip":
        raise ConfigError(f"--architecture goes with --layout open_clip; {weights.path} is {layout} ({why})")
    eps = wishes.layer_norm_eps
    if layout == "dimefm":
        return from_dimefm(weights, eps), why
    if layout == "openai":
        return from_openai(weights, eps), why
    if layout == "open_clip":
        return from_open_clip_file(weights, wishes.architecture, eps), why
    return from_hugging_face(weights, eps, wishes.image_only), why


def write_folder(found: Found, weights: Weights, out: Path) -> dict[str, Any]:
    """Build the model, check every key, write aside, load that, compare, rename."""
    asked_by = f"--layout {found.layout}"
    model = build_model(
        found.name,
        found.kwargs,
        embed_dim=found.embed_dim,
        text_tower=found.text_tower,
        image_size=found.preprocess.image_size,
        asked_by=asked_by,
    )
    model.preprocess = found.preprocess
    check_fit(found, model.module.state_dict(), str(weights.path))
    aside = out.with_name(f".{out.name}.importing")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        save_file({key: value.contiguous() for key, value in found.weights.items()}, aside / WEIGHTS_NAME)
        imported = {
            "layout": found.layout,
            "source": str(weights.path.absolute()),
            "sha256": weights.sha256,
            "dropped": found.dropped,
            "notes": list(found.notes),
        }
        write_card(
            model,
            found.kwargs,
            found.text_tower,
            aside,
            numerics=numerics(model.module),
            imported=imported,
        )
        again = from_folder(aside, asked_by=asked_by)
        for key, value in again.module.state_dict().items():
            assert torch.equal(value, found.weights[key].to(value.dtype)), key
        assert numerics(again.module) == numerics(model.module)
        if out.exists():
            out.rmdir()  # empty, as was checked
        aside.rename(out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    card: dict[str, Any] = json.loads((out / "student.json").read_text())
    return card


def in_words(found: Found, weights: Weights, why: str, out: Path, card: dict[str, Any]) -> list[str]:
    """What was found, what was left out, and how to use it."""
    shown = asdict(found.preprocess)
    count = sum(value.numel() for value in found.weights.values())
    lines = [
        f"layout {found.layout}: {why}",
        f"model {found.name}, width {found.embed_dim}, {len(found.weights)} tensors with {count:,} numbers, "
        f"{'image and text towers' if found.text_tower else 'image tower alone'}",
        *found.notes,
        f"pictures: {shown['image_size']} pixels, mean {list(shown['mean'])}, deviation {list(shown['std'])}, "
        f"{shown['interpolation']}, {shown['resize_mode']}",
    ]
    if weights.wrappers:
        lines.append(f"taken from under {' / '.join(weights.wrappers)}")
    if weights.beside:
        lines.append(f"left out: {', '.join(weights.beside)} (beside the weights)")
    for reason, keys in found.dropped.items():
        lines.append(f"left out: {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''} ({len(keys)}: {reason})")
    lines.append(f"written to {out}. Use it as")
    lines.append(f"  {as_overrides(card)} {shlex.quote(f'student.pretrained={out}')}")
    if found.text_tower:
        lines.append(f"  {shlex.quote(f'teacher.name={out}')}")
    lines.append(
        f"  dime evaluate {shlex.quote(str(out))} "
        + ("" if found.text_tower else "teacher.name=... ")
        + "evaluation.sets...."
    )
    return lines

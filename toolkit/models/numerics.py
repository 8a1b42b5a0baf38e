"""What of a network its weights do not show: two networks with the same keys and shapes may still compute different things."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from toolkit.config import Preprocess
from toolkit.errors import ConfigError
from toolkit.models.build import CARD_NAME, WEIGHTS_NAME, read_card
from toolkit.models.contract import Model

ACTIVATIONS = ("GELU", "QuickGELU", "ReLU", "SiLU")


def numerics(module: nn.Module) -> dict[str, list[Any]]:
    """The epsilons of its LayerNorms and the names of its activations, each once, in order."""
    return {
        "layer_norm_eps": sorted({part.eps for part in module.modules() if isinstance(part, nn.LayerNorm)}),
        "activations": sorted({type(part).__name__ for part in module.modules()} & set(ACTIVATIONS)),
    }


def is_imported(folder: Path) -> bool:
    """Is it a folder of `dime import`, by its card."""
    return (folder / CARD_NAME).is_file() and "imported" in read_card(folder)


def fit_imported(model: Model, pretrained: Path) -> None:
    """Give a student that starts from an imported folder (or the weights in one) the mean, deviation and resizing of it.

    Raises ConfigError when the folder's network computes something else from the same weights.
    """
    folder = pretrained.parent if pretrained.name == WEIGHTS_NAME else pretrained
    if not is_imported(folder):
        return
    card = read_card(folder)
    wanted, own = card["numerics"], numerics(model.module)
    if wanted != own:
        raise ConfigError(
            f"student.pretrained={pretrained} was trained with {in_words(wanted)}, the student has {in_words(own)}: the weights "
            f"would load and compute something else; set {as_overrides(card)}"
        )
    seen: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in card["preprocess"].items()}
    model.preprocess = replace(Preprocess(**seen), image_size=model.preprocess.image_size)


def in_words(found: dict[str, list[Any]]) -> str:
    """For messages."""
    eps = ", ".join(f"{value:g}" for value in found["layer_norm_eps"]) or "none"
    return f"LayerNorm eps {eps} and {', '.join(found['activations']) or 'no activation that is known'}"


def as_overrides(card: dict[str, Any]) -> str:
    """Settings of a run whose student is that of the card, ready for a shell."""
    words = [
        f"student.name={card['name']}",
        f"student.embed_dim={card['embed_dim']}",
        *flat("student.kwargs", card["kwargs"]),
    ]
    if card["text_tower"]:
        words.append("student.text_tower=true")
    return " ".join(shlex.quote(word) for word in words)


def flat(where: str, values: dict[str, Any]) -> list[str]:
    """Nested values as `a.b=value`, each value as YAML."""
    words: list[str] = []
    for key, value in values.items():
        if isinstance(value, dict):
            words += flat(f"{where}.{key}", value)
        else:
            shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
            words.append(f"{where}.{key}={shown}")
    return words

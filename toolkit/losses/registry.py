"""Names of losses, and the weighted sum of a run's terms."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.config import LossOptions
from toolkit.embeddings import Embeddings, Exchange
from toolkit.errors import ConfigError
from toolkit.losses.contrastive import Contrastive
from toolkit.losses.dime import PVL, VL, UDist
from toolkit.losses.feature import Feature
from toolkit.registry import did_you_mean

LOSSES: dict[str, type[nn.Module]] = {
    "vl": VL,
    "pvl": PVL,
    "udist": UDist,
    "feature": Feature,
    "contrastive": Contrastive,
}


def build_loss(name: str, **options: Any) -> nn.Module:
    """A loss, called as `loss(student, teacher, exchange=LOCAL)` with `Embeddings`; unweighted, a 0-d tensor.

    Raises ConfigError for an unknown name or option.
    """
    if name not in LOSSES:
        raise ConfigError(f"no loss named {name!r}{did_you_mean(name, LOSSES)}; known: {', '.join(LOSSES)}")
    try:
        return LOSSES[name](**options)
    except TypeError as error:
        raise ConfigError(f"loss {name!r} does not take {options}: {error}") from error


class LossSum(nn.Module):
    """The terms of a run, weighted and summed: the one place where weights are applied."""

    def __init__(self, terms: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        """`terms` and `weights` share their keys; a term of weight 0 is left out before, it is never computed."""
        super().__init__()
        self.terms = nn.ModuleDict(terms)
        self.weights = dict(weights)

    @property
    def needs(self) -> frozenset[str]:
        """What any of the terms cannot do without."""
        return frozenset().union(*(getattr(term, "needs", ()) for term in self.terms.values()))

    def forward(
        self, student: Embeddings, teacher: Embeddings | None, exchange: Exchange
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum (0-d) and each term's unweighted value, in fp32 whatever autocast says."""
        device = next(x for x in (student.image, student.text) if x is not None).device
        with torch.autocast(device.type, enabled=False):
            values = {name: term(student, teacher, exchange=exchange) for name, term in self.terms.items()}
            total = torch.stack([self.weights[name] * value for name, value in values.items()]).sum()
        return total, values


def build_losses(options: Mapping[str, LossOptions]) -> LossSum:
    """The sum of a run's `losses` section, without the terms of weight 0."""
    active = {name: chosen for name, chosen in options.items() if chosen.weight}
    terms = {}
    for name, chosen in active.items():
        own = {key: value for key, value in asdict(chosen).items() if key not in ("kind", "weight")}
        terms[name] = build_loss(chosen.kind or name, **own)
    return LossSum(terms, {name: chosen.weight for name, chosen in active.items()})

"""Names of losses, and the weighted sum of a run's terms."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from toolkit.config import LossOptions
from toolkit.embeddings import LOCAL, Embeddings, Exchange
from toolkit.errors import ConfigError
from toolkit.losses.augmented import AFD
from toolkit.losses.contrastive import Contrastive
from toolkit.losses.dime import PVL, VL, UDist
from toolkit.losses.dual_head import DualHead
from toolkit.losses.feature import FD, MFD, Feature
from toolkit.losses.gradient import GD
from toolkit.losses.interactive import ICL, CrossKD
from toolkit.losses.observe import gradient_shares, watching
from toolkit.losses.queue_pvl import QueuePVL
from toolkit.losses.relational import CRD, Affinity, EnsembleKL, OpenClipDistil
from toolkit.losses.siglip_soft import SiglipSoft
from toolkit.losses.standardised import CosSmoothL1, PhiS
from toolkit.registry import did_you_mean

LOSSES: dict[str, type[nn.Module]] = {
    "vl": VL,
    "pvl": PVL,
    "udist": UDist,
    "feature": Feature,
    "contrastive": Contrastive,
    "fd": FD,
    "mfd": MFD,
    "crd": CRD,
    "affinity": Affinity,
    "open_clip_distil": OpenClipDistil,
    "ensemble_kl": EnsembleKL,
    "icl": ICL,
    "cross_kd": CrossKD,
    "gd": GD,
    "afd": AFD,
    "siglip_soft": SiglipSoft,
    "queue_pvl": QueuePVL,
    "cos_smooth_l1": CosSmoothL1,
    "phi_s": PhiS,
    "dual_head": DualHead,
}


NOT_OF_THE_CLASS = ("kind", "weight", "final_weight", "weight_schedule")
"""Options that the sum applies, not the loss."""


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


class LossGradients(NamedTuple):
    """Gradients of the weighted sum on this rank: by the student's features, its logit scale, the losses' parameters."""

    features: dict[str, Tensor]
    logit_scale: Tensor | None
    parameters: Sequence[Tensor | None]


class LossOutput(NamedTuple):
    """`total` (0-d) is the weighted sum, `terms` the unweighted values, `seen` what was observed of each term."""

    total: Tensor
    terms: dict[str, Tensor]
    seen: dict[str, Tensor]
    gradients: LossGradients | None = None


class LossSum(nn.Module):
    """The terms of a run, weighted and summed: the one place where weights are applied."""

    def __init__(self, terms: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        """`terms` and `weights` share their keys; a term of weight 0 is left out before, it is never computed."""
        super().__init__()
        self.terms = nn.ModuleDict(terms)
        self.weights = dict(weights)
        """May be changed from step to step."""

    @property
    def needs(self) -> frozenset[str]:
        """What any of the terms cannot do without."""
        return frozenset().union(*(getattr(term, "needs", ()) for term in self.terms.values()))

    @property
    def mask_fraction(self) -> float | None:
        """Share of patches to blank for the terms that need a masked view, None if there are none."""
        asked: list[Any] = [
            term.mask_fraction for term in self.terms.values() if "masked_view" in getattr(term, "needs", ())
        ]
        return max(asked, default=None)

    def forward(
        self,
        student: Embeddings | None = None,
        teacher: Embeddings | None = None,
        exchange: Exchange = LOCAL,
        *,
        observe: bool = False,
        leaves: dict[str, Tensor] | None = None,
        pull: Sequence[Tensor | None] | None = None,
    ) -> Any:
        """LossOutput of the embeddings, in fp32 whatever autocast says; `observe` fills `seen` (costs a little).

        With `leaves` (the student's features) the output has no graph, but its gradients. With `pull` (gradients by the
        parameters of the losses) only the scalar whose gradient they are.
        """
        if pull is not None:
            pulled = [(p * (0 if g is None else g)).sum() for p, g in zip(self.trainable(), pull, strict=True)]
            return torch.stack(pulled).sum()
        assert student is not None
        device = next(x for x in (student.image, student.text) if x is not None).device
        with torch.autocast(device.type, enabled=False):
            values: dict[str, Tensor] = {}
            seen: dict[str, Tensor] = {}
            for name, term in self.terms.items():
                with watching(observe) as noted:
                    values[name] = term(student, teacher, exchange=exchange)
                seen |= {f"{name}_{what}": value for what, value in noted.items()}
            weighted = {name: self.weights[name] * value for name, value in values.items()}
            total = torch.stack(list(weighted.values())).sum()
            if observe:
                seen |= gradient_shares(weighted, student)
            if leaves is None:
                return LossOutput(total, values, seen)
            gradients = self.gradients(total, leaves, student.logit_scale)
        return LossOutput(total.detach(), {name: value.detach() for name, value in values.items()}, seen, gradients)

    def gradients(self, total: Tensor, leaves: dict[str, Tensor], scale: Tensor | None) -> LossGradients:
        """By the leaves, zero where the losses do not look at one; by the rest, None there."""
        parameters = self.trainable()
        inputs = [*leaves.values(), *parameters, *([] if scale is None else [scale])]
        found = list(torch.autograd.grad(total, inputs, allow_unused=True))
        by_scale = None if scale is None else found.pop()
        features = {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), found, strict=False)
        }
        return LossGradients(features, by_scale, found[len(leaves) :])

    def trainable(self) -> list[nn.Parameter]:
        """The losses' own parameters."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


def build_losses(
    options: Mapping[str, LossOptions],
    *,
    embed_dim: int | None = None,
    class_embeddings: Callable[[str], Tensor] | None = None,
) -> LossSum:
    """The sum of a run's `losses` section, without the terms that have no weight at any step.

    `embed_dim`, and `class_embeddings` (path of a classes file -> [k, e]), are for the losses with parameters of that size.
    """
    active = {name: chosen for name, chosen in options.items() if chosen.weight or chosen.final_weight}
    terms = {}
    for name, chosen in active.items():
        kind = chosen.kind or name
        own = {key: value for key, value in vars(chosen).items() if key not in NOT_OF_THE_CLASS}
        wanted: frozenset[str] = getattr(LOSSES[kind], "built_with", frozenset())
        if "embed_dim" in wanted:
            own["embed_dim"] = embed_dim
        if "class_embeddings" in wanted:
            assert class_embeddings is not None
            own["class_embeddings"] = class_embeddings(own.pop("classes"))
        terms[name] = build_loss(kind, **own)
    return LossSum(terms, {name: chosen.weight for name, chosen in active.items()})

"""What a person wants to know of a term beside its value: how sharp its targets are, how often the student agrees."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from toolkit.embeddings import Embeddings
from toolkit.kernels import Target

SAMPLE = 256
"""Rows that are looked at; all columns are."""
_notes: list[dict[str, Tensor]] | None = None
"""Where `note` writes while somebody is watching."""


@contextmanager
def watching(really: bool = True) -> Iterator[dict[str, Tensor]]:
    """Collects what the similarity-KLs inside note; the dictionary is filled on leaving, means over several of them."""
    global _notes
    found: dict[str, Tensor] = {}
    if not really:
        yield found
        return
    before, _notes = _notes, []
    try:
        yield found
        for name in _notes[0] if _notes else ():
            found[name] = torch.stack([each[name] for each in _notes]).mean()
    finally:
        _notes = before


@torch.no_grad()
def note(rows: Tensor, columns: Tensor, targets: Sequence[Target], logit_scale: float | Tensor) -> None:
    """If somebody is watching: entropy of the targets (nats) and top-1 agreement on the first rows of this rank."""
    if _notes is None or not targets:
        return
    some = slice(0, SAMPLE)
    student = rows[some] @ columns.T * logit_scale
    p = sum((t.rows[some] @ t.columns.T * t.logit_scale).softmax(-1) for t in targets) / len(targets)
    assert isinstance(p, Tensor)
    entropy = -torch.special.xlogy(p, p).sum(-1).mean()
    agreement = (p.argmax(-1) == student.argmax(-1)).float().mean()
    _notes.append({"target_entropy": entropy.float(), "top1_agreement": agreement})


def gradient_shares(weighted: dict[str, Tensor], student: Embeddings) -> dict[str, Tensor]:
    """`<term>_gradient_share`: norm of each weighted term's gradient by the student's features, over the sum of them all.

    Of this rank's rows; with several ranks a collective, since columns have gradients on other ranks.
    """
    features = [f for f in (student.image, student.text, student.masked_image) if f is not None and f.requires_grad]
    norms = {}
    for name, value in weighted.items():
        if not value.requires_grad:
            norms[name] = value.new_zeros(())
            continue
        found = torch.autograd.grad(value, features, retain_graph=True, allow_unused=True)
        norms[name] = (
            torch.stack([g.pow(2).sum() if g is not None else value.new_zeros(()) for g in found]).sum().sqrt()
        )
    total = torch.stack(list(norms.values())).sum().clamp_min(1e-30)
    return {f"{name}_gradient_share": norm / total for name, norm in norms.items()}

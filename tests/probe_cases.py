"""Made-up features for the tests of linear probes."""

import torch

from toolkit.evaluate.probe.features import Labelled


def made_up(
    train: int,
    test: int,
    *,
    classes: int,
    width: int,
    multi_label: bool = False,
    noise: float = 0.7,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> tuple[Labelled, Labelled]:
    """(training, test): unit vectors around a direction per class; a 0/1 matrix of classes when `multi_label`."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    count = train + test
    if multi_label:
        labels = (torch.rand(count, classes, generator=generator) < 0.4).long()
        pure = labels.double() @ centres
    else:
        labels = torch.arange(count) % classes
        pure = centres[labels]
    features = pure + noise * torch.randn(count, width, generator=generator, dtype=torch.float64)
    features = (features / features.norm(dim=1, keepdim=True)).to(dtype)
    return Labelled(features[:train], labels[:train]), Labelled(features[train:], labels[train:])

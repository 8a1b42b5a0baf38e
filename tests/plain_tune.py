"""One fine-tuning written out: the update by hand, and nothing of ours but the batches."""

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tune_cases import seen

from toolkit.evaluate.probe.grid import Point
from toolkit.evaluate.probe.trials import epoch_batches


def plain_epochs(
    tower: nn.Module,
    head: Tensor,
    point: Point,
    views: Tensor,
    labels: Tensor,
    judged: Tensor,
    epochs: int,
    batch_size: int,
    *,
    tower_factor: float = 1.0,
    seed: int = 0,
) -> Iterator[tuple[Tensor, float]]:
    """(logits [n, k] of `judged`, mean loss while training) after each epoch; `views` and `judged` are uint8."""
    tower = copy.deepcopy(tower).train()
    weight, bias = head.clone().requires_grad_(), torch.zeros(len(head), dtype=head.dtype, requires_grad=True)
    mean, variance = torch.zeros_like(head[0]), torch.ones_like(head[0])
    rates = {weight: point.learning_rate, bias: point.learning_rate}
    rates |= {part: tower_factor * point.learning_rate for part in tower.visual.parameters()}
    velocities = {part: torch.zeros_like(part) for part in rates}
    for epoch in range(epochs):
        total = 0.0
        for rows in epoch_batches(len(views), batch_size, seed, epoch):
            features = tower.encode_image(seen(views[rows], head.dtype))
            features = features / features.norm(dim=1, keepdim=True)
            centre, spread = features.mean(dim=0), features.var(dim=0, unbiased=False)
            mean = 0.9 * mean + 0.1 * centre.detach()
            variance = 0.9 * variance + 0.1 * features.detach().var(dim=0, unbiased=True)
            logits = (features - centre) / (spread + 1e-5).sqrt() @ weight.T + bias
            if labels.ndim == 2:
                chance, truth = logits.sigmoid(), labels[rows].to(head.dtype)
                loss = -(truth * chance.log() + (1 - truth) * (1 - chance).log()).mean()
            else:
                loss = -logits.log_softmax(dim=1)[torch.arange(len(rows)), labels[rows]].mean()
            slopes = torch.autograd.grad(loss, list(rates))
            with torch.no_grad():
                for (part, rate), slope in zip(rates.items(), slopes, strict=True):
                    velocities[part] = 0.9 * velocities[part] + slope + point.weight_decay * part
                    part -= rate * velocities[part]
            total += float(loss.detach()) * len(rows)
        tower.eval()
        with torch.no_grad():
            features = F.normalize(tower.encode_image(seen(judged, head.dtype)), dim=1)
            yield (features - mean) / (variance + 1e-5).sqrt() @ weight.T + bias, total / len(views)
        tower.train()

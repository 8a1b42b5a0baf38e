"""One linear head trained by torch's own modules and optimizer, a batch at a time: slow, and nothing of ours but the batches."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.evaluate.probe.features import Labelled, Start
from toolkit.evaluate.probe.grid import Point
from toolkit.evaluate.probe.trials import epoch_batches


class Plain(nn.Module):
    """(projection, unit length), BatchNorm without affine, linear."""

    def __init__(self, start: Start) -> None:
        super().__init__()
        classes, width = start.weight.shape
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.head = nn.Linear(width, classes)
        self.projection = None if start.projection is None else nn.Parameter(start.projection.clone())
        self.to(start.weight.dtype)
        with torch.no_grad():
            self.head.weight.copy_(start.weight)
            self.head.bias.copy_(start.bias)

    def forward(self, features: Tensor) -> Tensor:
        if self.projection is not None:
            features = F.normalize(features @ self.projection, dim=1)
        return self.head(self.norm(features))


def plain_epochs(
    start: Start, point: Point, train: Labelled, judged: Tensor, epochs: int, batch_size: int, seed: int = 0
) -> Iterator[Tensor]:
    """Logits [n, k] of `judged` after each epoch."""
    model = Plain(start)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=point.learning_rate, momentum=0.9, weight_decay=point.weight_decay
    )
    for epoch in range(epochs):
        model.train()
        for rows in epoch_batches(len(train), batch_size, seed, epoch):
            logits, labels = model(train.features[rows]), train.labels[rows]
            if labels.ndim == 2:
                loss = nn.BCEWithLogitsLoss()(logits, labels.to(logits.dtype))
            else:
                loss = nn.CrossEntropyLoss()(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            yield model(judged)

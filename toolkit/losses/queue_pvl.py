"""Pseudo vision-language with a memory of teacher features (LightlyTrain's distillation)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toolkit.embeddings import LOCAL, Embeddings, Exchange
from toolkit.kernels import Target
from toolkit.losses.dime import needed
from toolkit.losses.similarity_kl import similarity_kl


class QueuePVL(nn.Module):
    """KL(softmax(v Q' / tau) || softmax(z Q' / tau)), Q the last `size` teacher image features of the global batches.

    `pvl` with a memory and without its factor 2. 0 when student equals teacher. The temperature tau 0.07 divides the
    cosines, no scale, no factor of it squared. The global batch is put into the queue first, then compared with what the
    queue holds: in full once it has been filled. In eval mode the queue stays as it is, and where it is empty the batch
    stands in for it. All ranks hold the same queue, which is saved with the run. LightlyTrain, distillation v1 (whose queue
    is each GPU's own).
    """

    needs = frozenset({"teacher"})
    built_with = frozenset({"embed_dim"})
    queue: Tensor
    seen: Tensor

    def __init__(self, embed_dim: int, size: int = 8192, temperature: float = 0.07) -> None:
        """`embed_dim` is the teacher's width."""
        super().__init__()
        self.logit_scale = 1 / temperature
        self.register_buffer("queue", torch.zeros(size, embed_dim))
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int64))  # ever put in; the next goes to seen % size

    def forward(self, student: Embeddings, teacher: Embeddings, exchange: Exchange = LOCAL) -> Float[Tensor, ""]:
        """Needs student.image and teacher.image, of one width."""
        z, v = needed(student.image), needed(teacher.image)
        columns = self.columns(exchange.gather(v).detach())
        return similarity_kl(z, columns, Target(v, columns, self.logit_scale), logit_scale=self.logit_scale)

    @torch.no_grad()
    def columns(self, batch: Float[Tensor, "n e"]) -> Float[Tensor, "m e"]:
        """The filled part of the queue, after the global batch went in."""
        seen, size = int(self.seen), len(self.queue)  # waits for the device: 8 bytes, next to a step's check for NaN
        if self.training:
            newest = batch[-size:]
            first = seen + len(batch) - len(newest)
            places = torch.arange(first, first + len(newest), device=batch.device) % size
            self.queue[places] = newest.to(self.queue.dtype)
            self.seen += len(batch)
            seen += len(batch)
        return self.queue[: min(seen, size)].to(batch.dtype) if seen else batch

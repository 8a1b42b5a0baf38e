"""Features of pictures and heads of classes, each computed once: shared out over the ranks, kept on disk."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from toolkit import distributed, heartbeat
from toolkit.data.benchmarks.split import Split
from toolkit.data.benchmarks.views import SplitViews
from toolkit.embeddings import unit
from toolkit.evaluate.judged import Judged
from toolkit.evaluate.models import Encoder
from toolkit.evaluate.sets import rank_loader
from toolkit.evaluate.suite.cache import Cache
from toolkit.evaluate.suite.progress import Progress
from toolkit.evaluate.zero_shot import encode_texts


@dataclass(frozen=True)
class Embedder:
    """How features are computed, for all sets and models of a command."""

    cache: Cache
    batch_size: int = 64
    workers: int = 2

    @torch.no_grad()
    def images(
        self, judged: Judged, split: Split, squash: bool, earlier: Callable[[Tensor], Tensor] | None = None
    ) -> Float[Tensor, "n e"]:
        """Unit-norm fp32 features of a whole split on the CPU of every rank; a collective.

        `earlier` encodes pictures in the place of `encode_image`: features before the projection, not unit norm.
        """
        key = {
            "model": judged.sha256, "copy": split.fingerprint, "squash": squash, "view": plain(judged.encoder),
            "before_projection": earlier is not None,
        }  # fmt: skip
        found = self.cache.shared("features", key)
        if found is not None:
            return found[0]["features"]
        features = self._encode(judged, split, squash, earlier or judged.encoder.encode_image)
        if distributed.is_main():
            self.cache.put("features", key, {"features": features}, {"set": split.name, "split": split.split})
        return features

    def _encode(self, judged: Judged, split: Split, squash: bool, encode: Callable[[Tensor], Tensor]) -> Tensor:
        data = SplitViews(split, judged.encoder.preprocess, squash)
        progress = Progress(f"{judged.name} on {split.name} {split.split}", len(split), "pictures")
        rows = []
        for batch in progress.waiting(rank_loader(data, self.batch_size, self.workers)):
            heartbeat.alive()
            rows.append(encode(batch["images"]))
            progress.add(len(rows[-1]) * distributed.world())
        progress.close()
        return distributed.gather_rows(torch.cat(rows))[: len(split)].float().cpu()

    @torch.no_grad()
    def texts(self, judged: Judged, sentences: Sequence[str], what: str) -> Float[Tensor, "m e"]:
        """Unit-norm fp32 features of sentences on the CPU of every rank; a collective."""
        key = {"model": judged.text_sha256 or judged.sha256, "sentences": list(sentences)}
        found = self.cache.shared("texts", key)
        if found is not None:
            return found[0]["features"]
        features = encode_shared(judged.encoder, sentences)
        if distributed.is_main():
            self.cache.put("texts", key, {"features": features}, {"what": what})
        return features

    def head(self, judged: Judged, classnames: Sequence[str], templates: Sequence[str]) -> Float[Tensor, "k e"]:
        """One unit vector per class: prompts normalised, averaged over the templates, normalised again; a collective."""
        prompts = [template.replace("{}", name) for name in classnames for template in templates]
        features = self.texts(judged, prompts, "prompts")
        return unit(features.view(len(classnames), len(templates), -1).mean(dim=1))


def encode_shared(encoder: Encoder, sentences: Sequence[str]) -> Tensor:
    """Each rank encodes its share, the last sentence repeated where they do not divide."""
    rank, world = distributed.rank(), distributed.world()
    each = -(-len(sentences) // world)
    mine = [sentences[min(row, len(sentences) - 1)] for row in range(rank * each, (rank + 1) * each)]
    return distributed.gather_rows(encode_texts(encoder, mine))[: len(sentences)].float().cpu()


def plain(encoder: Encoder) -> dict[str, Any]:
    """Its preprocessing as JSON holds it."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(encoder.preprocess).items()}

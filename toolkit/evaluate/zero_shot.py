"""Zero-shot classification from prompts, as CLIP and ELEVATER do it."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from toolkit.embeddings import unit
from toolkit.evaluate.models import Encoder
from toolkit.evaluate.sets import Classes, read_classes

PROMPTS_PER_FORWARD = 256


@torch.no_grad()
def class_head(encoder: Encoder, classes: Classes) -> Float[Tensor, "k e"]:
    """One unit vector per class: every template filled in and encoded, normalised, averaged, normalised again."""
    prompts = [template.replace("{}", name) for name in classes.classnames for template in classes.templates]
    features = encode_texts(encoder, prompts)
    return unit(features.view(len(classes.classnames), len(classes.templates), -1).mean(dim=1))


def class_embeddings(encoder: Encoder | None) -> Callable[[str], Float[Tensor, "k e"]]:
    """The class head by the path of its classes file, for losses that start from it."""

    def head(path: str) -> Float[Tensor, "k e"]:
        assert encoder is not None  # a loss that asks for classes needs a teacher, and the config has said so
        return class_head(encoder, read_classes(path, asked_by="losses.*.classes"))

    return head


@torch.no_grad()
def encode_texts(encoder: Encoder, texts: Sequence[str]) -> Float[Tensor, "m e"]:
    """Unit-norm embeddings of sentences, in chunks."""
    tokenize = encoder.tokenizer()
    chunks = [texts[i : i + PROMPTS_PER_FORWARD] for i in range(0, len(texts), PROMPTS_PER_FORWARD)]
    return torch.cat([encoder.encode_text(tokenize(chunk)) for chunk in chunks])


def zero_shot_metrics(
    image_features: Float[Tensor, "n e"],
    head: Float[Tensor, "k e"],
    labels: Int[Tensor, " n"],
    groups: dict[str, list[int]],
) -> dict[str, float]:
    """`top1`, `top5` in percent over all classes, and `<group>_top1` on the pictures whose class is in the group."""
    ranked = (image_features @ head.T).topk(min(5, len(head)), dim=-1).indices
    hit = ranked == labels[:, None]
    metrics = {"top1": percent(hit[:, 0]), "top5": percent(hit.any(dim=1))}
    for name, numbers in groups.items():
        inside = torch.isin(labels, torch.tensor(numbers, device=labels.device))
        if bool(inside.any()):
            metrics[f"{name}_top1"] = percent(hit[inside, 0])
    return metrics


def percent(hits: Tensor) -> float:
    """Share of true entries, 0..100."""
    return 100.0 * float(hits.double().mean())

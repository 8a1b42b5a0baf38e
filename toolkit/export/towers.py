"""A tower as a module of its own with one input and one output, which is what tracers take."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toolkit.export.source import Source


class Side(nn.Module):
    """Normalised pictures [b, 3, h, w] or tokens [b, l] -> unit-norm embeddings [b, e]."""

    def __init__(self, model: nn.Module, method: str) -> None:
        """`method` of `model`: encode_image or encode_text."""
        super().__init__()
        self.model, self.method = model, method

    def forward(self, given: Tensor) -> Tensor:
        """fp32."""
        return F.normalize(getattr(self.model, self.method)(given), dim=-1)


class Classifier(nn.Module):
    """Normalised pictures [b, 3, h, w] -> probabilities of classes [b, k]."""

    def __init__(self, image: nn.Module, head: Tensor) -> None:
        """`image` gives unit-norm embeddings; `head` [k, e] holds the classes' embeddings times the logit scale."""
        super().__init__()
        self.image = image
        self.register_buffer("head", head)

    def forward(self, images: Tensor) -> Tensor:
        """fp32, rows sum to 1."""
        return (self.image(images) @ self.head.T).softmax(dim=-1)


def example_images(source: Source, count: int = 2) -> Tensor:
    """Zeros of the student's size; two, because tracers take a batch of one for a constant."""
    side = source.student.preprocess.image_size
    return torch.zeros(count, 3, side, side)


def example_tokens(source: Source, count: int = 2) -> Tensor:
    """A sentence of the text tower's length, repeated."""
    return source.tokenizer()(["a picture"] * count)


def image_side(source: Source) -> Side:
    """The student's image tower alone."""
    return side(source.student.module, "encode_image", example_images(source))


def text_side(source: Source) -> Side:
    """The text tower alone, the student's or its teacher's."""
    return side(source.text.module, "encode_text", example_tokens(source))


def side(module: nn.Module, method: str, example: Tensor) -> Side:
    """With what `method` touches alone."""
    return Side(slimmed(module, method, example), method).eval()


def slimmed(module: nn.Module, method: str, given: Tensor) -> nn.Module:
    """A shallow copy without the children and parameters that `method` leaves untouched: tracers keep what is there.

    Which these are is seen from the gradients; weights are shared with `module`.
    """
    named = list(module.named_parameters())
    asked = [parameter.requires_grad for _, parameter in named]
    module.requires_grad_(True)
    with torch.enable_grad():
        value = getattr(module, method)(given).square().sum()
        gradients = torch.autograd.grad(value, [parameter for _, parameter in named], allow_unused=True)
    for (_, parameter), flag in zip(named, asked, strict=True):
        parameter.requires_grad_(flag)
    touched = {name.split(".")[0] for (name, _), found in zip(named, gradients, strict=True) if found is not None}
    slim = copy.copy(module)
    slim._modules = {
        name: child
        for name, child in module._modules.items()
        if name in touched or child is None or not any(True for _ in child.parameters())
    }
    slim._parameters = {name: p for name, p in module._parameters.items() if name in touched or p is None}
    return slim

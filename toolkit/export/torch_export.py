"""`torch.export` programs: one file per tower, or one classifier; any batch size."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from toolkit.errors import ExportError
from toolkit.export.onnx import hushed, untraceable
from toolkit.export.parity import LoadedBack
from toolkit.export.source import Source
from toolkit.export.towers import Classifier, example_images, example_tokens, image_side, text_side

IMAGE, TEXT, CLASSIFIER = "image.pt2", "text.pt2", "classifier.pt2"


def write(source: Source, out: Path, head: Tensor | None = None) -> None:
    """Both towers, or with `head` [k, e] (classes' embeddings times the scale) one classifier."""
    image = image_side(source)
    if head is not None:
        save(Classifier(image, head), example_images(source), out / CLASSIFIER)
        return
    save(image, example_images(source), out / IMAGE)
    save(text_side(source), example_tokens(source), out / TEXT)


def save(module: nn.Module, example: Tensor, path: Path) -> None:
    """Trace and write; raises ExportError with the tracer's reason."""
    try:
        with hushed():
            program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
            for node in program.graph.nodes:  # paths of this machine
                node.meta.pop("stack_trace", None)
            torch.export.save(program, path)
    except Exception as error:  # tracers have many kinds of their own
        raise ExportError(untraceable(path.stem, error)) from error


def read(out: Path) -> LoadedBack:
    """Through torch alone."""
    parts = {name: program(out / name) for name in (IMAGE, TEXT, CLASSIFIER) if (out / name).is_file()}
    return LoadedBack(image=parts.get(IMAGE), text=parts.get(TEXT), probabilities=parts.get(CLASSIFIER))


def program(path: Path) -> Callable[[Tensor], Tensor]:
    """The program as a function of its one input."""
    module = torch.export.load(path).module()
    return lambda given: module(given)

"""ONNX: one file per tower, or one classifier; any batch size."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.errors import ExportError
from toolkit.export.parity import LoadedBack
from toolkit.export.source import Source
from toolkit.export.towers import Classifier, example_images, example_tokens, image_side, text_side

IMAGE, TEXT, CLASSIFIER = "image.onnx", "text.onnx", "classifier.onnx"


def write(source: Source, out: Path, head: Tensor | None = None) -> None:
    """Both towers, or with `head` [k, e] (classes' embeddings times the scale) one classifier."""
    image = image_side(source)
    if head is not None:
        save(Classifier(image, head), example_images(source), out / CLASSIFIER, "images", "probabilities")
        return
    save(image, example_images(source), out / IMAGE, "images", "image_features")
    save(text_side(source), example_tokens(source), out / TEXT, "tokens", "text_features")


def save(module: nn.Module, example: Tensor, path: Path, given: str, found: str) -> None:
    """Trace and write; raises ExportError with the tracer's reason."""
    batch = torch.export.Dim("batch", min=1)
    try:
        with hushed():
            program = torch.onnx.export(
                module,
                (example,),
                input_names=[given],
                output_names=[found],
                dynamic_shapes=({0: batch},),
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            forget_origins(program.model)
            program.save(path)
    except Exception as error:  # tracers have many kinds of their own
        raise ExportError(untraceable(path.stem, error)) from error


def forget_origins(model: Any) -> None:
    """Take out which line of which file of this machine each node comes from."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None


def untraceable(what: str, error: Exception) -> str:
    """The message for a model that a tracer cannot follow."""
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return (
        f"the {what} tower could not be traced ({type(error).__name__}: {first[:300]}); its forward must be plain tensor "
        "operations that do not branch on values or on the batch size. --to open_clip and hugging_face trace nothing"
    )


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Without what tracers and their registries log and print; errors still come as exceptions."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def read(out: Path) -> LoadedBack:
    """Through onnxruntime alone, on the CPU."""
    parts = {name: runner(out / name) for name in (IMAGE, TEXT, CLASSIFIER) if (out / name).is_file()}
    return LoadedBack(image=parts.get(IMAGE), text=parts.get(TEXT), probabilities=parts.get(CLASSIFIER))


def runner(path: Path) -> Callable[[Tensor], Tensor]:
    """A file's one output as a function of its one input."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda given: torch.from_numpy(session.run(None, {name: given.numpy()})[0])

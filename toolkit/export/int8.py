"""ONNX with int8 weights, quantised by onnxruntime; what that costs is measured."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from toolkit.config import Preprocess, Run
from toolkit.data.cache import cache_of
from toolkit.embeddings import unit
from toolkit.errors import DataError, ExportError
from toolkit.evaluate.harness import Harness
from toolkit.export import onnx
from toolkit.export.onnx import hushed
from toolkit.export.parity import LoadedBack, drawn_images, drawn_sentences
from toolkit.export.source import Source
from toolkit.models.contract import normalise
from toolkit.models.tokenizers import Tokenizer

QUANTISED = ["MatMul", "Gemm", "Gather"]
"""Layers whose weights become int8: linear ones and tables of tokens. Convolutions stay fp32, for which onnxruntime's
dynamic int8 has no fast form on CPUs."""


def write(source: Source, out: Path, head: Tensor | None = None) -> None:
    """The files of `onnx.write` with int8 weights, activations quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    onnx.write(source, out, head)
    for path in sorted(out.glob("*.onnx")):
        full = path.rename(path.with_suffix(".fp32"))
        try:
            with hushed():
                forget_shapes(full)
                quantize_dynamic(
                    str(full),
                    str(path),
                    op_types_to_quantize=QUANTISED,
                    weight_type=QuantType.QInt8,
                    per_channel=True,
                    reduce_range=True,
                )
        except Exception as error:
            raise ExportError(
                f"onnxruntime could not quantise the {path.stem} tower ({type(error).__name__}: {error}); use --to onnx"
            ) from error
        full.unlink()


def forget_shapes(path: Path) -> None:
    """Take the shapes of intermediate values out of a file: onnxruntime turns matrices round and would then find them wrong."""
    import onnx as library

    model = library.load(path)
    del model.graph.value_info[:]
    library.save(model, path)


@torch.no_grad()
def loss_of_int8(source: Source, loaded: LoadedBack, head: Tensor | None) -> dict[str, Any]:
    """Mean cosines of fp32 and int8 embeddings on random inputs, and the accuracy of both on the run's own sets."""
    images = drawn_images(source)
    embedded = unit(source.student.module.encode_image(images))  # type: ignore[operator]
    if loaded.probabilities is not None:
        assert head is not None
        wanted = (embedded @ head.T).softmax(dim=-1)
        return {"probabilities_max_difference": float((loaded.probabilities(images) - wanted).abs().max())}
    assert loaded.image is not None and loaded.text is not None
    tokens = source.tokenizer()(drawn_sentences())
    said = unit(source.text.module.encode_text(tokens))  # type: ignore[operator]
    cosines = {
        "image_mean_cosine": float((loaded.image(images) * embedded).sum(-1).mean()),
        "text_mean_cosine": float((loaded.text(tokens) * said).sum(-1).mean()),
    }
    if not all(map(math.isfinite, cosines.values())):
        raise ExportError(
            f"the int8 towers give numbers that are none ({cosines}); its files were removed, use --to onnx"
        )
    return {**cosines, **accuracies(source, loaded)}


def accuracies(source: Source, loaded: LoadedBack) -> dict[str, Any]:
    """`sets`: top-1 of fp32 and int8 in percent and their difference; or `not_measured`: why there are none."""
    run: Run = source.run
    chosen = {name: one for name, one in run.evaluation.sets.items() if one.kind == "classification"}
    if not chosen:
        return {"not_measured": "the run names no classification set; give evaluation.sets.<name>.shards and .classes"}
    try:
        harness = Harness(replace(run.evaluation, sets=chosen), run.workers, cache_of(run.data))
        models = {"fp32": Towers(source, student_towers(source)), "int8": Towers(source, loaded)}
        sets = harness.judge(models)
    except DataError as error:
        return {"not_measured": str(error)}
    return {"sets": {name: drop_of(found["rows"], found["samples"]) for name, found in sets.items()}}


def drop_of(rows: Mapping[str, Mapping[str, float]], samples: int) -> dict[str, float | int]:
    """One set, in percent."""
    before, after = rows["fp32"]["top1"], rows["int8"]["top1"]
    return {"samples": samples, "fp32_top1": before, "int8_top1": after, "drop": before - after}


def student_towers(source: Source) -> LoadedBack:
    """The towers as they were exported from."""
    image, text = source.student.module, source.text.module
    return LoadedBack(
        image=lambda images: unit(image.encode_image(images)),  # type: ignore[operator]
        text=lambda tokens: unit(text.encode_text(tokens)),  # type: ignore[operator]
    )


class Towers:
    """Two functions as the harness wants a model."""

    def __init__(self, source: Source, towers: LoadedBack) -> None:
        """`towers` holds both."""
        self.preprocess: Preprocess = source.student.preprocess
        self.source, self.towers = source, towers

    def tokenizer(self) -> Tokenizer:
        """Of the text tower."""
        return self.source.tokenizer()

    @torch.no_grad()
    def encode_image(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Unit-norm fp32."""
        assert self.towers.image is not None
        return self.towers.image(normalise(images, self.preprocess))

    @torch.no_grad()
    def encode_text(self, tokens: Int[Tensor, "m l"]) -> Float[Tensor, "m e"]:
        """Unit-norm fp32."""
        assert self.towers.text is not None
        return self.towers.text(tokens)

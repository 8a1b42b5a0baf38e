"""Both towers of an export, each format through the library that it was made for."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from toolkit.config import Preprocess
from toolkit.errors import ExportError
from toolkit.evaluate.programs import load_program
from toolkit.models import build_tokenizer
from toolkit.models.teacher import own_scalar
from toolkit.models.tokenizers import Tokenizer

CLIP_NAME = "ViT-B-32"
"""An architecture with CLIP's own tokenizer."""

INTERPOLATIONS: dict[int, Any] = {2: "bilinear", 3: "bicubic"}
"""PIL's numbers."""


@dataclass(frozen=True)
class Towers:
    """What a library made of the files."""

    preprocess: Preprocess
    tokenizer: Callable[[], Tokenizer]
    image: Callable[[Tensor], Tensor]
    """Normalised pictures [b, 3, h, w] -> embeddings [b, e]."""
    text: Callable[[Tensor], Tensor]
    """Tokens [b, l] -> embeddings [b, e]."""
    logit_scale: float
    """Already exponentiated."""
    image_module: nn.Module | None = None
    """Has `encode_image`, not unit norm, with a gradient; None where the format has no such module."""


def with_open_clip(folder: Path, device: torch.device) -> Towers:
    """Through `open_clip.create_model`; it takes the safetensors file first and unpickles nothing."""
    import open_clip

    name = f"local-dir:{folder}"
    model: Any = open_clip.create_model(name, device=device).eval()
    shown: dict[str, Any] = open_clip.get_model_preprocess_cfg(model)
    size: Any = shown["size"]
    preprocess = Preprocess(
        size if isinstance(size, int) else size[0],
        tuple(shown["mean"]),
        tuple(shown["std"]),
        shown["interpolation"],
        shown["resize_mode"],
    )
    length = int(getattr(model, "context_length", 77))
    return Towers(
        preprocess, lambda: build_tokenizer(name, length), model.encode_image, model.encode_text, scale_of(model), model
    )


def scale_of(model: nn.Module) -> float:
    """Of a CLIP with a learnt scale."""
    scale = own_scalar(model, "logit_scale", torch.device("cpu"), exponentiate=True)
    assert scale is not None
    return float(scale)


class HuggingFaceTokenizer:
    """CLIPTokenizer of a folder; what pickles is the folder."""

    def __init__(self, folder: Path, length: int) -> None:
        """`length` in tokens, to which sentences are filled up or cut, the end token kept."""
        import transformers

        self.folder, self.length = folder, length
        self._tokenize = transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "b l"]:
        """Token ids, int64."""
        given = self._tokenize(
            list(texts), padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )
        return given["input_ids"]

    def __reduce__(self) -> tuple[type["HuggingFaceTokenizer"], tuple[Path, int]]:
        """Workers make their own."""
        return type(self), (self.folder, self.length)


class ClipModel(nn.Module):
    """transformers' CLIPModel with open_clip's method names."""

    def __init__(self, model: Any) -> None:
        """`model` as from_pretrained gives it."""
        super().__init__()
        self.model = model

    def encode_image(self, images: Tensor) -> Tensor:
        """[b, 3, h, w] -> [b, e], not normalised."""
        projected: Tensor = self.model.visual_projection(self.model.vision_model(pixel_values=images).pooler_output)
        return projected

    def encode_text(self, tokens: Tensor) -> Tensor:
        """[b, l] -> [b, e], not normalised."""
        projected: Tensor = self.model.text_projection(self.model.text_model(input_ids=tokens).pooler_output)
        return projected


def with_transformers(folder: Path, device: torch.device) -> Towers:
    """Through `CLIPModel` and `CLIPProcessor`, safetensors only. Pictures come prepared as its settings say, by PIL."""
    import transformers

    model: Any = transformers.CLIPModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    seen: Any = transformers.CLIPProcessor.from_pretrained(folder, local_files_only=True).image_processor
    size = {key: value for key, value in dict(seen.size).items() if value}
    preprocess = Preprocess(
        model.config.vision_config.image_size,
        tuple(seen.image_mean),
        tuple(seen.image_std),
        INTERPOLATIONS[int(seen.resample)],
        "shortest" if "shortest_edge" in size else "squash",
    )
    length = model.config.text_config.max_position_embeddings
    module = ClipModel(model).to(device).eval()
    return Towers(
        preprocess,
        lambda: HuggingFaceTokenizer(folder, length),
        module.encode_image,
        module.encode_text,
        scale_of(model),
        module,
    )


def with_onnxruntime(folder: Path, device: torch.device) -> Towers:
    """Sessions of onnxruntime, on the GPU where its package has one."""
    import onnxruntime

    cuda = device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if cuda else ["CPUExecutionProvider"]

    def tower(name: str) -> Callable[[Tensor], Tensor]:
        session = onnxruntime.InferenceSession(str(folder / name), providers=providers)
        given = session.get_inputs()[0].name
        return lambda rows: torch.from_numpy(session.run(None, {given: rows.cpu().numpy()})[0])

    return as_documented(folder, tower("image.onnx"), tower("text.onnx"))


def with_torch_export(folder: Path, device: torch.device) -> Towers:
    """Programs of torch.export, after a look at what they hold."""
    from torch.export.passes import move_to_device_pass

    image, text = (
        move_to_device_pass(load_program(folder / name), device).module() for name in ("image.pt2", "text.pt2")
    )
    return as_documented(folder, lambda rows: image(rows), lambda rows: text(rows))


def as_documented(folder: Path, image: Callable[[Tensor], Tensor], text: Callable[[Tensor], Tensor]) -> Towers:
    """With what `preprocessing.json` says around two functions."""
    how = json.loads((folder / "preprocessing.json").read_text())
    seen = how["image"]
    preprocess = Preprocess(
        seen["size"], tuple(seen["mean"]), tuple(seen["std"]), seen["interpolation"], seen["resize_mode"]
    )
    scale = float(how["logits"]["scale"])
    return Towers(preprocess, lambda: documented_tokenizer(folder, how["text"]), image, text, scale)


def documented_tokenizer(folder: Path, how: dict[str, Any]) -> Tokenizer:
    """Raises ExportError for CLIP's byte pairs with another vocabulary than open_clip's, which is not read from files."""
    told, length = how["tokenizer"], how["length"]
    if told["kind"] == "sentencepiece":
        return build_tokenizer(str(folder / Path(told["file"]).name), length)
    if told["kind"] == "clip_bpe":
        import open_clip

        ours = open_clip.get_tokenizer(CLIP_NAME).encoder
        theirs = json.loads((folder / "vocab.json").read_text())
        special = {"<|startoftext|>": told["start"], "<|endoftext|>": told["end"]}
        plain = {token: number for token, number in ours.items() if number not in special.values()}
        if theirs != plain | special:
            raise ExportError(f"{folder}/vocab.json is not CLIP's vocabulary as open_clip has it; export it again")
        return build_tokenizer(CLIP_NAME, length)
    return build_tokenizer(told["name"], length)

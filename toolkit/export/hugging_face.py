"""A Hugging Face folder: `CLIPModel.from_pretrained(DIR)` and `CLIPProcessor.from_pretrained(DIR)` load it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from PIL import Image
from torch import Tensor

from toolkit.errors import ExportError
from toolkit.export.layers import text_settings, text_unlike, vision_settings, vision_unlike
from toolkit.export.open_clip import state_of
from toolkit.export.parity import LoadedBack
from toolkit.export.preparing import clip_tokenizer, write_clip_vocabulary
from toolkit.export.source import Source

RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
TOP = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "visual.transformer.resblocks": "vision_model.encoder.layers",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "transformer.resblocks": "text_model.encoder.layers",
    "logit_scale": "logit_scale",
}
"""open_clip's names and CLIPModel's, by their beginnings (`layrnorm` is theirs)."""
INSIDE = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
"""The same inside a block."""
TURNED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
"""Matrices that open_clip multiplies from the right."""


def refusal(source: Source) -> str:
    """Why no CLIPModel is this model, or an empty string."""
    if source.student_config is None or not isinstance(source.student.module.visual, VisionTransformer):
        return f"CLIPModel's image tower is a plain ViT, {source.student.name} is none"
    if source.text_config is None or "text_cfg" not in source.text_config:
        return f"the text tower of {source.text.name} is a module of your own, CLIPModel's is CLIP's transformer"
    if source.logit_bias is not None:
        return f"{source.text.name} has a logit bias, which CLIPModel lacks"
    for what, why in (
        ("image tower of " + source.student.name, vision_unlike(source.student.module.visual)),
        ("text tower of " + source.text.name, text_unlike(source.text.module)),
    ):
        if why:
            return f"the {what} has {why}, which CLIPModel lacks"
    if clip_tokenizer(source) is None:
        return f"CLIPProcessor tokenises as CLIP does, {source.text.name} has another tokenizer"
    if source.student.preprocess.resize_mode == "longest":
        return "CLIPProcessor cannot pad pictures to a square (resize_mode longest)"
    return ""


def write(source: Source, out: Path) -> None:
    """Config, weights, tokenizer and image processor, all written by transformers from ours."""
    import transformers

    tokenizer = clip_tokenizer(source)
    assert tokenizer is not None  # `refusal` has seen to it
    ids = {"bos_token_id": tokenizer.sot_token_id, "eos_token_id": tokenizer.eot_token_id}
    embed_dim = source.student.embed_dim
    cfg = transformers.CLIPConfig(
        text_config={**text_settings(source.text.module), **ids, "pad_token_id": 0, "projection_dim": embed_dim},
        vision_config={**vision_settings(source.student.module.visual), "projection_dim": embed_dim},
        projection_dim=embed_dim,
    )
    model = transformers.CLIPModel(cfg)
    missing, unknown = model.load_state_dict(renamed(state_of(source)), strict=False)
    if wrong := [*(key for key in missing if "position_ids" not in key), *unknown]:
        raise ExportError(
            f"transformers {transformers.__version__} names a CLIPModel's weights otherwise ({', '.join(wrong[:3])}); "
            "install the version that the export extra asks for"
        )
    model.save_pretrained(out)
    write_clip_vocabulary(tokenizer, out)
    (out / "tokenizer_config.json").write_text(json.dumps(tokenizer_settings(source), indent=1) + "\n")
    processor = transformers.CLIPProcessor(
        image_processor=transformers.CLIPImageProcessor(**picture_settings(source)),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(out),
    )
    processor.save_pretrained(out)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's weights under CLIPModel's names: query, key and value apart, projections turned."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        key = key.removeprefix("text.")
        if key in TURNED:
            found[TURNED[key]] = value.T.contiguous()
            continue
        begin = next(begin for begin in TOP if key == begin or key.startswith(f"{begin}."))
        rest = key.removeprefix(begin)
        if not begin.endswith("resblocks"):
            found[TOP[begin] + rest] = value
            continue
        _, number, inside = rest.split(".", 2)
        place = f"{TOP[begin]}.{number}"
        if inside.startswith("attn.in_proj_"):
            kind = inside.removeprefix("attn.in_proj_")
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                found[f"{place}.self_attn.{letter}_proj.{kind}"] = part.contiguous()
            continue
        ours = next(name for name in INSIDE if inside.startswith(f"{name}."))
        found[f"{place}.{INSIDE[ours]}{inside.removeprefix(ours)}"] = value
    return found


def tokenizer_settings(source: Source) -> dict[str, Any]:
    """Of a CLIPTokenizer; sentences are filled up with the end token, which the causal tower never looks at."""
    end = "<|endoftext|>"
    return {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": source.text.context_length,
        "bos_token": "<|startoftext|>",
        "eos_token": end,
        "unk_token": end,
        "pad_token": end,
    }


def picture_settings(source: Source) -> dict[str, Any]:
    """Of a CLIPImageProcessor."""
    preprocess = source.student.preprocess
    side = preprocess.image_size
    squash = preprocess.resize_mode == "squash"
    return {
        "size": {"height": side, "width": side} if squash else {"shortest_edge": side},
        "do_center_crop": not squash,
        "crop_size": {"height": side, "width": side},
        "resample": int(RESAMPLE[preprocess.interpolation]),
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def read(out: Path) -> LoadedBack:
    """Through transformers alone."""
    import transformers

    model = transformers.CLIPModel.from_pretrained(out).eval()
    processor = transformers.CLIPProcessor.from_pretrained(out)
    config = model.config
    side, length = config.vision_config.image_size, config.text_config.max_position_embeddings
    blank, word = torch.zeros(1, 3, side, side), torch.full((1, length), config.text_config.eos_token_id)

    def tokenize(sentences: Sequence[str]) -> Tensor:
        given = processor(
            text=list(sentences), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return given["input_ids"] * given["attention_mask"]  # open_clip fills up with 0

    return LoadedBack(
        image=lambda images: model(input_ids=word, pixel_values=images).image_embeds,
        text=lambda tokens: model(input_ids=tokens, pixel_values=blank).text_embeds,
        tokenize=tokenize,
        prepare=lambda picture: processor(images=picture, return_tensors="pt")["pixel_values"][0],
    )

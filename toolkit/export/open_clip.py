"""An open_clip folder: `open_clip.create_model_and_transforms("local-dir:DIR")` loads it."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import HFTokenizer
from open_clip.transformer import VisionTransformer
from safetensors.torch import save_file
from torch import Tensor, nn

from toolkit.distiller import MAX_LOG_SCALE
from toolkit.export.parity import LoadedBack
from toolkit.export.source import Source, text_state

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"
KEPT = ("custom_text", "init_logit_scale", "init_logit_bias")
"""Of the config of the model with the text tower, beside `text_cfg`."""


def refusal(source: Source) -> str:
    """Why open_clip cannot build this model, or an empty string."""
    own, text = source.student_config, source.text_config
    if own is None:
        return f"{source.student.name} is a module of your own, which open_clip cannot build"
    if text is None or "text_cfg" not in text:
        return f"the text tower of {source.text.name} is a module of your own, which open_clip cannot build"
    if "multimodal_cfg" in text:
        return f"{source.text.name} is a CoCa, whose text decoder the student lacks"
    if str(source.text.tokenizer).endswith(".model"):
        return f"open_clip has no tokenizer for the sentencepiece vocabulary of {source.text.name}"
    visual = source.student.module.visual
    if isinstance(visual, TimmModel):
        projection = getattr(visual.head, "proj", None)
        if isinstance(projection, nn.Linear) and projection.in_features != visual.trunk.num_features:
            return (
                f"{source.student.name} has a layer behind its pooling ({visual.trunk.num_features} -> "
                f"{projection.in_features}), and open_clip builds a projection that does not fit it"
            )
    elif isinstance(visual, VisionTransformer) and "hf_model_name" not in text["text_cfg"]:
        quick = [bool(cfg.get("quick_gelu", False)) for cfg in (own, text)]
        if quick[0] != quick[1]:
            names = ["QuickGELU" if flag else "GELU" for flag in quick]
            return (
                f"{source.student.name} computes {names[0]}, the text tower of {source.text.name} {names[1]}, and "
                "open_clip has one switch for both"
            )
    return ""


def model_config(source: Source) -> dict[str, Any]:
    """What open_clip builds the model from: the student's image tower, the text tower's settings."""
    own, text = source.student_config, source.text_config
    assert own is not None and text is not None  # `refusal` has seen to it
    native_image = isinstance(source.student.module.visual, VisionTransformer)
    cfg = {"embed_dim": own["embed_dim"], "vision_cfg": own["vision_cfg"], "text_cfg": text["text_cfg"]}
    cfg |= {key: text[key] for key in KEPT if key in text}
    if (own if native_image else text).get("quick_gelu", False):
        cfg["quick_gelu"] = True
    return cfg


def state_of(source: Source) -> dict[str, Tensor]:
    """The weights under open_clip's names; scale and bias as scalars, the student's own scale at most 100 as in training."""
    visual = {key: value for key, value in source.student.module.state_dict().items() if key.startswith("visual.")}
    text = text_state(source.text.module.state_dict())
    for key in {"logit_scale", "logit_bias"} & text.keys():
        text[key] = text[key].float().reshape([])
    if source.teacher is None:
        text["logit_scale"] = text["logit_scale"].clamp(max=MAX_LOG_SCALE)
    return {key: value.detach().clone().contiguous() for key, value in {**visual, **text}.items()}


def write(source: Source, out: Path) -> None:
    """Config, weights, and the tokenizer's files where open_clip would look for them in the folder."""
    preprocess = source.student.preprocess
    shown = {
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "interpolation": preprocess.interpolation,
        "resize_mode": preprocess.resize_mode,
    }
    (out / CONFIG_NAME).write_text(
        json.dumps({"model_cfg": model_config(source), "preprocess_cfg": shown}, indent=1) + "\n"
    )
    save_file(state_of(source), out / WEIGHTS_NAME)
    if source.text_config is not None and source.text_config["text_cfg"].get("hf_tokenizer_name"):
        tokenizer = open_clip.get_tokenizer(source.text.tokenizer, context_length=source.text.context_length)
        assert isinstance(tokenizer, HFTokenizer)
        tokenizer.save_pretrained(out)


def read(out: Path) -> LoadedBack:
    """Through open_clip alone."""
    name = f"local-dir:{out}"
    model, _, prepare = open_clip.create_model_and_transforms(name)
    model.eval()
    tokenizer = open_clip.get_tokenizer(name)
    return LoadedBack(
        image=lambda images: model.encode_image(images, normalize=True),
        text=lambda tokens: model.encode_text(tokens, normalize=True),
        tokenize=lambda sentences: torch.as_tensor(tokenizer(list(sentences))),
        prepare=prepare,
    )

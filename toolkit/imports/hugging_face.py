"""A folder of Hugging Face's CLIPModel (config.json and safetensors), read without its package."""

import re
from dataclasses import replace
from typing import Any

from torch import Tensor, cat

from toolkit.config import Preprocess
from toolkit.errors import CheckpointError
from toolkit.imports.clip import preprocess_of
from toolkit.imports.found import Found, renamed
from toolkit.imports.reading import Weights, first_keys
from toolkit.imports.shapes import named, with_eps

TOWER = {"num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
VISION = {**TOWER, "hidden_size": 768, "intermediate_size": 3072, "patch_size": 32, "image_size": 224}
TEXT = {
    **TOWER,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
"""What its configs leave out when it is the default."""
BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
NAMES = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
    "logit_scale": "logit_scale",
}
NORMS = {
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "text_model.final_layer_norm": "ln_final",
}
TRANSPOSED = ("visual.proj", "text_projection")
RESAMPLE = {2: "bilinear", 3: "bicubic"}


def from_hugging_face(weights: Weights, layer_norm_eps: float | None, image_only: bool = False) -> Found:
    """CLIPModel and CLIPVisionModelWithProjection; raises CheckpointError for other models and settings not carried over.

    With `image_only` the text tower may have another activation, since it will be left out.
    """
    config = weights.configs.get("config.json")
    if config is None:
        raise CheckpointError(
            f"{weights.path}: no config.json lies beside the weights; give the folder that holds both"
        )
    kind = config.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise CheckpointError(
            f"{weights.path} holds a model of type {kind!r}, only clip and clip_vision_model are read; for others take "
            "open_clip's release of the same weights and --layout open_clip --architecture NAME"
        )
    sides = {"vision": VISION, "text": TEXT} if kind == "clip" else {"vision": VISION}
    cfgs = {side: settings(config, side, usual) for side, usual in sides.items()}
    acts = {cfg["hidden_act"] for side, cfg in cfgs.items() if side == "vision" or not image_only}
    if len(acts) != 1 or not acts <= {"quick_gelu", "gelu"}:
        raise CheckpointError(
            f"{weights.path}: hidden_act is {', '.join(map(str, sorted(acts)))}; both towers must have quick_gelu or gelu "
            "(--image-only leaves the text tower out)"
        )
    vision, text = vision_cfg(cfgs["vision"]), text_cfg(cfgs["text"], weights) if "text" in cfgs else None
    name, kwargs = named(vision, text, quick_gelu=acts == {"quick_gelu"})
    eps = {side: float(layer_norm_eps or cfg["layer_norm_eps"]) for side, cfg in cfgs.items()}
    tensors, sources, dropped = in_open_clips_names(weights.tensors)
    if "visual.proj" not in tensors or tensors["visual.proj"].dim() != 2:
        raise CheckpointError(f"{weights.path} has no visual_projection.weight; its names are {first_keys(sources)}")
    found = Found(
        layout="hugging_face",
        name=name,
        kwargs=with_eps(kwargs, eps["vision"], eps.get("text")),
        embed_dim=int(tensors["visual.proj"].shape[1]),
        text_tower=text is not None,
        preprocess=seen(pictures_of(weights.configs), vision["image_size"]),
        weights=renamed(tensors, {key: key for key in tensors}),
        sources=sources,
        dropped=dropped,
    )
    where = "as you say" if layer_norm_eps else "as config.json says"
    told = " and ".join(f"{value:g} ({side})" for side, value in eps.items())
    return replace(found, notes=(f"LayerNorm eps {told}, {where}; hidden_act {acts.pop()}",))


def settings(config: dict[str, Any], side: str, usual: dict[str, Any]) -> dict[str, Any]:
    """One tower's settings; an old `<side>_config_dict` overrules, as it does there."""
    if config["model_type"] != "clip":
        return {**usual, **config}
    return {**usual, **(config.get(f"{side}_config") or {}), **(config.get(f"{side}_config_dict") or {})}


def vision_cfg(cfg: dict[str, Any]) -> dict[str, Any]:
    """open_clip's."""
    return {
        "layers": cfg["num_hidden_layers"],
        "width": cfg["hidden_size"],
        "head_width": cfg["hidden_size"] // cfg["num_attention_heads"],
        "mlp_ratio": cfg["intermediate_size"] / cfg["hidden_size"],
        "patch_size": cfg["patch_size"],
        "image_size": cfg["image_size"],
    }


def text_cfg(cfg: dict[str, Any], weights: Weights) -> dict[str, Any]:
    """open_clip's; the sentence's vector stands at its highest token, which must be the end token."""
    if cfg["eos_token_id"] not in (2, cfg["vocab_size"] - 1):  # 2 stands in old configs and means: the highest
        raise CheckpointError(
            f"{weights.path}: eos_token_id {cfg['eos_token_id']} is not the highest of {cfg['vocab_size']} tokens, so sentences "
            "would be read at another place"
        )
    return {
        "context_length": cfg["max_position_embeddings"],
        "vocab_size": cfg["vocab_size"],
        "width": cfg["hidden_size"],
        "heads": cfg["num_attention_heads"],
        "layers": cfg["num_hidden_layers"],
        "mlp_ratio": cfg["intermediate_size"] / cfg["hidden_size"],
    }


def in_open_clips_names(
    tensors: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, str], dict[str, list[str]]]:
    """(tensors by open_clip's names, those -> names in the file, dropped); query, key and value are joined.

    Names that are not known stay as they are, and are refused where the model is filled.
    """
    found: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    positions = [key for key in tensors if key.endswith("embeddings.position_ids")]
    for key, value in tensors.items():
        if key in positions:
            continue
        name = our_name(key)
        if (match := re.fullmatch(r"(.*)\.self_attn\.q_proj\.(weight|bias)", name)) is not None:
            parts = [key.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
            if all(part in tensors and tensors[part].shape == value.shape for part in parts):
                joined = f"{match[1]}.attn.in_proj_{match[2]}"
                found[joined] = cat([tensors[part] for part in parts])
                sources[joined] = key.replace(".q_proj.", ".{q,k,v}_proj.")
                continue
        if re.search(r"\.self_attn\.[kv]_proj\.", key) and re.sub(r"\.[kv]_proj\.", ".q_proj.", key) in tensors:
            query = tensors[re.sub(r"\.[kv]_proj\.", ".q_proj.", key)]
            if query.shape == value.shape:
                continue  # joined above, or the query's own refusal says that a part is missing
        found[name] = value.T.contiguous() if name in TRANSPOSED else value
        sources[name] = key
    return found, sources, {"position numbers": positions} if positions else {}


def our_name(key: str) -> str:
    """open_clip's name of everything but attention's inputs."""
    if key in NAMES:
        return NAMES[key]
    layer, _, last = key.rpartition(".")
    if layer in NORMS:
        return f"{NORMS[layer]}.{last}"
    match = re.fullmatch(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", key)
    if match is None:
        return key
    side, number, part, last = match.groups()
    tower = "visual.transformer" if side == "vision" else "transformer"
    return f"{tower}.resblocks.{number}.{BLOCK.get(part, part)}.{last}"


def pictures_of(configs: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """How it sees pictures: a file of its own, since transformers 5 a part of `processor_config.json`."""
    found: dict[str, Any] | None = configs.get("preprocessor_config.json") or configs.get(
        "processor_config.json", {}
    ).get("image_processor")
    return found


def seen(shown: dict[str, Any] | None, side: int) -> Preprocess:
    """Mean, deviation, resampling and whether both sides are resized; CLIP's where nothing is said."""
    if not shown:
        return Preprocess(image_size=side)
    resample = shown.get("resample", 3)
    if resample not in RESAMPLE:
        raise CheckpointError(
            f"preprocessor_config.json: resample {resample} is not known; 2 (bilinear) or 3 (bicubic)"
        )
    size = shown.get("size")
    both = isinstance(size, dict) and "height" in size and not shown.get("do_center_crop", True)
    return preprocess_of(
        {
            "mean": shown.get("image_mean"),
            "std": shown.get("image_std"),
            "interpolation": RESAMPLE[resample],
            "resize_mode": "squash" if both else "shortest",
        },
        side,
    )

"""What open_clip's transformers are made of, read off the modules: is it CLIP's plain form, and of what sizes."""

from typing import Any

from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import nn


def vision_unlike(visual: Any) -> str:
    """What sets an open_clip VisionTransformer apart from CLIP's, or an empty string."""
    if visual.attn_pool is not None:
        return "attention pooling"
    if visual.pool_type != "tok":
        return f"{visual.pool_type} pooling"
    if not isinstance(visual.ln_pre, nn.LayerNorm):
        return "no norm before its blocks"
    if visual.image_size[0] != visual.image_size[1] or visual.patch_size[0] != visual.patch_size[1]:
        return "pictures or patches that are not square"
    return blocks_unlike(visual.transformer, [visual.ln_pre, visual.ln_post])


def text_unlike(module: Any) -> str:
    """What sets the text tower of an open_clip model apart from CLIP's, or an empty string."""
    text = getattr(module, "text", module)
    if not all(hasattr(text, name) for name in ("token_embedding", "positional_embedding", "ln_final")):
        return "layers of another library"
    if getattr(text, "cls_emb", None) is not None:
        return "a class token"
    if getattr(text, "attn_mask", None) is None:
        return "no causal mask"
    pool = getattr(text, "pool_type", None) or getattr(text, "text_pool_type", None)
    if pool != "argmax":
        return f"{pool} pooling"
    if not isinstance(text.text_projection, nn.Parameter):
        return "no plain projection"
    return blocks_unlike(text.transformer, [text.ln_final])


def blocks_unlike(transformer: Any, norms: list[nn.Module]) -> str:
    """The same of the blocks, and of norms that need one epsilon with those of the blocks."""
    blocks = list(transformer.resblocks)
    if any(type(block) is not ResidualAttentionBlock for block in blocks):
        return "blocks with layers of their own"
    if any(not isinstance(scale, nn.Identity) for block in blocks for scale in (block.ls_1, block.ls_2)):
        return "layer scales"
    if activation(transformer) is None:
        return f"the activation {type(blocks[0].mlp.gelu).__name__}"
    all_norms: list[Any] = [*norms, *(norm for block in blocks for norm in (block.ln_1, block.ln_2))]
    if len({norm.eps for norm in all_norms}) > 1:
        return "norms of several epsilons"
    return ""


def activation(transformer: Any) -> str | None:
    """transformers' name of what the blocks compute, None for another one."""
    layer = transformer.resblocks[0].mlp.gelu
    if isinstance(layer, QuickGELU):
        return "quick_gelu"
    return "gelu" if isinstance(layer, nn.GELU) and layer.approximate == "none" else None


def block_settings(transformer: Any, norm: Any) -> dict[str, Any]:
    """Sizes of the blocks under transformers' names."""
    first = transformer.resblocks[0]
    return {
        "hidden_size": first.mlp.c_fc.in_features,
        "intermediate_size": first.mlp.c_fc.out_features,
        "num_hidden_layers": len(transformer.resblocks),
        "num_attention_heads": first.attn.num_heads,
        "hidden_act": activation(transformer),
        "layer_norm_eps": norm.eps,
    }


def vision_settings(visual: Any) -> dict[str, Any]:
    """Of a CLIPVisionConfig."""
    sizes = {"image_size": visual.image_size[0], "patch_size": visual.patch_size[0]}
    return {**block_settings(visual.transformer, visual.ln_post), **sizes}


def text_settings(module: Any) -> dict[str, Any]:
    """Of a CLIPTextConfig."""
    text = getattr(module, "text", module)
    words, width = text.token_embedding.weight.shape
    sizes = {"vocab_size": words, "hidden_size": width, "max_position_embeddings": len(text.positional_embedding)}
    return {**block_settings(text.transformer, text.ln_final), **sizes}

"""CLIP's towers and Swin from formulas over a dict of tensors, written apart from the code under test and from open_clip.

Names are those of OpenAI's CLIP without a prefix, and of the original Swin. Weights are small, so that LayerNorm's epsilon is
felt.
"""

from functools import cache

import torch
from torch import Tensor

State = dict[str, Tensor]


def layer_norm(x: Tensor, state: State, name: str, eps: float) -> Tensor:
    """Over the last axis, with the biased variance."""
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return centred / spread * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x: Tensor, state: State, name: str) -> Tensor:
    """With a bias where there is one."""
    found = x @ state[f"{name}.weight"].T
    return found + state[f"{name}.bias"] if f"{name}.bias" in state else found


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI's."""
    return x / (1 + torch.exp(-1.702 * x))


def gelu(x: Tensor) -> Tensor:
    """The exact one."""
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def blocks(x: Tensor, state: State, heads: int, eps: float, act, causal: bool) -> Tensor:
    """CLIP's residual blocks over [b, l, w]."""
    b, l, w = x.shape
    number = 0
    while f"transformer.resblocks.{number}.ln_1.weight" in state:
        name = f"transformer.resblocks.{number}"
        y = layer_norm(x, state, f"{name}.ln_1", eps)
        joined = y @ state[f"{name}.attn.in_proj_weight"].T + state[f"{name}.attn.in_proj_bias"]
        q, k, v = (part.view(b, l, heads, w // heads).transpose(1, 2) for part in joined.split(w, dim=-1))
        scores = q @ k.transpose(-1, -2) / (w // heads) ** 0.5
        if causal:
            scores = scores.masked_fill(torch.ones(l, l).triu(1).bool(), float("-inf"))
        x = x + linear((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, l, w), state, f"{name}.attn.out_proj")
        y = act(linear(layer_norm(x, state, f"{name}.ln_2", eps), state, f"{name}.mlp.c_fc"))
        x = x + linear(y, state, f"{name}.mlp.c_proj")
        number += 1
    return x


def vit(state: State, images: Tensor, heads: int, eps: float = 1e-5, act=quick_gelu) -> Tensor:
    """[b, 3, h, w] -> class token behind the last LayerNorm [b, w], before the projection."""
    kernel = state["conv1.weight"]
    patch = kernel.shape[-1]
    cut = images.unfold(2, patch, patch).unfold(3, patch, patch).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    x = cut @ kernel.flatten(1).T
    x = torch.cat([state["class_embedding"].expand(len(x), 1, -1), x], dim=1) + state["positional_embedding"]
    x = blocks(layer_norm(x, state, "ln_pre", eps), state, heads, eps, act, causal=False)
    return layer_norm(x[:, 0], state, "ln_post", eps)


def words(state: State, tokens: Tensor, heads: int, eps: float = 1e-5, act=quick_gelu) -> Tensor:
    """[b, l] -> the highest token's place behind the last LayerNorm, projected [b, e]."""
    x = state["token_embedding.weight"][tokens] + state["positional_embedding"]
    x = layer_norm(blocks(x, state, heads, eps, act, causal=True), state, "ln_final", eps)
    return x[torch.arange(len(x)), tokens.argmax(-1)] @ state["text_projection"]


def draw(shapes: dict[str, tuple[int, ...]], seed: int, small: float = 0.02) -> State:
    """Random tensors: LayerNorm weights about 1, matrices that keep the size, embeddings `small`."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if name.endswith(("embedding", "embedding.weight", "conv1.weight")):
            value *= small
        elif value.dim() > 1:
            value *= shape[-1] ** -0.5
        else:
            value = value * 0.1 + (1.0 if "ln_" in name and name.endswith("weight") else 0.0)
            value = value + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        state[name] = value
    return state


def block_shapes(width: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Of CLIP's transformer."""
    found: dict[str, tuple[int, ...]] = {}
    for number in range(layers):
        name = f"transformer.resblocks.{number}"
        found |= {
            f"{name}.attn.in_proj_weight": (3 * width, width),
            f"{name}.attn.in_proj_bias": (3 * width,),
            f"{name}.attn.out_proj.weight": (width, width),
            f"{name}.attn.out_proj.bias": (width,),
            f"{name}.mlp.c_fc.weight": (4 * width, width),
            f"{name}.mlp.c_fc.bias": (4 * width,),
            f"{name}.mlp.c_proj.weight": (width, 4 * width),
            f"{name}.mlp.c_proj.bias": (width,),
        }
        found |= {f"{name}.{norm}.{kind}": (width,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
    return found


@cache
def vit_state(width: int = 128, layers: int = 2, patch: int = 16, side: int = 32, seed: int = 0) -> State:
    """A visual tower without its projection; the same tensors each time, for nobody to change."""
    shapes = {
        "class_embedding": (width,),
        "positional_embedding": ((side // patch) ** 2 + 1, width),
        "conv1.weight": (width, 3, patch, patch),
        **{f"{norm}.{kind}": (width,) for norm in ("ln_pre", "ln_post") for kind in ("weight", "bias")},
        **block_shapes(width, layers),
    }
    return draw(shapes, seed)


@cache
def text_state(width: int = 64, layers: int = 2, length: int = 16, embed: int = 24, vocabulary: int = 49408) -> State:
    """A text tower with its projection; as above."""
    shapes = {
        "token_embedding.weight": (vocabulary, width),
        "positional_embedding": (length, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
        "text_projection": (width, embed),
        **block_shapes(width, layers),
    }
    return draw(shapes, 1)


def prefixed(state: State, prefix: str) -> State:
    """Every name with a prefix."""
    return {prefix + name: value for name, value in state.items()}


def exact(state: State) -> State:
    """In float64, so that only a wrong formula or a wrong weight makes a difference."""
    return {name: value.double() if value.is_floating_point() else value for name, value in state.items()}

"""Swin from formulas over the original's names: loops over windows, no rolling of the picture."""

from dataclasses import dataclass
from itertools import product

import torch
from imports.networks import State, draw, gelu, layer_norm, linear
from torch import Tensor

WINDOW = 7


@dataclass(frozen=True)
class Size:
    """Blocks and heads of each stage, width of the first."""

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]


TINY = Size(96, (2, 2, 6, 2), (3, 6, 12, 24))
"""Swin-T."""
SMALL = Size(12, (2, 2, 2, 2), (1, 2, 3, 6))
"""For tests in a hurry."""


def shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """Of its parameters."""
    found: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (size.width, 3, 4, 4),
        "patch_embed.proj.bias": (size.width,),
    }

    def norm(name: str, width: int) -> None:
        found.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    def full(name: str, rows: int, columns: int) -> None:
        found.update({f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)})

    norm("patch_embed.norm", size.width)
    for stage, (depth, heads) in enumerate(zip(size.depths, size.heads, strict=True)):
        w = size.width * 2**stage
        for number in range(depth):
            name = f"layers.{stage}.blocks.{number}"
            norm(f"{name}.norm1", w)
            norm(f"{name}.norm2", w)
            full(f"{name}.attn.qkv", 3 * w, w)
            full(f"{name}.attn.proj", w, w)
            full(f"{name}.mlp.fc1", 4 * w, w)
            full(f"{name}.mlp.fc2", w, 4 * w)
            found[f"{name}.attn.relative_position_bias_table"] = ((2 * WINDOW - 1) ** 2, heads)
        if stage < 3:
            norm(f"layers.{stage}.downsample.norm", 4 * w)
            found[f"layers.{stage}.downsample.reduction.weight"] = (2 * w, 4 * w)
    norm("norm", size.width * 8)
    return found


def position_index() -> Tensor:
    """[49, 49]: row of the bias table for each pair of places in a window."""
    places = list(product(range(WINDOW), repeat=2))
    rows = [[(a - c + WINDOW - 1) * (2 * WINDOW - 1) + b - d + WINDOW - 1 for c, d in places] for a, b in places]
    return torch.tensor(rows)


def swin_state(size: Size) -> State:
    """Parameters and both kinds of buffers, without the projection."""
    state = draw(shapes(size), 0)
    for stage, depth in enumerate(size.depths):
        side = 56 // 2**stage
        for number in range(depth):
            state[f"layers.{stage}.blocks.{number}.attn.relative_position_index"] = position_index()
            if number % 2 and stage < 3:
                state[f"layers.{stage}.blocks.{number}.attn_mask"] = torch.zeros((side // WINDOW) ** 2, 49, 49)
    return state


def swin(size: Size, state: State, images: Tensor) -> Tensor:
    """[b, 3, 224, 224] -> mean over places of the last LayerNorm [b, 8 w]."""
    x = torch.nn.functional.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=4)
    x = layer_norm(x.permute(0, 2, 3, 1), state, "patch_embed.norm", 1e-5)
    for stage, depth in enumerate(size.depths):
        for number in range(depth):
            shift = WINDOW // 2 if number % 2 and x.shape[1] > WINDOW else 0
            x = block(x, state, f"layers.{stage}.blocks.{number}", size.heads[stage], shift)
        if stage < 3:
            joined = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], dim=-1)
            name = f"layers.{stage}.downsample"
            x = linear(layer_norm(joined, state, f"{name}.norm", 1e-5), state, f"{name}.reduction")
    return layer_norm(x, state, "norm", 1e-5).mean(dim=(1, 2))


def block(x: Tensor, state: State, name: str, heads: int, shift: int) -> Tensor:
    """One block over [b, side, side, w]; windows begin at `shift`, those at the border hold places of several regions."""
    b, side, _, w = x.shape
    bias = state[f"{name}.attn.relative_position_bias_table"][position_index()].permute(2, 0, 1)
    normed = layer_norm(x, state, f"{name}.norm1", 1e-5)
    found = torch.zeros_like(x)
    axis = [(torch.arange(WINDOW) + start + shift) % side for start in range(0, side, WINDOW)]
    for rows, columns in product(axis, axis):
        inside = normed[:, rows][:, :, columns].reshape(b, WINDOW**2, w)
        q, k, v = (
            part.view(b, WINDOW**2, heads, w // heads).transpose(1, 2)
            for part in linear(inside, state, f"{name}.attn.qkv").split(w, dim=-1)
        )
        scores = q @ k.transpose(-1, -2) * (w // heads) ** -0.5 + bias
        # places that came round from the other border are strangers to those that did not
        wrapped = 2 * (rows < rows[0]).long()[:, None] + (columns < columns[0]).long()[None, :]
        region = wrapped.flatten()
        scores = scores.masked_fill(region[:, None] != region[None, :], float("-inf"))
        out = (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, WINDOW, WINDOW, w)
        found[:, rows[:, None], columns[None, :]] = linear(out, state, f"{name}.attn.proj")
    x = x + found
    y = gelu(linear(layer_norm(x, state, f"{name}.norm2", 1e-5), state, f"{name}.mlp.fc1"))
    return x + linear(y, state, f"{name}.mlp.fc2")

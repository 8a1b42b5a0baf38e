"""Small two-tower CLIP for 32-pixel scenes, and an image tower a third its size to distil it into.

Plain layers only: no BatchNorm (its statistics differ between ranks) and no 0-d parameter (DeepSpeed refuses them).
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

IMAGE_SIZE = 32
IMAGE_MEAN = (0.60, 0.60, 0.60)
IMAGE_STD = (0.20, 0.20, 0.20)
CONTEXT_LENGTH = 24
PAD_ID = 0


def scene_clip(
    width: int = 48,
    blocks: int = 1,
    embed_dim: int = 128,
    text_width: int = 96,
    text_layers: int = 2,
    vocab_size: int = 320,
) -> "SceneClip":
    """A CLIP of `SceneImageTower(width, blocks)` and a transformer of `text_layers` layers."""
    visual = SceneImageTower(width, blocks, embed_dim)
    return SceneClip(visual, SceneTextTower(vocab_size, text_width, text_layers, embed_dim))


def scene_student(width: int = 24, blocks: int = 1, embed_dim: int = 128) -> "SceneStudent":
    """An image tower alone; sentences stay with the teacher's text tower."""
    return SceneStudent(SceneImageTower(width, blocks, embed_dim))


class SceneStudent(nn.Module):
    """What a student needs: `encode_image`, and how pictures must be prepared for it."""

    image_size = IMAGE_SIZE
    image_mean = IMAGE_MEAN
    image_std = IMAGE_STD

    def __init__(self, visual: nn.Module):
        super().__init__()
        self.visual = visual

    def encode_image(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        return self.visual(images)


class SceneClip(SceneStudent):
    """Image and text tower, and `logit_scale`, which holds the logarithm as open_clip's does but has shape (1,)."""

    context_length = CONTEXT_LENGTH
    tokenizer = str(Path(__file__).parent / "assets" / "words.model")

    def __init__(self, visual: nn.Module, text: nn.Module):
        super().__init__(visual)
        self.text = text
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(1 / 0.07)))

    def encode_text(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b e"]:
        return self.text(tokens)


class SceneImageTower(nn.Sequential):
    """Residual convolutions at 16, 8 and 4 pixels, `blocks` at each, then the mean over the picture.

    Two channels that hold each pixel's place enter with the colours: a mean alone forgets what is left of what.
    """

    def __init__(self, width: int, blocks: int, embed_dim: int):
        layers: list[nn.Module] = [_Place()]
        channels = 5
        for wide in (width, 2 * width, 4 * width):
            layers += [nn.Conv2d(channels, wide, 3, stride=2, padding=1, bias=False), _norm(wide), nn.ReLU()]
            layers += [_ResidualConv(wide) for _ in range(blocks)]
            channels = wide
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(channels), nn.Linear(channels, embed_dim)]
        super().__init__(*layers)


class _Place(nn.Module):
    """Appends x and y, from -1 to 1, and lays the pixels out channels last, which CPUs convolve faster."""

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 5 h w"]:
        b, _, h, w = images.shape
        y = torch.linspace(-1, 1, h, device=images.device, dtype=images.dtype).view(1, 1, h, 1).expand(b, 1, h, w)
        x = torch.linspace(-1, 1, w, device=images.device, dtype=images.dtype).view(1, 1, 1, w).expand(b, 1, h, w)
        return torch.cat([images, x, y], dim=1).contiguous(memory_format=torch.channels_last)


class _ResidualConv(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = _norm(channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + F.relu(self.norm(self.conv(x)))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(4, channels)


class SceneTextTower(nn.Module):
    """A transformer without causal mask; its output is the mean over the tokens that are not padding."""

    def __init__(self, vocab_size: int, width: int, layers: int, embed_dim: int):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = nn.Parameter(torch.randn(CONTEXT_LENGTH, width) * 0.02)
        self.blocks = nn.ModuleList(_TextBlock(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, embed_dim)
        nn.init.normal_(self.tokens.weight, std=0.1)

    def forward(self, tokens: Int[Tensor, "b l"]) -> Float[Tensor, "b e"]:
        is_word = tokens != PAD_ID
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, is_word)
        weight = is_word.unsqueeze(-1).to(x.dtype)
        mean = (self.norm(x) * weight).sum(1) / weight.sum(1).clamp(min=1)
        return self.proj(mean)


class _TextBlock(nn.Module):
    """Pre-norm attention and MLP from bare Linear layers: each sharded parameter is reached through its own module."""

    def __init__(self, width: int, head_width: int = 32):
        super().__init__()
        self.heads = width // head_width
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Float[Tensor, "b l c"], is_word: Bool[Tensor, "b l"]) -> Float[Tensor, "b l c"]:
        b, length, width = x.shape
        q, k, v = self.qkv(self.norm_attention(x)).view(b, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=is_word[:, None, None, :])
        x = x + self.out(seen.transpose(1, 2).reshape(b, length, width))
        return x + self.mlp(self.norm_mlp(x))

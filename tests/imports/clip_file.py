"""A small CLIP as OpenAI's archive holds it, and its towers by hand."""

from typing import Any

import torch
from imports.networks import State, exact, prefixed, text_state, vit, vit_state, words

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(9))
TOKENS = torch.tensor([[49406, 320, 1929, 49407] + [0] * 12, [49406, 2368, 49407, 0] + [0] * 12])
PROJECTION = torch.randn(128, 24, generator=torch.Generator().manual_seed(5)) / 11


def openai_state() -> State:
    """Both towers, the scale, and the archive's three numbers."""
    numbers = {"input_resolution": 32, "context_length": 16, "vocab_size": 49408}
    return {
        **prefixed(vit_state(), "visual."),
        "visual.proj": PROJECTION,
        **text_state(),
        "logit_scale": torch.tensor(4.6),
        **{name: torch.tensor(value) for name, value in numbers.items()},
    }


def check_towers(module: Any) -> None:
    """Both against the formulas, in float64."""
    with torch.no_grad():
        image, text = module.double().encode_image(IMAGES.double()), module.encode_text(TOKENS)
    right = vit(exact(vit_state()), IMAGES.double(), heads=2) @ PROJECTION.double()
    assert torch.allclose(image, right, rtol=0, atol=1e-9)
    assert torch.allclose(text, words(exact(text_state()), TOKENS, heads=1), rtol=0, atol=1e-9)

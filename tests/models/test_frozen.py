"""The quick attention of frozen towers is the usual one, and whatever it does not know goes the usual way."""

import open_clip
import pytest
import torch
from torch import nn

from toolkit.models.frozen import Attention, quicken


@pytest.fixture(scope="module")
def towers() -> tuple[nn.Module, nn.Module]:
    """A CLIP as it is, and the same weights quickened."""
    pair = []
    for _ in range(2):
        torch.manual_seed(0)
        pair.append(open_clip.create_model("ViT-S-32-alt").eval().requires_grad_(False))
    assert quicken(pair[1]) == sum(isinstance(layer, nn.MultiheadAttention) for layer in pair[0].modules()) > 10
    return pair[0], pair[1]


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 1 - 1e-6), (torch.bfloat16, 0.999)])
def test_same_embeddings(towers: tuple[nn.Module, nn.Module], dtype: torch.dtype, least: float) -> None:
    """Both towers, the causal mask of the text tower included."""
    plain, quick = (tower.to(dtype) for tower in towers)
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(3, 3, 224, 224, generator=draw).to(dtype)
    tokens = torch.randint(1, 49_000, (3, 77), generator=draw)
    for method, given in (("encode_image", images), ("encode_text", tokens)):
        with torch.no_grad():
            wanted, found = (getattr(tower, method)(given).float() for tower in (plain, quick))
        assert torch.cosine_similarity(wanted, found).min() > least
        if dtype == torch.float32:
            assert (wanted - found).abs().max() < 1e-4 * wanted.abs().max()


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("masked", ["no", "float", "bool"])
def test_layer(batch_first: bool, masked: str) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(12, 3, batch_first=batch_first).eval().requires_grad_(False)
    nn.init.normal_(layer.in_proj_bias)
    rows = torch.randn(4, 5, 12)
    later = torch.ones(rows.shape[1 if batch_first else 0], rows.shape[1 if batch_first else 0]).triu(1).bool()
    mask = {"no": None, "bool": later, "float": torch.zeros(later.shape).masked_fill(later, -torch.inf)}[masked]
    wanted, _ = layer(rows, rows, rows, need_weights=False, attn_mask=mask)
    found, none = Attention(layer, layer.forward)(rows, rows, rows, need_weights=False, attn_mask=mask)
    assert none is None
    torch.testing.assert_close(found, wanted)


def test_what_it_does_not_know_goes_the_usual_way() -> None:
    layer = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    rows, others = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    asked: list[dict] = []

    def usual(*rows: torch.Tensor, **more: object) -> tuple[torch.Tensor, None]:
        asked.append(more)
        return rows[0], None

    quick = Attention(layer, usual)
    quick(rows, rows, rows)  # the weights are wanted
    quick(rows, others, others, need_weights=False)
    quick(rows, rows, rows, need_weights=False, key_padding_mask=torch.zeros(2, 5).bool())
    assert len(asked) == 3

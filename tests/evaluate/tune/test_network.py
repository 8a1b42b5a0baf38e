"""Which parameters are trained, in which precision, and what is said of a module that cannot be."""

import pytest
import torch
from torch import Tensor, nn
from tune_cases import PREPROCESS, SIDE, WIDTH, Tower, pictures, text_head

from toolkit.errors import ConfigError
from toolkit.evaluate.tune.network import Beginning, begin
from toolkit.models.frozen import Attention, quicken


class Attending(nn.Module):
    """Three tokens of a picture, attention with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(3 * SIDE * 2, 2, dropout=0.5, batch_first=True)
        self.out = nn.Linear(3 * SIDE * 2, WIDTH)

    def encode_image(self, images: Tensor) -> Tensor:
        rows = images.flatten(1).view(len(images), 3, -1)
        return self.out(self.attention(rows, rows, rows, need_weights=False)[0].mean(dim=1))


class Without(Tower):
    """A tower that gives no gradient."""

    def encode_image(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return super().encode_image(images)


def started(module: object, dtype: torch.dtype = torch.float32) -> Beginning:
    """From two pictures of the cases."""
    two = pictures(2, 2).train.views.views
    return begin(lambda: module, two, 3, text_head(dtype=dtype), 0, PREPROCESS)


def test_a_quickened_teacher_trains_with_its_own_attention() -> None:
    """All frozen: everything that pictures reach is trained, dropout works again, and the teacher stays quick."""
    torch.manual_seed(0)
    teacher = Attending().eval().requires_grad_(False)
    assert quicken(teacher) == 1
    beginning = started(teacher)
    network = beginning.fresh().train()
    assert isinstance(teacher.attention.forward, Attention) and not isinstance(
        network.tower.attention.forward, Attention
    )
    assert beginning.parameters == sum(part.numel() for part in teacher.parameters()) + 3 * (WIDTH + 1)
    views = pictures(8, 2).train.views.views
    assert not torch.equal(network(views), network(views))  # dropout
    network(views).square().sum().backward()
    assert network.tower.attention.in_proj_weight.grad.abs().sum() > 0
    assert not any(part.requires_grad or part.grad is not None for part in teacher.parameters())


def test_the_text_side_is_neither_trained_nor_copied() -> None:
    """Every trial has image weights of its own."""
    tower = Tower(dtype=torch.float32)
    beginning = started(tower)
    one, two = beginning.fresh(), beginning.fresh()
    assert one.tower.token_embedding.weight is two.tower.token_embedding.weight
    assert not one.tower.token_embedding.weight.requires_grad
    pairs = zip(one.tower.visual.parameters(), two.tower.visual.parameters(), strict=True)
    assert all(a.requires_grad and a.data_ptr() != b.data_ptr() for a, b in pairs)
    assert one.head.weight.data_ptr() != two.head.weight.data_ptr()


def test_a_locked_image_tower_is_unlocked_whole() -> None:
    """A gradient for the text side alone is no wish about the image side."""
    tower = Tower(dtype=torch.float32)
    tower.visual.requires_grad_(False)
    assert started(tower).parameters == sum(part.numel() for part in tower.visual.parameters()) + 18


@pytest.mark.parametrize(
    ("held", "trained"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
)
def test_precision(held: torch.dtype, trained: torch.dtype) -> None:
    """Half precision is for inference."""
    tower = Tower(dtype=held)
    network = started(tower).fresh()
    assert {part.dtype for part in network.parameters()} == {trained}
    assert {part.dtype for part in tower.parameters()} == {held}


def test_nothing_is_drawn() -> None:
    """The caller's generator stays where it was when the head begins with the texts."""
    before = torch.get_rng_state()
    started(Tower(dtype=torch.float32)).fresh()
    assert torch.equal(torch.get_rng_state(), before)


class Uncopied(Tower):
    """A tower with a weight that is computed from others."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype=dtype)
        self.doubled = 2 * self.visual[0].weight


class Exported(nn.Module):
    """A graph as torch.export writes it."""

    def __init__(self) -> None:
        super().__init__()
        tower = Tower(dtype=torch.float32).visual
        self.graph = torch.export.export(tower, (torch.zeros(2, 3, SIDE, SIDE),)).module()

    def encode_image(self, images: Tensor) -> Tensor:
        return self.graph(images)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (lambda: None, "module_factory gave a NoneType; it must give a torch module with encode_image"),
        (lambda: nn.Linear(2, 2), "module_factory gave a Linear"),
        (lambda: Without(dtype=torch.float32), "no gradient reaches the image tower of Without: its encode_image runs"),
        (Exported, "Exported is an exported graph, which cannot train; .*build"),
        (lambda: Uncopied(dtype=torch.float32), "a Uncopied cannot be copied for training .RuntimeError: Only Tensors"),
    ],
)
def test_what_cannot_be_trained(module, said: str) -> None:
    """One sentence each, with the way out."""
    with pytest.raises(ConfigError, match=said):
        started(module())

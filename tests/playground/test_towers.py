"""Shapes, sizes and the layers that distributed training cannot have."""

import math

import pytest
import torch
from torch import nn

from toolkit.playground.towers import scene_clip, scene_student


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_both_towers_embed_into_one_space():
    clip, student = scene_clip(), scene_student()
    images, tokens = torch.randn(3, 3, 32, 32), torch.randint(1, 300, (3, 24))
    assert clip.encode_image(images).shape == clip.encode_text(tokens).shape == student.encode_image(images).shape
    assert clip.context_length == 24 and clip.image_size == student.image_size == 32
    assert len(student.image_mean) == len(student.image_std) == 3


def test_padding_leaves_the_sentence_alone():
    clip = scene_clip()
    tokens = torch.tensor([[5, 9, 7, 1]])
    padded = torch.cat([tokens, torch.zeros(1, 20, dtype=torch.long)], dim=1)
    torch.testing.assert_close(clip.encode_text(tokens), clip.encode_text(padded), rtol=1e-4, atol=1e-5)


def test_the_student_is_a_third_at_most_and_the_teacher_fits_four_megabytes():
    clip = scene_clip()
    assert 3 * _count(scene_student()) <= _count(clip.visual)
    assert 4 * _count(clip) < 4_000_000


@pytest.mark.parametrize("build", [scene_clip, scene_student])
def test_every_parameter_learns_and_none_is_0d_or_batch_normalised(build):
    module = build()
    assert all(parameter.ndim > 0 for parameter in module.parameters())
    assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules())
    value = module.encode_image(torch.randn(2, 3, 32, 32)).square().sum()
    if hasattr(module, "logit_scale"):
        torch.testing.assert_close(module.logit_scale.detach(), torch.tensor([math.log(1 / 0.07)]))
        value = module.logit_scale.sum() + value + module.encode_text(torch.randint(0, 300, (2, 24))).square().sum()
    value.backward()
    assert all(parameter.grad is not None for parameter in module.parameters())

"""The ensemble of templates is open_clip's own."""

from pathlib import Path

import open_clip
import pytest
import torch

from toolkit.config import Teacher
from toolkit.evaluate.named import judged_alone
from toolkit.evaluate.suite.cache import Cache
from toolkit.evaluate.suite.embedded import Embedder
from toolkit.models import build_teacher

NAMES = ["cat", "a long name of a dog", "mouse", "an armadillo", "bee"]
TEMPLATES = ["a photo of a {}.", "{}", "the {} of my house", "a {} that runs"]


@pytest.mark.parametrize("variant", ["", "-gelu", "-custom"])
def test_head_equals_open_clips_builder(clip: str, variant: str, tmp_path: Path) -> None:
    """build_zero_shot_classifier gives [e, k] on the same weights."""
    torch.manual_seed(1)
    teacher = build_teacher(Teacher(name=clip + variant, pretrained="random"), "fp32", torch.device("cpu"))
    judged = judged_alone("x", "x", teacher, "fp32")
    ours = Embedder(Cache(tmp_path)).head(judged, NAMES, TEMPLATES)
    theirs = open_clip.build_zero_shot_classifier(
        teacher.module,
        open_clip.get_tokenizer(clip + variant, context_length=16),
        NAMES,
        TEMPLATES,
        num_classes_per_batch=2,
    )
    assert ours.shape == (5, 16)
    assert float((ours - theirs.T).abs().max()) < 1e-6
    wrong = Embedder(Cache(tmp_path / "other")).head(judged, NAMES, TEMPLATES[:3])
    assert float((wrong - theirs.T).abs().max()) > 1e-3

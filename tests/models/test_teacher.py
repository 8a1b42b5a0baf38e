"""The teacher: frozen, unit norm, named in four ways, and never fetched from the network by a test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from toolkit.config import Preprocess, Teacher
from toolkit.data.images import plain_view
from toolkit.errors import ConfigError
from toolkit.models import build_teacher
from toolkit.models import teacher as teacher_module
from toolkit.models.build import WEIGHTS_NAME, build_model, write_card
from toolkit.models.teacher import Teacher as BuiltTeacher

OwnFile = Callable[..., str]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is not asked, and files that this machine may have cached are not found."""
    monkeypatch.setattr(teacher_module, "hub_reachable", lambda: False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def build(precision: str = "fp32", **settings: Any) -> BuiltTeacher:
    return build_teacher(Teacher(**settings), precision, CPU)


def said(**settings: Any) -> str:
    """The complaint."""
    with pytest.raises(ConfigError) as caught:
        build(**settings)
    return str(caught.value)


def pictures(count: int = 3, side: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frozen_and_unit_norm(precision: str, tiny: str) -> None:
    """fp32 embeddings of length 1 without a graph, whatever the weights are cast to."""
    teacher = build(precision, name=tiny, pretrained="random")
    assert not any(p.requires_grad for p in teacher.module.parameters()) and not teacher.module.training
    assert teacher.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    images, texts = teacher.encode_image(pictures()), teacher.encode_text(teacher.tokenizer()(["a", "b", "c"]))
    for features in (images, texts):
        assert features.shape == (3, 12) and features.dtype == torch.float32 and not features.requires_grad
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(3))


def test_its_own_dtype_overrides_the_runs(tiny: str) -> None:
    """`auto` follows precision."""
    assert build("bf16", name=tiny, pretrained="random", dtype="fp32").dtype == torch.float32
    assert build("fp32", name=tiny, pretrained="random", dtype="bf16").dtype == torch.bfloat16


def test_equals_open_clip_on_a_picture(tiny: str) -> None:
    """From the file to the embedding: our uint8 path against open_clip's own transform."""
    teacher = build(name=tiny, pretrained="random")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    transform = open_clip.image_transform(32, is_train=False)
    with torch.no_grad():
        theirs = teacher.module.encode_image(transform(picture)[None], normalize=True)  # type: ignore[operator]
    ours = teacher.encode_image(plain_view(picture, teacher.preprocess)[None])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    words = ["two red dots", ""]
    tokens = open_clip.get_tokenizer(tiny)(words)
    assert torch.equal(teacher.tokenizer()(words), tokens) and tokens.shape == (2, 16)


def test_a_weights_file(tiny: str, tmp_path: Path) -> None:
    """open_clip's own layout; a file of another architecture is refused."""
    module = open_clip.create_model(tiny)
    save_file(module.state_dict(), tmp_path / "good.safetensors")
    teacher = build(name=tiny, pretrained=str(tmp_path / "good.safetensors"))
    assert torch.equal(teacher.module.visual.proj, module.visual.proj)  # type: ignore[union-attr]
    save_file({"visual.proj": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    message = said(name=tiny, pretrained=str(tmp_path / "other.safetensors"))
    assert f"does not load into {tiny}" in message and "give the file of this architecture" in message


def test_a_checkpoint_folder(tiny: str, tmp_path: Path) -> None:
    """A student of one run is the teacher of another."""
    model = build_model(tiny, {}, embed_dim=12, text_tower=True, asked_by="x")
    write_card(model, {}, True, tmp_path)
    save_file(model.module.state_dict(), tmp_path / WEIGHTS_NAME)
    teacher = build(name=str(tmp_path))
    assert teacher.embed_dim == 12 and teacher.tokenizer_name == tiny and teacher.name == tiny
    assert torch.equal(teacher.module.visual.proj, model.module.visual.proj)  # type: ignore[union-attr]


def test_an_own_function(own_file: OwnFile, tmp_path: Path) -> None:
    """With its weights, `random` to try a set-up; both towers are checked."""
    name = f"{own_file()}:net"
    assert "teacher.pretrained is not set; give the weights file" in said(name=name)
    teacher = build(name=name, pretrained="random", tokenizer="ViT-B-32")
    assert teacher.embed_dim == 6 and teacher.encode_image(pictures(side=8)).shape == (3, 6)
    save_file({k: v + 1 for k, v in teacher.module.state_dict().items()}, tmp_path / "w.safetensors")
    loaded = build(name=name, pretrained=str(tmp_path / "w.safetensors"), kwargs={"width": 6})
    assert not torch.equal(loaded.module.flat.weight, teacher.module.flat.weight)  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"has no tokenizer; set teacher\.tokenizer"):
        loaded.tokenizer()


def test_settings_override_the_models_own(own_file: OwnFile) -> None:
    """Tokenizer and size."""
    teacher = build(name=f"{own_file()}:net", pretrained="random", tokenizer="ViT-B-32", image_size=20)
    assert teacher.tokenizer_name == "ViT-B-32" and teacher.preprocess.image_size == 20


def test_preprocessing_is_the_models_own(tiny: str) -> None:
    """CLIP's statistics where the model declares none."""
    assert build(name=tiny, pretrained="random").preprocess == Preprocess(image_size=32)


def test_unknown_names_and_tags() -> None:
    """With the nearest known one."""
    assert "no model or checkpoint folder named 'ViT-B-23'; did you mean ViT-B-32? Known:" in said(name="ViT-B-23")
    assert "named 'runs/zzzz/step_3'. Known:" in said(name="runs/zzzz/step_3")
    assert "teacher.pretrained is not set; choose one of openai" in said(name="ViT-L-14-quickgelu")
    message = said(name="ViT-L-14-quickgelu", pretrained="openia")
    assert (
        "teacher.pretrained=openia is neither a file nor a tag of ViT-L-14-quickgelu; did you mean openai?" in message
    )


@pytest.fixture
def published(tiny: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tiny architecture with two tags whose weights are not on this machine."""
    tags = {tag: {"hf_hub": "nobody/nothing/", "quick_gelu": tag == "quick"} for tag in ("quick", "plain")}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, tiny, tags)
    return tiny


def test_a_quickgelu_mismatch_is_an_error(published: str) -> None:
    """open_clip only warns, and then computes another function than was trained; so in both directions."""
    message = said(name="ViT-L-14", pretrained="openai")
    assert "teacher.name=ViT-L-14 computes GELU" in message and "were trained with QuickGELU" in message
    assert message.endswith("use teacher.name=ViT-L-14-quickgelu")
    assert "computes QuickGELU, the weights 'plain' were trained with GELU" in said(name=published, pretrained="plain")


def test_missing_weights_say_how_to_get_them(published: str) -> None:
    """A command for a machine with network, and the setting for the file that it prints."""
    message = said(name=published, pretrained="quick")
    assert f"the weights 'quick' of {published} could not be downloaded" in message
    assert f"open_clip.get_pretrained_cfg('{published}', 'quick')" in message
    assert "set teacher.pretrained=/path/to/that/file" in message and "teacher.pretrained=random" in message


def test_random_weights_need_no_network(published: str) -> None:
    """To try a set-up."""
    assert build(name=published, pretrained="random").embed_dim == 12

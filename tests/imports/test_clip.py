"""OpenAI's and open_clip's weights: both towers, sizes from shapes or from the architecture, and what cannot be known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from imports.clip_file import IMAGES, PROJECTION, TOKENS, check_towers, openai_state
from imports.networks import prefixed, vit_state

from toolkit.config import Preprocess
from toolkit.imports.shapes import named
from toolkit.models import Model

Written = Callable[..., Path]
Imported = Callable[..., Model]
Refused = Callable[..., str]


def test_openai(written: Written, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    """Recognised by its numbers; the scale is [1] for DeepSpeed; the tokenizer is CLIP's."""
    model = imported(written(openai_state()))
    assert model.module.logit_scale.shape == (1,) and model.module.logit_scale.item() == pytest.approx(4.6)  # type: ignore
    check_towers(model.module)
    assert model.context_length == 16 and model.tokenizer == "ViT-B-32-quickgelu"
    said = capsys.readouterr().out
    assert "layout openai: it has input_resolution" in said and "3: numbers that the shapes say too" in said


def towers(width: int, layers: int, patch: int, text: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sizes at 224 pixels."""
    vision = {
        "layers": layers,
        "width": width,
        "patch_size": patch,
        "image_size": 224,
        "head_width": 64,
        "mlp_ratio": 4.0,
    }
    return vision, {"context_length": 77, "vocab_size": 49408, "width": text, "heads": text // 64, "layers": 12}


def test_known_architectures_keep_their_names() -> None:
    """With and without the text tower, and by their activation."""
    b32, l14 = towers(768, 12, 32, 512), towers(1024, 24, 14, 768)
    assert named(b32[0], None, True) == named(*b32, True) == ("ViT-B-32-quickgelu", {})
    assert named(*b32, False) == ("ViT-B-32", {}) and named(*l14, True) == ("ViT-L-14-quickgelu", {})
    assert named(b32[0], l14[1], True)[1] == {"vision_cfg": b32[0], "text_cfg": l14[1]}
    rn50 = {"layers": [3, 4, 6, 3], "width": 64, "patch_size": None, "image_size": 224}
    assert named(rn50, b32[1], True) == ("RN50-quickgelu", {})


def test_half_precision_becomes_single(written: Written, imported: Imported) -> None:
    """OpenAI's weights are fp16; the same numbers in fp32."""
    half = {key: value.half() if value.is_floating_point() else value for key, value in openai_state().items()}
    own = imported(written(half)).module.state_dict()
    assert {value.dtype for value in own.values()} == {torch.float32}
    assert torch.equal(own["visual.proj"], PROJECTION.half().float())


def test_the_image_tower_alone(written: Written, imported: Imported) -> None:
    """For a student whose sentences go through the teacher."""
    own = imported(written(openai_state()), "openai", image_only=True)
    assert set(own.module.state_dict()) == {f"visual.{key}" for key in vit_state()} | {"visual.proj"}
    assert own.tokenizer is None


def test_openais_resnet(written: Written, imported: Imported) -> None:
    """Sizes from shapes; open_clip's own module gives the same."""
    vision = {"layers": [1, 2, 1, 1], "width": 8, "patch_size": None, "image_size": 64}
    text = {"context_length": 16, "width": 64, "heads": 1, "layers": 1}
    theirs = open_clip.CLIP(24, vision, text, quick_gelu=True).eval()
    model = imported(written(theirs.state_dict()), "openai")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.module.encode_image(images), theirs.encode_image(images))  # type: ignore[operator]
        assert torch.equal(model.module.encode_text(TOKENS), theirs.encode_text(TOKENS))  # type: ignore[operator]


def test_numbers_that_contradict_the_shapes(written: Written, refused: Refused) -> None:
    """A file put together from two."""
    state = {**openai_state(), "input_resolution": torch.tensor(48)}
    assert "input_resolution says 48, the shapes 32" in refused(written(state))


def test_clips_names_alone_do_not_say_whose_they_are(tiny: str, written: Written, refused: Refused) -> None:
    """The same weights compute GELU here and QuickGELU there."""
    bare = {key: value for key, value in openai_state().items() if value.dim() or key == "logit_scale"}
    assert "are OpenAI's (QuickGELU) as well as open_clip's" in refused(written(bare))
    message = refused(written(bare), "open_clip")
    assert "GELU and QuickGELU have the same shapes" in message and f"those of these shapes are {tiny}" in message
    assert "did you mean tiny-clip-to-import?" in refused(written(bare), architecture="tiny-clip-to-inport")
    assert "goes with --layout open_clip" in refused(written(bare), "openai", architecture=tiny)


def test_open_clip_by_its_architecture(tiny: str, written: Written, imported: Imported) -> None:
    """As its training script saves it."""
    torch.manual_seed(0)
    theirs = open_clip.create_model(tiny).eval()
    wrapped = {"epoch": 3, "name": "a run", "state_dict": prefixed(theirs.state_dict(), "module."), "optimizer": {}}
    model = imported(written(wrapped), architecture=tiny)
    with torch.no_grad():
        assert torch.equal(model.module.encode_image(IMAGES), theirs.encode_image(IMAGES))  # type: ignore[operator]
        assert torch.equal(model.module.encode_text(TOKENS), theirs.encode_text(TOKENS))  # type: ignore[operator]
    assert model.name == model.tokenizer == tiny


def test_open_clip_with_its_config(tmp_path: Path, written: Written, imported: Imported) -> None:
    """A folder as on the hub, of an architecture without a name: sizes and preprocessing from its JSON."""
    cfg = {
        "embed_dim": 20,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 16, "norm_kwargs": {"eps": 1e-3}},
        "text_cfg": {"context_length": 16, "width": 64, "heads": 2, "layers": 1},
    }
    seen = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear", "resize_mode": "squash"}
    theirs = open_clip.CLIP(**cfg).eval()
    path = written(theirs.state_dict(), "hub/open_clip_model.safetensors")
    (path.parent / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg, "preprocess_cfg": seen}))
    model = imported(path.parent)
    with torch.no_grad():
        assert torch.equal(model.module.encode_image(IMAGES), theirs.encode_image(IMAGES))  # type: ignore[operator]
        assert torch.equal(model.module.encode_text(TOKENS), theirs.encode_text(TOKENS))  # type: ignore[operator]
    assert model.preprocess == Preprocess(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", "squash")


def test_weights_of_another_architecture(tiny: str, written: Written, refused: Refused) -> None:
    """Shapes are told in numbers."""
    state = {key: value for key, value in openai_state().items() if value.dim() or key == "logit_scale"}
    message = refused(written(state), "open_clip", architecture="ViT-S-32-alt")
    assert "does not fit ViT-S-32-alt" in message and "of another shape" in message
    state.pop("ln_final.bias")
    assert "ln_final.bias is missing" in refused(written(state), "open_clip", architecture=tiny)
    state.pop("visual.conv1.weight")
    assert "visual.conv1.weight is missing" in refused(written(state), "openai")

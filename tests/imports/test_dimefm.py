"""DIME-FM's layouts: every spelling of tower, projection, wrapper and prefix gives the same features; the epsilon is theirs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from imports.networks import State, exact, prefixed, text_state, vit, vit_state
from imports.swin_by_hand import SMALL, TINY, Size, swin, swin_state
from timm.models.swin_transformer import _create_swin_transformer
from torch import Tensor

from toolkit.imports.dimefm import SWINS
from toolkit.models import Model

Written = Callable[..., Path]
Imported = Callable[..., Model]
PROJECTION = torch.randn(128, 24, generator=torch.Generator().manual_seed(5)) / 11
RELEASED, TRAINING = 1e-12, 1e-5


def pictures(side: int, count: int = 2) -> Tensor:
    """Normalised noise."""
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(9))


def features(model: Model, images: Tensor) -> Tensor:
    """Of the imported folder, in float64."""
    with torch.no_grad():
        found: Tensor = model.module.double().encode_image(images.double())  # type: ignore[operator]
    return found


def by_hand(images: Tensor, eps: float) -> Tensor:
    """Of the file, by the formulas, in float64."""
    return vit(exact(vit_state()), images.double(), heads=2, eps=eps) @ PROJECTION.double()


def close(found: Tensor, right: Tensor) -> bool:
    """To 1e-9 of the largest feature."""
    return found.shape == right.shape and float((found - right).abs().max()) < 1e-9 * float(right.abs().max())


def file(tower: str, projection: str) -> State:
    """The student alone, in one of the spellings."""
    return {**prefixed(vit_state(), tower), projection: PROJECTION}


SPELLINGS: dict[str, tuple[str, str, float]] = {
    "released": ("image_encoder.", "image_projection", RELEASED),
    "as the evaluation reads it": ("visual.", "vision_projection", RELEASED),
    "mixed": ("image_encoder.", "vision_projection", RELEASED),
    "as training writes it": ("visual.", "visual.proj", TRAINING),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_vit_in_every_spelling(spelling: str, written: Written, imported: Imported) -> None:
    """Features as the formulas give them, with the epsilon of that spelling and not with the other one."""
    tower, projection, eps = SPELLINGS[spelling]
    model = imported(written(file(tower, projection)))
    images = pictures(32)
    other = RELEASED if eps == TRAINING else TRAINING
    found, right, wrong = features(model, images), by_hand(images, eps), by_hand(images, other)
    assert close(found, right)
    assert (found - wrong).abs().max() > 1e-3 * float(right.abs().max())
    assert model.embed_dim == 24 and model.preprocess.image_size == 32 and model.tokenizer is None


def test_the_epsilon_that_is_asked_for(written: Written, imported: Imported) -> None:
    """Over what the layout says."""
    model = imported(written(file("image_encoder.", "image_projection")), layer_norm_eps=1e-3)
    assert close(features(model, pictures(32)), by_hand(pictures(32), 1e-3))


def wrapped(state: State, how: str) -> dict[str, Any]:
    """As scripts save it."""
    return {
        "bare": state,
        "module.": prefixed(state, "module."),
        "model": {"model": state},
        "state_dict": {"state_dict": prefixed(state, "module."), "epoch": 3},
        "model / state_dict": {"model": {"state_dict": state}},
        "image_state_dict": {
            "epoch": 100,
            "image_state_dict": state,
            "best_loss": 1e7,
            "scaler": {"scale": 65536.0},
            "img_optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]},
            "img_scheduler_state_dict": {},
        },
    }[how]


@pytest.mark.parametrize("how", ["bare", "module.", "model", "state_dict", "model / state_dict", "image_state_dict"])
def test_every_wrapper(how: str, written: Written, imported: Imported, capsys: pytest.CaptureFixture[str]) -> None:
    """The same weights, each under its name; what lay beside them is told."""
    model = imported(written(wrapped(file("visual.", "visual.proj"), how), "checkpoint.pth.tar"))
    own = model.module.state_dict()
    assert set(own) == {f"visual.{key}" for key in vit_state()} | {"visual.proj"}
    assert all(torch.equal(own[f"visual.{key}"], value) for key, value in vit_state().items())
    said = capsys.readouterr().out
    assert said.startswith("layout dimefm: ")
    assert ("img_optimizer_state_dict" in said) == (how == "image_state_dict")
    assert how == "bare" or f"taken from under {how}" in said.replace(" / module.", "")


def test_safetensors_too(written: Written, imported: Imported) -> None:
    """The suffix decides how it is read."""
    model = imported(written(file("image_encoder.", "image_projection"), "student.safetensors"))
    assert torch.equal(model.module.state_dict()["visual.proj"], PROJECTION)


def test_text_keys_are_dropped_and_told(
    written: Written, imported: Imported, capsys: pytest.CaptureFixture[str]
) -> None:
    """A `lang_projection` of the file would overwrite the teacher's text projection."""
    text = {**text_state(vocabulary=50), "logit_scale": torch.tensor(4.6)}
    state = {**file("image_encoder.", "image_projection"), **prefixed(text_state(vocabulary=50), "lang_encoder.")}
    state |= {**text, "lang_projection": PROJECTION}
    model = imported(written(state))
    assert set(model.module.state_dict()) == {f"visual.{key}" for key in vit_state()} | {"visual.proj"}
    said = capsys.readouterr().out
    assert f"({2 * len(text_state(vocabulary=50)) + 2}: text side, which in DIME-FM is the teacher's)" in said


def swin_by_hand(pretrained: bool = False, **more: Any) -> Any:
    """timm's, at the size of SMALL."""
    size = {"embed_dim": SMALL.width, "depths": SMALL.depths, "num_heads": SMALL.heads}
    return _create_swin_transformer("swin_tiny_patch4_window7_224", **size, **more)


def check_swin(size: Size, written: Written, imported: Imported, wrapper: str = "model") -> Model:
    """Features of the original's formulas, with shifted windows and its downsampling; saved under `wrapper`."""
    state, width = swin_state(size), 8 * size.width
    projection = torch.randn(width, 768, generator=torch.Generator().manual_seed(2)) / width**0.5
    everything = {**prefixed(state, "image_encoder."), "image_projection": projection}
    model = imported(written({wrapper: everything, "epoch": 3}))
    images = pictures(224, 1)
    assert close(features(model, images), swin(size, exact(state), images.double()) @ projection.double())
    assert torch.equal(model.module.float().state_dict()["visual.head.proj.weight"], projection.T)
    return model


def test_a_small_swin(
    written: Written, imported: Imported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The names and the computation of Swin-T at another size."""
    monkeypatch.setitem(SWINS, (SMALL.width, SMALL.depths, SMALL.heads), "timm/swin_by_hand")
    timm.models.register_model(swin_by_hand)
    check_swin(SMALL, written, imported)
    said = capsys.readouterr().out
    assert "(11: buffers, which timm computes)" in said and "LayerNorm eps 1e-05, as every Swin; GELU" in said


@pytest.mark.slow
def test_swin_tiny_at_its_real_size(written: Written, imported: Imported) -> None:
    """189 tensors, 28,109,178 parameters, as the authors' training script saves them."""
    assert len(swin_state(TINY)) == 188
    model = check_swin(TINY, written, imported, "image_state_dict")
    assert model.name == "timm/swin_tiny_patch4_window7_224" and model.image_params == 28_109_178


@pytest.mark.slow
def test_vit_b32_at_its_real_size(written: Written, imported: Imported) -> None:
    """152 tensors, 88,045,824 parameters, and the architecture has its own name."""
    state = vit_state(width=768, layers=12, patch=32, side=224)
    projection = torch.randn(768, 768) / 28
    everything = {**prefixed(state, "visual."), "visual.proj": projection}
    assert len(everything) == 152
    model = imported(written({"image_state_dict": everything}))
    assert model.name == "ViT-B-32-quickgelu" and model.image_params == 88_045_824
    right = vit(exact(state), pictures(224).double(), heads=12) @ projection.double()
    assert close(features(model, pictures(224)), right)


Refused = Callable[..., str]


def test_what_is_missing_or_unknown(written: Written, refused: Refused) -> None:
    """With the nearest names, in the file's own spelling; nothing is loaded in part."""
    state = file("image_encoder.", "image_projection")
    state["image_encoder.ln_post.weigth"] = state.pop("image_encoder.ln_post.weight")
    message = refused(written(state))
    assert "does not fit ViT-B-32-quickgelu" in message and "1 missing, 1 unknown, 0 of another shape" in message
    assert "visual.ln_post.weight is missing (nearest in the file: image_encoder.ln_post.weigth)" in message
    assert "image_encoder.ln_post.weigth is unknown (nearest wanted: visual.ln_post.weight)" in message
    state = file("image_encoder.", "image_projection")
    state["image_encoder.ln_pre.bias"] = torch.zeros(3)
    assert "image_encoder.ln_pre.bias is [3], wanted [128]" in refused(written(state))
    state = file("image_encoder.", "image_projection") | {"head.weight": torch.zeros(3)}
    assert "head.weight is unknown" in refused(written(state), "dimefm")


def test_none_or_two_of_a_kind(written: Written, refused: Refused) -> None:
    """Guessing would give a student that computes nothing of use."""
    state = file("image_encoder.", "image_projection")
    assert "of an image projection it has several: image_projection, vision_projection" in refused(
        written({**state, "vision_projection": PROJECTION})
    )
    state.pop("image_projection")
    assert "of an image projection it has none of image_projection, vision_projection, visual.proj" in refused(
        written(state)
    )
    assert "(nearest: image_projecton)" in refused(written({**state, "image_projecton": PROJECTION}))
    both = {**file("image_encoder.", "image_projection"), **prefixed(vit_state(), "visual.")}
    assert "of an image tower it has several: image_encoder., visual." in refused(written(both))
    assert "of an image tower it has none" in refused(written({"image_projection": PROJECTION}))
    strange = {"image_encoder.stem.weight": torch.zeros(3), "image_projection": PROJECTION}
    assert "is neither a ViT" in refused(written(strange))


def test_swins_that_are_not_known(written: Written, refused: Refused) -> None:
    """Another size; an epsilon that timm cannot build."""
    state = {**prefixed(swin_state(SMALL), "image_encoder."), "image_projection": torch.zeros(96, 24)}
    assert "leave the option out" in refused(written(state), layer_norm_eps=1e-12)
    assert "a Swin of width 12, blocks (2, 2, 2, 2), heads (1, 2, 3, 6) is not known; known: width 96" in refused(
        written(state)
    )

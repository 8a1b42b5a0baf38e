"""A CLIPModel folder without its package: names written down here a second time, the other way round."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from imports.clip_file import IMAGES, PROJECTION, TOKENS
from imports.networks import State, exact, gelu, quick_gelu, text_state, vit, vit_state, words
from safetensors.torch import save_file

from toolkit.config import Preprocess
from toolkit.models import Model

Imported = Callable[..., Model]
Refused = Callable[..., str]
HEADS, TEXT_HEADS = 4, 2


def config(**changes: Any) -> dict[str, Any]:
    """Of a small CLIPModel; what is the default is left out, as its writer does."""
    vision = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": HEADS, "num_hidden_layers": 2}
    vision |= {"image_size": 32, "patch_size": 16}
    text = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": TEXT_HEADS, "num_hidden_layers": 2}
    text |= {"max_position_embeddings": 16}
    found = {"model_type": "clip", "projection_dim": 24, "vision_config": vision, "text_config": text}
    for key, value in changes.items():
        found[key] = {**found[key], **value} if isinstance(value, dict) else value
    return found


def blocks(state: State, side: str) -> State:
    """CLIP's residual blocks in their names, attention's inputs apart."""
    found: State = {}
    for number in range(2):
        ours, theirs = f"transformer.resblocks.{number}", f"{side}_model.encoder.layers.{number}"
        for kind in ("weight", "bias"):
            for part, value in zip("qkv", state[f"{ours}.attn.in_proj_{kind}"].chunk(3), strict=True):
                found[f"{theirs}.self_attn.{part}_proj.{kind}"] = value.clone()
            found[f"{theirs}.self_attn.out_proj.{kind}"] = state[f"{ours}.attn.out_proj.{kind}"]
            found[f"{theirs}.layer_norm1.{kind}"] = state[f"{ours}.ln_1.{kind}"]
            found[f"{theirs}.layer_norm2.{kind}"] = state[f"{ours}.ln_2.{kind}"]
            found[f"{theirs}.mlp.fc1.{kind}"] = state[f"{ours}.mlp.c_fc.{kind}"]
            found[f"{theirs}.mlp.fc2.{kind}"] = state[f"{ours}.mlp.c_proj.{kind}"]
    return found


def weights() -> State:
    """Both towers."""
    v, t = vit_state(), text_state()
    found = {
        "logit_scale": torch.tensor(4.6),
        "vision_model.embeddings.class_embedding": v["class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": v["conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": v["positional_embedding"],
        "vision_model.embeddings.position_ids": torch.arange(5)[None],
        "visual_projection.weight": PROJECTION.T.contiguous(),
        "text_model.embeddings.token_embedding.weight": t["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": t["positional_embedding"],
        "text_projection.weight": t["text_projection"].T.contiguous(),
        **blocks(v, "vision"),
        **blocks(t, "text"),
    }
    for kind in ("weight", "bias"):
        found[f"vision_model.pre_layrnorm.{kind}"] = v[f"ln_pre.{kind}"]
        found[f"vision_model.post_layernorm.{kind}"] = v[f"ln_post.{kind}"]
        found[f"text_model.final_layer_norm.{kind}"] = t[f"ln_final.{kind}"]
    return found


def folder(path: Path, state: State, cfg: dict[str, Any] | None, parts: int = 1) -> Path:
    """As save_pretrained writes it, in several files where asked."""
    path.mkdir()
    if cfg is not None:
        (path / "config.json").write_text(json.dumps(cfg))
    if parts == 1:
        save_file(state, path / "model.safetensors")
        return path
    names = sorted(state)
    where = {name: f"model-{number % parts + 1:05d}-of-{parts:05d}.safetensors" for number, name in enumerate(names)}
    for file in set(where.values()):
        save_file({name: state[name] for name in names if where[name] == file}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return path


CASES: dict[str, tuple[dict[str, Any], Any, float, float, int]] = {
    "defaults": ({}, quick_gelu, 1e-5, 1e-5, 1),
    "in three files": ({}, quick_gelu, 1e-5, 1e-5, 3),
    "gelu": ({"vision_config": {"hidden_act": "gelu"}, "text_config": {"hidden_act": "gelu"}}, gelu, 1e-5, 1e-5, 1),
    "other epsilons": (
        {"vision_config": {"layer_norm_eps": 1e-3}, "text_config": {"layer_norm_eps": 1e-2, "eos_token_id": 2}},
        quick_gelu,
        1e-3,
        1e-2,
        1,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_both_towers(case: str, tmp_path: Path, imported: Imported) -> None:
    """Against the formulas, with the config's heads, activation and epsilons."""
    changes, act, eps, text_eps, parts = CASES[case]
    model = imported(folder(tmp_path / "clip", weights(), config(**changes), parts))
    module: Any = model.module.double()
    with torch.no_grad():
        image, text = module.encode_image(IMAGES.double()), module.encode_text(TOKENS)
    right = vit(exact(vit_state()), IMAGES.double(), HEADS, eps, act) @ PROJECTION.double()
    right_text = words(exact(text_state()), TOKENS, TEXT_HEADS, text_eps, act)
    assert torch.allclose(image, right, rtol=0, atol=1e-9) and torch.allclose(text, right_text, rtol=0, atol=1e-9)
    assert module.logit_scale.shape == (1,)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_a_folder_that_the_package_itself_has_written(act: str, tmp_path: Path, imported: Imported) -> None:
    """Where it is installed: its own model, saved by itself, gives the same features."""
    transformers = pytest.importorskip("transformers")
    how = {"hidden_act": act, "layer_norm_eps": 1e-3}
    theirs = transformers.CLIPModel(transformers.CLIPConfig(**config(vision_config=how, text_config=how))).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    module: Any = imported(tmp_path / "theirs").module.double()
    theirs = theirs.double()
    with torch.no_grad():
        for name, found, given in (
            ("image", module.encode_image, IMAGES.double()),
            ("text", module.encode_text, TOKENS),
        ):
            side = theirs.vision_model if name == "image" else theirs.text_model
            project = theirs.visual_projection if name == "image" else theirs.text_projection
            right = project(side(given).pooler_output)
            assert torch.allclose(found(given), right, rtol=0, atol=1e-9)


def test_how_it_sees_pictures(tmp_path: Path, imported: Imported) -> None:
    """From its own file."""
    path = folder(tmp_path / "clip", weights(), config())
    seen = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 2, "do_resize": True}
    (path / "preprocessor_config.json").write_text(json.dumps(seen))
    assert imported(path).preprocess == Preprocess(32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear")


def test_the_vision_model_with_its_projection(tmp_path: Path, imported: Imported) -> None:
    """Its config is the vision tower's own."""
    state = {key: value for key, value in weights().items() if key.startswith(("vision_model", "visual_projection"))}
    model = imported(folder(tmp_path / "clip", state, {"model_type": "clip_vision_model", **config()["vision_config"]}))
    module: Any = model.module.double()
    with torch.no_grad():
        found = module.encode_image(IMAGES.double())
    right = vit(exact(vit_state()), IMAGES.double(), HEADS) @ PROJECTION.double()
    assert torch.allclose(found, right, rtol=0, atol=1e-9)
    assert model.tokenizer is None


def without(name: str) -> State:
    """A file that lost a tensor."""
    return {key: value for key, value in weights().items() if key != name}


def test_what_is_not_carried_over_is_refused(tmp_path: Path, refused: Refused) -> None:
    """Each with its reason."""
    wrong: dict[str, tuple[State, dict[str, Any] | None, str]] = {
        "no config": (weights(), None, "no config.json lies beside the weights"),
        "siglip": (weights(), config(model_type="siglip"), "holds a model of type 'siglip'"),
        "act": (weights(), config(text_config={"hidden_act": "gelu_new"}), "hidden_act is gelu_new, quick_gelu"),
        "eos": (weights(), config(text_config={"eos_token_id": 7}), "eos_token_id 7 is not the highest of 49408"),
        "key": (
            without("vision_model.encoder.layers.1.self_attn.k_proj.bias"),
            config(),
            "visual.transformer.resblocks.1.attn.in_proj_bias is missing (nearest in the file: "
            "vision_model.encoder.layers.1.self_attn.q_proj.bias)",
        ),
        "norm": (without("text_model.final_layer_norm.bias"), config(), "ln_final.bias is missing"),
        "projection": (without("visual_projection.weight"), config(), "has no visual_projection.weight"),
        "layers": (weights(), config(vision_config={"num_hidden_layers": 3}), "resblocks.2.ln_1.weight is missing"),
        "more": ({**weights(), "head.bias": torch.zeros(2)}, config(), "head.bias is unknown"),
    }
    for name, (state, cfg, said) in wrong.items():
        assert said in refused(folder(tmp_path / name, state, cfg), "hugging_face")


def test_indices_that_point_elsewhere(tmp_path: Path, refused: Refused) -> None:
    """A file name of an index stays in its folder, and every part must be there."""
    path = folder(tmp_path / "clip", weights(), config(), parts=3)
    (path / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors is missing (1 of 3)" in refused(path)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../weights.safetensors"}}))
    assert "no weight_map of file names in its own folder" in refused(path)

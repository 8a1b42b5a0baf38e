"""`dime export --to hugging_face`: transformers alone loads it, and it is the student weight for weight."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPProcessor

from toolkit.errors import ExportError
from toolkit.export import export_run, hugging_face
from toolkit.models import build_tokenizer
from toolkit.models.build import WEIGHTS_NAME, from_folder

sys.path.insert(0, str(Path(__file__).parent))
from other_library import by_hand, classify_with, noise

MakeRun = Callable[..., Path]
PROMPTS = ["a red square", "two blue dots", "nothing at all"]


def checkpoint_of(run: Path) -> Path:
    """The one it has."""
    return run / "checkpoints" / "step_00000003"


def back(model: Any) -> dict[str, torch.Tensor]:
    """A CLIPModel's weights under open_clip's names, read off its modules one by one."""
    vision, text = model.vision_model, model.text_model
    found = {
        "visual.class_embedding": vision.embeddings.class_embedding,
        "visual.positional_embedding": vision.embeddings.position_embedding.weight,
        "visual.conv1.weight": vision.embeddings.patch_embedding.weight,
        "visual.proj": model.visual_projection.weight.T,
        "token_embedding.weight": text.embeddings.token_embedding.weight,
        "positional_embedding": text.embeddings.position_embedding.weight,
        "text_projection": model.text_projection.weight.T,
        "logit_scale": model.logit_scale.reshape(1),
    }
    norms = {
        "visual.ln_pre": vision.pre_layrnorm,
        "visual.ln_post": vision.post_layernorm,
        "ln_final": text.final_layer_norm,
    }
    linears = {}
    for where, tower in (("visual.transformer", vision), ("transformer", text)):
        for number, layer in enumerate(tower.encoder.layers):
            place, attention = f"{where}.resblocks.{number}", layer.self_attn
            three = (attention.q_proj, attention.k_proj, attention.v_proj)
            found[f"{place}.attn.in_proj_weight"] = torch.cat([one.weight for one in three])
            found[f"{place}.attn.in_proj_bias"] = torch.cat([one.bias for one in three])
            norms |= {f"{place}.ln_1": layer.layer_norm1, f"{place}.ln_2": layer.layer_norm2}
            linears |= {f"{place}.attn.out_proj": attention.out_proj}
            linears |= {f"{place}.mlp.c_fc": layer.mlp.fc1, f"{place}.mlp.c_proj": layer.mlp.fc2}
    for name, layer in {**norms, **linears}.items():
        found |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    return {name: value.detach() for name, value in found.items()}


@pytest.mark.parametrize(
    "variant", ["", *(pytest.param(name, marks=pytest.mark.slow) for name in ("-gelu", "-custom"))]
)
def test_a_student_with_its_own_text_tower_comes_back(
    variant: str, own_text_run: MakeRun, clip: str, tmp_path: Path
) -> None:
    """Equal weights, every one of them."""
    run, out = own_text_run(clip + variant), tmp_path / "out"
    record = export_run(run, "hugging_face", out)
    assert max(record["parity"]["image_features"], record["parity"]["text_features"]) < 1e-5
    assert record["parity"]["tokens"] == 0 and record["parity"]["picture_levels"] < 4
    found = back(CLIPModel.from_pretrained(out))
    wanted = {key.removeprefix("text."): value for key, value in load_file(checkpoint_of(run) / WEIGHTS_NAME).items()}
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_a_script_that_knows_only_transformers(own_text_run: MakeRun, tmp_path: Path) -> None:
    """A picture of the student's size, so that both prepare the same pixels: the probabilities computed by hand."""
    run, out = own_text_run(), tmp_path / "out"
    export_run(run, "hugging_face", out)
    picture = noise(tmp_path / "picture.png", 32, 32)
    student = from_folder(checkpoint_of(run), asked_by="test")
    scale = float(student.module.logit_scale.detach().exp())  # type: ignore[union-attr, operator]
    wanted = by_hand(student, student, picture, PROMPTS, scale)
    assert classify_with("transformers")(out, picture, PROMPTS) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.slow
def test_towers_of_two_activations(image_run: MakeRun, clip: str, tmp_path: Path) -> None:
    """GELU in the student, QuickGELU in the teacher's text tower: each has a config of its own here."""
    record = export_run(image_run(f"{clip}-gelu"), "hugging_face", tmp_path / "out")
    config = CLIPModel.from_pretrained(tmp_path / "out").config
    assert (config.vision_config.hidden_act, config.text_config.hidden_act) == ("gelu", "quick_gelu")
    assert record["text_tower"]["of"] == "teacher" and record["parity"]["image_features"] < 1e-5


def test_its_tokenizer_is_clips(own_text_run: MakeRun, clip: str, tmp_path: Path) -> None:
    """Cut at the student's length with the end token kept."""
    export_run(own_text_run(), "hugging_face", tmp_path / "out")
    processor = CLIPProcessor.from_pretrained(tmp_path / "out")
    sentences = ["A photo of a cat.", "it's 3 o'clock", "one " * 40]
    given = processor(text=sentences, padding=True, truncation=True)
    ours = build_tokenizer(clip, 16)(sentences).tolist()
    for row, mask, wanted in zip(given["input_ids"], given["attention_mask"], ours, strict=True):
        kept = [number for number, real in zip(row, mask, strict=True) if real]
        assert kept == [number for number in wanted if number] and len(row) == 16


REFUSED = {"-resnet": "is a plain ViT", "-pooled": "has avg pooling, which CLIPModel lacks", "-bias": "logit bias"}


@pytest.mark.parametrize("variant", REFUSED)
def test_what_no_clip_model_is(variant: str, own_text_run: MakeRun, clip: str, tmp_path: Path) -> None:
    """open_clip can, and is named."""
    with pytest.raises(ExportError, match=rf"{REFUSED[variant]}.*; use --to open_clip, onnx or torch_export"):
        export_run(own_text_run(clip + variant), "hugging_face", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_timm_student(image_run: MakeRun, tmp_path: Path) -> None:
    """Swin and all the others."""
    with pytest.raises(ExportError, match=r"timm/test_resnet is none; use --to open_clip, onnx or torch_export"):
        export_run(image_run("timm/test_resnet"), "hugging_face", tmp_path / "out")


def test_weights_in_the_wrong_place_are_seen(
    own_text_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys and queries changed places: shapes fit, features do not."""
    real = hugging_face.renamed

    def swapped(state):
        found = real(state)
        q, v = (f"vision_model.encoder.layers.0.self_attn.{letter}_proj.weight" for letter in "qv")
        return {**found, q: found[v], v: found[q]}

    monkeypatch.setattr(hugging_face, "renamed", swapped)
    with pytest.raises(ExportError, match="image_features differ by"):
        export_run(own_text_run(), "hugging_face", tmp_path / "out")
    assert not list(tmp_path.iterdir())

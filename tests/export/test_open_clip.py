"""`dime export --to open_clip`: open_clip alone loads it, and it is the student weight for weight."""

import hashlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from toolkit.cli import dispatch
from toolkit.errors import ConfigError, ExportError
from toolkit.export import export_run
from toolkit.export import open_clip as ours
from toolkit.models.build import WEIGHTS_NAME, from_folder

sys.path.insert(0, str(Path(__file__).parent))
from other_library import by_hand, classify_with, noise  # tests are no package

MakeRun = Callable[..., Path]
PROMPTS = ["a red square", "two blue dots", "nothing at all"]


def checkpoint_of(run: Path) -> Path:
    """The one it has."""
    return run / "checkpoints" / "step_00000003"


@pytest.mark.parametrize(
    "variant",
    ["-custom", *(pytest.param(name, marks=pytest.mark.slow) for name in ("", "-resnet", "-pooled", "-gelu"))],
)
def test_a_student_with_its_own_text_tower_comes_back(
    variant: str, own_text_run: MakeRun, clip: str, tmp_path: Path
) -> None:
    """Equal weights, through the command, for every kind of image tower and both ways to hold a text tower."""
    run, out = own_text_run(clip + variant), tmp_path / "out"
    dispatch(["export", str(run), "--to", "open_clip", "--out", str(out)])
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{out}")
    found, wanted = model.state_dict(), load_file(checkpoint_of(run) / WEIGHTS_NAME)
    assert found.keys() == wanted.keys()
    assert found["logit_scale"].shape == () and wanted["logit_scale"].shape == (1,)
    assert all(torch.equal(found[key].reshape(wanted[key].shape), wanted[key]) for key in wanted)


def test_a_script_that_knows_only_open_clip(own_text_run: MakeRun, tmp_path: Path) -> None:
    """A picture of another shape, its preparation, tokens and scale: the probabilities computed by hand."""
    run, out = own_text_run(), tmp_path / "out"
    export_run(run, "open_clip", out)
    picture = noise(tmp_path / "picture.png", 96, 64)
    student = from_folder(checkpoint_of(run), asked_by="test")
    scale = float(student.module.logit_scale.detach().exp())  # type: ignore[union-attr, operator]
    wanted = by_hand(student, student, picture, PROMPTS, scale)
    assert classify_with("open_clip")(out, picture, PROMPTS) == pytest.approx(wanted, abs=1e-5)
    assert max(wanted) - min(wanted) > 0.01


@pytest.mark.parametrize("name", ["", "timm/test_vit"])
def test_an_image_tower_goes_with_the_teachers_text_tower(
    name: str, image_run: MakeRun, clip: str, tmp_path: Path
) -> None:
    """Image tower of the student, everything else of the teacher, its hash and a word on its licence."""
    run, out = image_run(name or clip), tmp_path / "out"
    record = export_run(run, "open_clip", out)
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{out}")
    found = model.state_dict()
    student = load_file(checkpoint_of(run) / WEIGHTS_NAME)
    teacher = load_file(tmp_path / "teacher" / WEIGHTS_NAME)
    text = {key: value for key, value in teacher.items() if not key.startswith("visual.")}
    assert found.keys() == student.keys() | text.keys()
    assert all(torch.equal(found[key].reshape(v.shape), v) for key, v in {**student, **text}.items())
    digest = hashlib.sha256()
    for key in sorted(text):
        digest.update(key.encode() + text[key].numpy().tobytes())
    tower = record["text_tower"]
    assert tower["of"] == "teacher" and tower["name"] == str(tmp_path / "teacher")
    assert (
        tower["sha256"] == digest.hexdigest() and "terms under which those weights were published" in tower["licence"]
    )


def test_the_record(own_text_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the export and on the last line; the differences are printed too."""
    out = tmp_path / "out"
    dispatch(["export", str(own_text_run()), "--to", "open_clip", "--out", str(out), "--json"])
    *words, last = capsys.readouterr().out.splitlines()
    record = json.loads(last)
    assert record == json.loads((out / "export.json").read_text())
    assert record["format"] == "open_clip" and record["checkpoint"] == "step_00000003"
    parity = record["parity"]
    assert parity["bound"] == 1e-5 and parity["tokens"] == 0 and parity["picture_levels"] < 0.01
    assert max(parity["image_features"], parity["text_features"]) < 1e-6
    assert record["text_tower"] == {"of": "student"} and record["versions"]["open_clip_torch"]
    assert record["bytes"]["open_clip_model.safetensors"] == (out / "open_clip_model.safetensors").stat().st_size
    assert any("compared on random inputs (bound 1e-05): image_features " in line for line in words)


@pytest.mark.slow
def test_the_scale_is_what_training_used(
    own_text_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student's own scale counts at most 100 in training."""
    found = ours.state_of

    def with_large_scale(source):
        with torch.no_grad():
            source.student.module.logit_scale.fill_(7.0)
        return found(source)

    monkeypatch.setattr(ours, "state_of", with_large_scale)
    export_run(own_text_run(), "open_clip", tmp_path / "out")
    state = load_file(tmp_path / "out" / "open_clip_model.safetensors")
    assert float(state["logit_scale"]) == pytest.approx(math.log(100))


def nudged(state: dict[str, torch.Tensor], key: str) -> dict[str, torch.Tensor]:
    """One number a little off."""
    state[key].view(-1)[0] += 0.05
    return state


def test_an_export_that_differs_is_removed(
    own_text_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One wrong number among thousands, in either tower, leaves nothing behind."""
    found, run = ours.state_of, own_text_run()
    for key, tower in (("visual.ln_post.bias", "image_features"), ("ln_final.bias", "text_features")):
        monkeypatch.setattr(ours, "state_of", lambda source, key=key: nudged(found(source), key))
        with pytest.raises(ExportError, match=rf"{tower} differ by .* \(at most 1e-05\).*removed"):
            export_run(run, "open_clip", tmp_path / "out")
        assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_wrong_preparation_is_an_error(
    own_text_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of another model would cost accuracy in silence."""
    write = ours.write

    def with_other_mean(source, out):
        write(source, out)
        path = out / ours.CONFIG_NAME
        content = json.loads(path.read_text())
        content["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]
        path.write_text(json.dumps(content))

    monkeypatch.setattr(ours, "write", with_other_mean)
    with pytest.raises(ExportError, match="picture_levels differ"):
        export_run(own_text_run(), "open_clip", tmp_path / "out")


def test_students_that_open_clip_cannot_build(image_run: MakeRun, clip: str, tmp_path: Path) -> None:
    """GELU beside QuickGELU."""
    with pytest.raises(
        ExportError, match=r"computes GELU, the text tower of .* QuickGELU, and open_clip has one switch"
    ):
        export_run(image_run(f"{clip}-gelu"), "open_clip", tmp_path / "out")


def test_a_layer_behind_the_pooling(image_run: MakeRun, tmp_path: Path) -> None:
    """open_clip builds MobileNets wrongly."""
    with pytest.raises(ExportError, match=r"a layer behind its pooling .*; use --to onnx or torch_export"):
        export_run(image_run("timm/mobilenetv4_conv_small_050"), "open_clip", tmp_path / "out")


def test_modules_of_ones_own(scene_run: Path, tmp_path: Path) -> None:
    """With the formats that take them."""
    for to in ("open_clip", "hugging_face"):
        with pytest.raises(ExportError, match=rf"--to {to}: .*scene_clip.*; use --to onnx or torch_export"):
            export_run(scene_run, to, tmp_path / "out")


def test_mistakes(own_text_run: MakeRun, tmp_path: Path) -> None:
    """Before anything is loaded."""
    run, full = own_text_run(), tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    with pytest.raises(ConfigError, match="exists and is not an empty folder"):
        export_run(run, "open_clip", full)
    (tmp_path / "c.json").write_text('{"classnames": ["a"], "templates": ["{}"]}')
    with pytest.raises(ConfigError, match=r"--classes bakes a head in.*use --to onnx, onnx_int8, torch_export"):
        export_run(run, "open_clip", tmp_path / "out", classes=tmp_path / "c.json")
    with pytest.raises(ConfigError, match="is no run"):
        export_run(tmp_path / "nowhere", "open_clip", tmp_path / "out")
    assert (full / "mine").read_text() == "x" and not (tmp_path / "out").exists()


def test_a_missing_library(own_text_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Says what to install."""
    from toolkit.export import formats

    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--to onnx needs onnx, onnxscript, onnxruntime.*pip install .*\[export\]"):
        export_run(own_text_run(), "onnx", tmp_path / "out")

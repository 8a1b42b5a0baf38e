"""`dime export --to onnx | onnx_int8 | torch_export`: towers apart, any batch, and a head baked in."""

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx as onnx_file
import onnxruntime
import pytest
import torch
from PIL import Image

from toolkit.errors import ExportError
from toolkit.export import export_run, onnx
from toolkit.models.build import from_folder
from toolkit.playground.prepare import TEACHER
from toolkit.playground.scenes import CLASSNAMES, COMBOS, render, sample_scene
from toolkit.playground.shards import write_world

sys.path.insert(0, str(Path(__file__).parent))
from other_library import by_hand, classify_with, noise

MakeRun = Callable[..., Path]
PROMPTS = [f"a picture of a {name}." for name in CLASSNAMES]


def scene(path: Path, label: int) -> Path:
    """A picture of one thing of a class."""
    rng = np.random.default_rng([7, label])
    Image.fromarray(render(sample_scene(rng, combos=(COMBOS[label],), objects=1), rng)).save(path)
    return path


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of the playground."""
    path = tmp_path_factory.mktemp("classes") / "classes.json"
    path.write_text(json.dumps({"classnames": CLASSNAMES[:30:10], "templates": ["a picture of a {}.", "a {}."]}))
    return path


@pytest.fixture(scope="module")
def exported(scene_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The playground's model in ONNX."""
    out = tmp_path_factory.mktemp("onnx") / "out"
    record = export_run(scene_run, "onnx", out)
    parity = record["parity"]
    assert parity.keys() == {"bound", "image_features", "text_features"}
    assert 0 < max(parity["image_features"], parity["text_features"]) < 1e-5
    return out


def test_a_script_that_knows_only_onnxruntime_names_the_scenes(exported: Path, tmp_path: Path) -> None:
    """Eight of ten classes at least among 120, and the probabilities that come out by hand."""
    classify, right = classify_with("onnxruntime"), 0
    model = from_folder(TEACHER, asked_by="test")
    scale = float(model.module.logit_scale.detach().exp())  # type: ignore[union-attr, operator]
    for label in range(0, 120, 12):
        picture = scene(tmp_path / "scene.png", label)
        found = classify(exported, picture, PROMPTS)
        right += int(np.argmax(found)) == label
        if label == 0:
            assert found == pytest.approx(by_hand(model, model, picture, PROMPTS, scale), abs=1e-4)
    assert right >= 8


def test_any_batch(exported: Path) -> None:
    """Names, and a free first axis in both files."""
    for name, given, found, shape, kind in (
        ("image", "images", "image_features", (3, 32, 32), np.float32),
        ("text", "tokens", "text_features", (24,), np.int64),
    ):
        session = onnxruntime.InferenceSession(exported / f"{name}.onnx", providers=["CPUExecutionProvider"])
        assert [one.name for one in (*session.get_inputs(), *session.get_outputs())] == [given, found]
        rows = np.random.default_rng(0).integers(1, 200, (7, *shape)).astype(kind)
        together = session.run(None, {given: rows})[0]
        assert together.shape == (7, 128) and np.allclose(np.linalg.norm(together, axis=-1), 1, atol=1e-5)
        apart = np.concatenate([session.run(None, {given: rows[k : k + 1]})[0] for k in range(7)])
        assert np.abs(together - apart).max() < 1e-5


def test_only_what_a_tower_uses_is_in_its_file(exported: Path) -> None:
    """The text tower's weights are not in the image tower's file."""
    module = from_folder(TEACHER, asked_by="test").module
    image, text = (4 * sum(p.numel() for p in part.parameters()) for part in (module.visual, module.text))  # type: ignore[union-attr]
    assert image < (exported / "image.onnx").stat().st_size < image + 100_000
    assert text < (exported / "text.onnx").stat().st_size < text + 100_000
    for name in ("image", "text"):
        held = onnx_file.load(exported / f"{name}.onnx")
        assert held.graph.initializer and held.graph.node
        del held.graph.initializer[:]  # weights may hold any three bytes by chance
        assert b".py" not in held.SerializeToString()  # nor where the code lay that was traced


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "torch_export"])
def test_a_clip_of_open_clip(to: str, image_run: MakeRun, tmp_path: Path) -> None:
    """A ViT and the teacher's causal text tower; CLIP's vocabulary lies beside them."""
    record = export_run(image_run(), to, tmp_path / "out")
    assert max(record["parity"]["image_features"], record["parity"]["text_features"]) < 1e-5
    assert record["text_tower"]["of"] == "teacher"
    how = json.loads((tmp_path / "out" / "preprocessing.json").read_text())
    assert how["text"]["tokenizer"]["kind"] == "clip_bpe" and how["text"]["length"] == 16
    vocabulary = json.loads((tmp_path / "out" / "vocab.json").read_text())
    assert len(vocabulary) == 49408 and vocabulary["<|endoftext|>"] == how["text"]["tokenizer"]["end"] == 49407


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_convnext", "timm/mobilenetv4_conv_small_050"])
@pytest.mark.slow
def test_timm_backbones(name: str, image_run: MakeRun, tmp_path: Path) -> None:
    """Whatever open_clip makes of them."""
    record = export_run(image_run(name), "onnx", tmp_path / "out")
    assert record["parity"]["image_features"] < 1e-5


@pytest.mark.slow
def test_a_head_baked_in(scene_run: Path, classes: Path, tmp_path: Path) -> None:
    """onnxruntime and a picture: no prompts, no text tower, no tokenizer."""
    out = tmp_path / "out"
    record = export_run(scene_run, "onnx", out, classes=classes)
    assert record["parity"]["probabilities"] < 1e-5
    assert sorted(path.name for path in out.iterdir()) == ["classifier.onnx", "export.json", "preprocessing.json"]
    names = json.loads((out / "preprocessing.json").read_text())["classnames"]
    assert names == list(CLASSNAMES[:30:10])
    model = from_folder(TEACHER, asked_by="test")
    scale = float(model.module.logit_scale.detach().exp())  # type: ignore[union-attr, operator]
    for number in range(3):
        found = classify_with("onnxruntime")(out, scene(tmp_path / "scene.png", 10 * number))
        assert sum(found) == pytest.approx(1) and int(np.argmax(found)) == number
    one = tmp_path / "one.json"
    one.write_text(json.dumps({"classnames": names, "templates": ["a {}."]}))
    export_run(scene_run, "onnx", tmp_path / "plain", classes=one)
    picture = noise(tmp_path / "noise.png", 32, 32)
    wanted = by_hand(model, model, picture, [f"a {name}." for name in names], scale)
    assert classify_with("onnxruntime")(tmp_path / "plain", picture) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.slow
def test_int8(scene_run: Path, tmp_path: Path) -> None:
    """Smaller, still right, and what it costs is measured on the run's own set."""
    world = write_world(tmp_path / "world", images=1, texts=1, test_images_per_class=1, test_pairs=1)
    sets = [
        f"evaluation.sets.scenes.shards={world / 'test_classes'}",
        f"evaluation.sets.scenes.classes={world / 'classes.json'}",
    ]
    record = export_run(scene_run, "onnx_int8", tmp_path / "out", overrides=["workers=0", *sets])
    row = record["int8"]["sets"]["scenes"]
    assert row["samples"] == 120 and row["fp32_top1"] > 90 and row["drop"] == row["fp32_top1"] - row["int8_top1"] < 3
    assert 0.99 < record["int8"]["text_mean_cosine"] < 1 and record["int8"]["image_mean_cosine"] > 0.99
    module = from_folder(TEACHER, asked_by="test").module
    assert record["bytes"]["text.onnx"] < 0.5 * 4 * sum(p.numel() for p in module.text.parameters())  # type: ignore[union-attr]
    assert not list((tmp_path / "out").glob("*.fp32"))


@pytest.mark.slow
def test_int8_without_a_set(small_scene_run: Path, tmp_path: Path) -> None:
    """Says so."""
    record = export_run(small_scene_run, "onnx_int8", tmp_path / "out")
    assert "names no classification set" in record["int8"]["not_measured"]


def test_torch_export(small_scene_run: Path, classes: Path, tmp_path: Path) -> None:
    """Programs that torch alone loads, for another batch than they were traced with."""
    record = export_run(small_scene_run, "torch_export", tmp_path / "out")
    assert max(record["parity"]["image_features"], record["parity"]["text_features"]) < 1e-5
    image = torch.export.load(tmp_path / "out" / "image.pt2").module()
    assert image(torch.randn(9, 3, 32, 32)).shape == (9, 128)
    with zipfile.ZipFile(tmp_path / "out" / "image.pt2") as archive:  # weights may hold any three bytes by chance
        graph = [archive.read(name) for name in archive.namelist() if "/weights/weight_" not in name]
    assert len(graph) > 3 and not any(b".py" in part for part in graph)
    export_run(small_scene_run, "torch_export", tmp_path / "head", classes=classes)
    rows = torch.export.load(tmp_path / "head" / "classifier.pt2").module()(torch.randn(4, 3, 32, 32))
    assert rows.shape == (4, 3) and torch.allclose(rows.sum(-1), torch.ones(4))


@pytest.mark.slow
def test_a_wrong_file_is_removed(small_scene_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of any format: here the pictures are one percent too bright."""
    real = onnx.image_side

    class Brighter(torch.nn.Module):
        def __init__(self, side):
            super().__init__()
            self.side = side

        def forward(self, images):
            return self.side(images * 1.01)

    monkeypatch.setattr(onnx, "image_side", lambda source: Brighter(real(source)))
    with pytest.raises(ExportError, match="image_features differ by"):
        export_run(small_scene_run, "onnx", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_model_that_cannot_be_traced(small_scene_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracer's reason in one message."""

    class Branching(torch.nn.Module):
        def forward(self, images):
            return images if float(images.sum()) > 0 else -images

    monkeypatch.setattr(onnx, "image_side", lambda source: Branching())
    with pytest.raises(ExportError, match=r"the image tower could not be traced \(.*must be plain tensor operations"):
        export_run(small_scene_run, "onnx", tmp_path / "out")

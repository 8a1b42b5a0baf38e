"""`dime export` with its options: which checkpoint, a head in int8, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from export.conftest import save_model
from safetensors.torch import load_file

from toolkit.checkpoint.files import STATE, folder_of, publish, written
from toolkit.cli import dispatch
from toolkit.errors import CheckpointError, ExportError
from toolkit.evaluate.exported import open_export
from toolkit.export import export_run
from toolkit.models.build import from_folder

MakeRun = Callable[..., Path]


@pytest.fixture
def two_checkpoints(image_run: MakeRun) -> Path:
    """A run whose newest checkpoint, after step 5, says that the one after step 3 was best."""
    run = image_run()
    student = from_folder(run / "checkpoints" / "step_00000003", asked_by="test")
    with torch.no_grad():
        student.module.visual.proj.mul_(2)  # type: ignore[operator, union-attr]
    aside = save_model(student, {}, False, run / "checkpoints" / "aside")
    (aside / STATE).write_text(json.dumps({"step": 5, "best_step": 3}))
    publish(aside, folder_of(run, 5), {path.name: written(path) for path in aside.iterdir()})
    return run


def projection(out: Path) -> torch.Tensor:
    """Of the image tower."""
    return load_file(out / "open_clip_model.safetensors")["visual.proj"]


def test_which_checkpoint(two_checkpoints: Path, tmp_path: Path) -> None:
    """The newest, the best, and one by its folder; the record says which."""
    run = two_checkpoints
    third = load_file(run / "checkpoints" / "step_00000003" / "student.safetensors")["visual.proj"]
    cases = {"newest": (5, 2), "best": (3, 1), str(run / "checkpoints" / "step_00000003"): (3, 1)}
    for number, (which, (step, factor)) in enumerate(cases.items()):
        out = tmp_path / f"out{number}"
        dispatch(["export", str(run), "--to", "open_clip", "--out", str(out), "--checkpoint", which])
        assert torch.equal(projection(out), factor * third)
        assert json.loads((out / "export.json").read_text())["checkpoint"] == f"step_{step:08d}"


def test_checkpoints_that_are_not_there(two_checkpoints: Path, own_text_run: MakeRun, tmp_path: Path) -> None:
    """None was best; a folder that is none; a torn one. Nothing is left."""
    with pytest.raises(CheckpointError, match="kept no best checkpoint"):
        export_run(own_text_run(), "open_clip", tmp_path / "out", which="best")
    with pytest.raises(CheckpointError, match="is not complete"):
        export_run(two_checkpoints, "open_clip", tmp_path / "out", which=str(tmp_path))
    with pytest.raises(CheckpointError, match="--checkpoint bst is no folder; did you mean best"):
        export_run(two_checkpoints, "open_clip", tmp_path / "out", which="bst")
    torn = two_checkpoints / "checkpoints" / "step_00000005"
    with open(torn / "student.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError, match="is not complete"):
        export_run(two_checkpoints, "open_clip", tmp_path / "out", which=str(torn))
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx_int8", "torch_export"])
def test_a_head_baked_in(to: str, scene_run: Path, tmp_path: Path) -> None:
    """Of four classes; int8's distance to the student is bounded and told; as a model to be judged it is refused."""
    classes = tmp_path / "classes.json"
    names = ["red circle", "red square", "blue circle", "green triangle"]
    classes.write_text(json.dumps({"classnames": names, "templates": ["a picture of a {}."]}))
    out = tmp_path / "out"
    record = export_run(scene_run, to, out, classes=classes)
    file = {"onnx_int8": "classifier.onnx", "torch_export": "classifier.pt2"}[to]
    assert sorted(path.name for path in out.iterdir()) == sorted([file, "export.json", "preprocessing.json"])
    assert json.loads((out / "preprocessing.json").read_text())["classnames"] == names
    if to == "onnx_int8":
        assert 0 < record["int8"]["probabilities_max_difference"] < 0.1
        session = onnxruntime.InferenceSession(out / file, providers=["CPUExecutionProvider"])
        rows = session.run(None, {"images": np.zeros((3, 3, 32, 32), dtype=np.float32)})[0]
        assert rows.shape == (3, 4) and np.allclose(rows.sum(-1), 1, atol=1e-5)
    else:
        assert record["parity"]["probabilities"] < 1e-5
    with pytest.raises(ExportError, match="is a classifier of 4 classes with its head baked in"):
        open_export(out, torch.device("cpu"))


def test_the_record_has_a_hash_of_every_file(own_text_run: MakeRun, tmp_path: Path) -> None:
    """Computed here by other means, and sizes of both towers."""
    import hashlib

    record = export_run(own_text_run(), "open_clip", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()} - {"export.json"}
    assert record["sha256"].keys() == record["bytes"].keys() == names
    for name in names:
        assert record["sha256"][name] == hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest()
    state = load_file(tmp_path / "out" / "open_clip_model.safetensors")
    image = sum(value.numel() for name, value in state.items() if name.startswith("visual."))
    assert record["params"] == {"image": image, "text": sum(value.numel() for value in state.values()) - image}


@pytest.mark.slow
@pytest.mark.parametrize("to", ["open_clip", "hugging_face", "onnx", "torch_export"])
def test_the_papers_swin(to: str, image_run: MakeRun, tmp_path: Path) -> None:
    """Swin-T at its real size: its embeddings through every library but transformers, whose CLIPModel is a plain ViT."""
    run, out = image_run("timm/swin_tiny_patch4_window7_224"), tmp_path / "out"
    if to == "hugging_face":
        with pytest.raises(ExportError, match="use --to open_clip, onnx or torch_export, which take any student"):
            export_run(run, to, out)
        return
    record = export_run(run, to, out)
    assert max(record["parity"]["image_features"], record["parity"]["text_features"]) < 1e-5
    student = from_folder(run / "checkpoints" / "step_00000003", asked_by="test")
    assert record["params"]["image"] == student.image_params > 27_000_000
    found = open_export(out, torch.device("cpu")).encoder
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (student.preprocess.mean, student.preprocess.std))
    with torch.no_grad():
        wanted = student.module.eval().encode_image((pixels.float() / 255 - mean) / std)  # type: ignore[operator]
    assert torch.allclose(found.encode_image(pixels), torch.nn.functional.normalize(wanted, dim=-1), atol=1e-5)


def test_a_refusal_names_every_format_that_can(image_run: MakeRun, clip: str, tmp_path: Path) -> None:
    """GELU beside QuickGELU: open_clip has one switch, transformers two."""
    with pytest.raises(ExportError, match="one switch for both; use --to hugging_face, onnx or torch_export"):
        export_run(image_run(f"{clip}-gelu"), "open_clip", tmp_path / "out")

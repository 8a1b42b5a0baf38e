"""Student -> export -> student: what comes back through `dime import` is the student, name by name and bit for bit."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from export.conftest import PAIRED, save_run, shaken
from onnx import numpy_helper
from safetensors.torch import load_file

from toolkit import config
from toolkit.errors import ConfigError, ToolkitError
from toolkit.export import export_run
from toolkit.imports import Wishes, import_weights
from toolkit.models import build_student
from toolkit.models.build import WEIGHTS_NAME, build_model

MakeRun = Callable[..., Path]
State = dict[str, torch.Tensor]


def weights_of(run: Path) -> State:
    """The run's own file."""
    return load_file(run / "checkpoints" / "step_00000003" / WEIGHTS_NAME)


def same(found: State, wanted: State) -> bool:
    """Names, shapes, types and every bit."""
    return found.keys() == wanted.keys() and all(
        found[key].dtype == value.dtype and torch.equal(found[key], value) for key, value in wanted.items()
    )


def back(out: Path, to: str, image_only: bool = False) -> Path:
    """Through the command's own function, which is asked for the layout; the folder that comes out starts a student."""
    again = out.with_name(f"{out.name}-imported")
    card = import_weights(out, again, Wishes(layout=to, image_only=image_only))
    chosen = config.Student(
        card["name"], card["kwargs"], card["embed_dim"], text_tower=card["text_tower"], pretrained=str(again)
    )
    model = build_student(chosen, None)
    assert same(dict(model.module.state_dict()), load_file(again / WEIGHTS_NAME))
    assert model.preprocess.image_size == card["preprocess"]["image_size"]
    return again


SAVED = ["-gelu", *(pytest.param(name, marks=pytest.mark.slow) for name in ("", "-resnet", "-pooled", "-custom"))]


@pytest.mark.parametrize("variant", SAVED)
def test_open_clip(variant: str, own_text_run: MakeRun, clip: str, tmp_path: Path) -> None:
    """Both towers and the scale, of architectures that open_clip knows by name."""
    run = own_text_run(clip + variant)
    export_run(run, "open_clip", tmp_path / "out")
    assert same(load_file(back(tmp_path / "out", "open_clip") / WEIGHTS_NAME), weights_of(run))


@pytest.fixture
def nameless(clip: str, tmp_path: Path) -> Path:
    """A run of an architecture that has no name: three blocks, another epsilon."""
    kwargs = {"vision_cfg": {"layers": 3, "norm_kwargs": {"eps": 1e-3}}, "text_cfg": {"norm_kwargs": {"eps": 1e-3}}}
    model = shaken(build_model(clip, kwargs, embed_dim=None, text_tower=True, asked_by="test"))
    words = [f"student.kwargs.{tower}.norm_kwargs.eps=1e-3" for tower in kwargs]
    return save_run(
        tmp_path / "run", model, ["student.text_tower=true", "student.kwargs.vision_cfg.layers=3", *words, *PAIRED]
    )


@pytest.mark.parametrize("to", ["open_clip", pytest.param("hugging_face", marks=pytest.mark.slow)])
def test_an_architecture_without_a_name(to: str, nameless: Path, tmp_path: Path) -> None:
    """Sizes and the epsilon stand in the folder."""
    export_run(nameless, to, tmp_path / "out")
    again = back(tmp_path / "out", to)
    assert same(load_file(again / WEIGHTS_NAME), weights_of(nameless))
    assert json.loads((again / "student.json").read_text())["numerics"]["layer_norm_eps"] == [1e-3]


@pytest.mark.parametrize(
    "name", ["", *(pytest.param(f"timm/{name}", marks=pytest.mark.slow) for name in ("test_vit", "test_resnet"))]
)
def test_an_image_tower_and_its_teachers_text_tower(name: str, image_run: MakeRun, clip: str, tmp_path: Path) -> None:
    """Both, each from its own file; with --image-only the student as it was."""
    run = image_run(name or clip)
    export_run(run, "open_clip", tmp_path / "out")
    student = weights_of(run)
    assert same(load_file(back(tmp_path / "out", "open_clip", image_only=True) / WEIGHTS_NAME), student)
    teacher = {k: v for k, v in load_file(tmp_path / "teacher" / WEIGHTS_NAME).items() if not k.startswith("visual.")}
    import_weights(tmp_path / "out", tmp_path / "both", Wishes(layout="open_clip"))
    assert same(load_file(tmp_path / "both" / WEIGHTS_NAME), {**student, **teacher})


@pytest.mark.parametrize("variant", ["", pytest.param("-gelu", marks=pytest.mark.slow)])
def test_hugging_face(variant: str, own_text_run: MakeRun, clip: str, tmp_path: Path) -> None:
    """Query, key and value joined again, projections turned back."""
    run = own_text_run(clip + variant)
    export_run(run, "hugging_face", tmp_path / "out")
    assert same(load_file(back(tmp_path / "out", "hugging_face") / WEIGHTS_NAME), weights_of(run))


@pytest.mark.slow
def test_hugging_face_with_two_activations(image_run: MakeRun, clip: str, tmp_path: Path) -> None:
    """GELU in the student, QuickGELU in the teacher: a CLIPModel has both, a student here one, so the image tower alone."""
    run = image_run(f"{clip}-gelu")
    export_run(run, "hugging_face", tmp_path / "out")
    assert same(load_file(back(tmp_path / "out", "hugging_face", image_only=True) / WEIGHTS_NAME), weights_of(run))
    with pytest.raises(ToolkitError, match=r"hidden_act is gelu, quick_gelu; .*--image-only"):
        import_weights(tmp_path / "out", tmp_path / "both")


@pytest.mark.slow
def test_how_pictures_are_seen_comes_back(clip: str, tmp_path: Path) -> None:
    """Mean, deviation, interpolation and squashing through transformers' own files."""
    model = shaken(build_model(clip, {}, embed_dim=None, text_tower=True, asked_by="test"))
    model.preprocess = config.Preprocess(32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear", "squash")
    run = save_run(tmp_path / "run", model, ["student.text_tower=true", *PAIRED])
    for to in ("open_clip", "hugging_face"):
        export_run(run, to, tmp_path / to)
        card = json.loads((back(tmp_path / to, to) / "student.json").read_text())
        assert card["preprocess"] == {
            "image_size": 32,
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "interpolation": "bilinear",
            "resize_mode": "squash",
        }


@pytest.mark.slow
def test_an_imported_folder_is_exported(own_text_run: MakeRun, image_run: MakeRun, clip: str, tmp_path: Path) -> None:
    """Export, import, export: the same file; of an image tower with the teacher that is named."""
    export_run(own_text_run(), "open_clip", tmp_path / "first")
    again = back(tmp_path / "first", "open_clip")
    record = export_run(again, "open_clip", tmp_path / "second")
    assert record["run"] == str(again) and record["text_tower"]["of"] == "student"
    first, second = (tmp_path / name / "open_clip_model.safetensors" for name in ("first", "second"))
    assert same(load_file(first), load_file(second))
    export_run(image_run(), "open_clip", tmp_path / "third")
    alone = back(tmp_path / "third", "open_clip", image_only=True)
    with pytest.raises(ConfigError, match=r"names no teacher to take one from; give teacher\.name"):
        export_run(alone, "open_clip", tmp_path / "fourth")
    export_run(alone, "open_clip", tmp_path / "fourth", overrides=[f"teacher.name={tmp_path / 'teacher'}"])
    assert same(*(load_file(tmp_path / name / "open_clip_model.safetensors") for name in ("third", "fourth")))


def weights_of_program(path: Path) -> State:
    """Parameters and buffers of a .pt2 file by name, read as bytes out of its archive; nothing of it is run."""
    with zipfile.ZipFile(path) as archive:
        parts = {name.partition("/")[2]: name for name in archive.namelist()}
        told = json.loads(archive.read(parts["data/weights/model_weights_config.json"]))["config"]
        found = {}
        for name, entry in told.items():
            meta = entry["tensor_meta"]
            sizes = [size["as_int"] for size in meta["sizes"]]
            steps = [step["as_int"] for step in meta["strides"]]
            kind = {7: torch.float32, 5: torch.int64}[meta["dtype"]]
            flat = torch.frombuffer(bytearray(archive.read(parts[f"data/weights/{entry['path_name']}"])), dtype=kind)
            found[name] = flat.as_strided(sizes, steps, meta["storage_offset"]["as_int"])
    return {name.removeprefix("model."): value for name, value in found.items()}


def check_programs(out: Path, student: State, text: State) -> None:
    """Every weight of the student stands in one of the two files under its own name; a scale is of no tower."""
    image, words = (weights_of_program(out / name) for name in ("image.pt2", "text.pt2"))
    for found, wanted in ((image, student), (words, text)):
        assert found and all(torch.equal(value, wanted[name]) for name, value in found.items())
    assert student.keys() - image.keys() - words.keys() <= {"logit_scale"}
    assert {key for key in text if not key.startswith("visual.")} - words.keys() <= {"logit_scale"}


@pytest.mark.slow
def test_torch_export(own_text_run: MakeRun, image_run: MakeRun, tmp_path: Path) -> None:
    """CLIP with both towers; a ResNet of timm, statistics of its norms included, with the teacher's text tower."""
    run = own_text_run()
    export_run(run, "torch_export", tmp_path / "clip")
    check_programs(tmp_path / "clip", weights_of(run), weights_of(run))
    run = image_run("timm/test_resnet")
    export_run(run, "torch_export", tmp_path / "resnet")
    check_programs(tmp_path / "resnet", weights_of(run), load_file(tmp_path / "teacher" / WEIGHTS_NAME))


@pytest.mark.slow
def test_torch_export_of_a_module_of_ones_own(small_scene_run: Path, tmp_path: Path) -> None:
    """And the playground's text tower."""
    from toolkit.playground.prepare import TEACHER

    export_run(small_scene_run, "torch_export", tmp_path / "out")
    check_programs(tmp_path / "out", weights_of(small_scene_run), load_file(TEACHER / WEIGHTS_NAME))


def weights_of_onnx(path: Path) -> State:
    """Initializers by name."""
    held = onnx.load(path).graph.initializer
    return {one.name.removeprefix("model."): torch.from_numpy(numpy_helper.to_array(one).copy()) for one in held}


def in_onnx(name: str, value: torch.Tensor, found: State) -> bool:
    """The rule: under its own name; or, where it was folded with a turn or a change of shape, the same numbers in the order of
    its rows or of its columns under a name of the tracer's.
    """
    if name in found and found[name].shape == value.shape:
        return torch.equal(found[name], value)
    orders = [value.reshape(-1), value.T.reshape(-1)] if value.dim() == 2 else [value.reshape(-1)]
    return any(
        torch.equal(one.reshape(-1), order)
        for one in found.values()
        for order in orders
        if one.numel() == value.numel()
    )


@pytest.mark.slow
def test_onnx(own_text_run: MakeRun, tmp_path: Path) -> None:
    """Every weight of both towers, bit for bit by the rule; and a weight that is not there is missed."""
    run = own_text_run()
    export_run(run, "onnx", tmp_path / "out")
    towers = [weights_of_onnx(tmp_path / "out" / name) for name in ("image.onnx", "text.onnx")]
    for name, value in weights_of(run).items():
        tower = towers[0] if name.startswith("visual.") else towers[1]
        assert name == "logit_scale" or in_onnx(name, value, tower), name
        assert name == "logit_scale" or not in_onnx(name, torch.nextafter(value, value + 1), tower), name


@pytest.mark.slow
def test_onnx_of_a_module_of_ones_own(small_scene_run: Path, tmp_path: Path) -> None:
    """By the same rule."""
    export_run(small_scene_run, "onnx", tmp_path / "out")
    found = weights_of_onnx(tmp_path / "out" / "image.onnx")
    assert all(in_onnx(name, value, found) for name, value in weights_of(small_scene_run).items())


@pytest.mark.slow
def test_onnx_with_batch_norms(image_run: MakeRun, tmp_path: Path) -> None:
    """The tracer folds them into the convolutions before them: the weights there are those of the formula."""
    run = image_run("timm/test_resnet")
    export_run(run, "onnx", tmp_path / "out")
    own, found = weights_of(run), weights_of_onnx(tmp_path / "out" / "image.onnx")
    norms = [name.removesuffix(".running_var") for name in own if name.endswith(".running_var")]
    seen = set()
    for norm in norms:
        scale = own[f"{norm}.weight"] / (own[f"{norm}.running_var"] + 1e-5).sqrt()
        folded = {
            name: value * scale.view(-1, 1, 1, 1)
            for name, value in own.items()
            if value.dim() == 4 and len(value) == len(scale) and name in found
        }
        hits = [name for name, value in folded.items() if torch.allclose(found[name], value, rtol=1e-5, atol=1e-7)]
        assert len(hits) == 1, norm
        seen.add(hits[0])
    convolutions = {name for name, value in own.items() if value.dim() == 4}
    assert len(seen) == len(norms) and seen <= convolutions
    rest = {name: v for name, v in own.items() if name not in seen and not name.startswith(tuple(norms))}
    assert rest and all(in_onnx(name, value, found) for name, value in rest.items())

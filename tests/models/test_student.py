"""Every way to name a student, and what each refusal says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file
from torch import nn

from toolkit.config import Student, Teacher
from toolkit.errors import CheckpointError, ConfigError
from toolkit.models import Model, build_student, build_teacher
from toolkit.models.build import CARD_NAME, WEIGHTS_NAME, Projected, from_folder, load_weights, write_card
from toolkit.models.contract import count_parameters

OwnFile = Callable[..., str]


def student(name: str, embed_dim: int | None = None, **settings: Any) -> Model:
    """Built without a teacher."""
    return build_student(Student(name=name, embed_dim=embed_dim, **settings), None)


def said(name: str, embed_dim: int | None = None, **settings: Any) -> str:
    """The complaint."""
    with pytest.raises(ConfigError) as caught:
        student(name, embed_dim, **settings)
    return str(caught.value)


def width_of(model: Model) -> int:
    """Of what it returns for two pictures of its own size."""
    side = model.preprocess.image_size
    with torch.no_grad():
        return int(model.module.encode_image(torch.zeros(2, 3, side, side)).shape[1])  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "count"), [("ViT-B-32-quickgelu", 88_045_824), ("timm/swin_tiny_patch4_window7_224", 28_109_178)]
)
def test_the_papers_students(name: str, count: int) -> None:
    """Parameter for parameter, at the width of ViT-L/14, and width 768 comes out."""
    model = student(name, 768)
    assert model.image_params == count and model.text_params == 0 and width_of(model) == 768
    assert model.preprocess.image_size == 224
    assert any(isinstance(part, QuickGELU) for part in model.module.modules()) == name.endswith("quickgelu")


def test_open_clip_student(tiny: str) -> None:
    """Image tower alone in open_clip's layout, at the width asked for, else its own."""
    model = student(tiny, 20)
    assert width_of(model) == model.embed_dim == 20 and model.preprocess.image_size == 32
    assert all(key.startswith("visual.") for key in model.module.state_dict())
    assert "visual.proj" in model.module.state_dict() and model.tokenizer is None
    assert student(tiny).embed_dim == 12 == width_of(student(tiny))


def test_open_clip_student_with_a_text_tower(tiny: str) -> None:
    """The whole CLIP; its scale is not 0-d, with which DeepSpeed could not start."""
    model = student(tiny, 20, text_tower=True)
    tokens = torch.ones(2, 16, dtype=torch.int64)
    assert model.module.encode_text(tokens).shape == (2, 20)  # type: ignore[operator]
    assert model.module.logit_scale.shape == (1,)  # type: ignore[union-attr]
    assert model.tokenizer == tiny and model.context_length == 16
    assert model.image_params + model.text_params == count_parameters(model.module) and model.text_params > 49408 * 16


def test_kwargs_change_a_known_architecture(tiny: str) -> None:
    """Key by key inside vision_cfg, so that one number can be changed alone."""
    deep = student(tiny, kwargs={"vision_cfg": {"layers": 3}})
    assert sum(".resblocks." in key and key.endswith("ln_1.weight") for key in deep.module.state_dict()) == 3
    assert deep.preprocess.image_size == 32


def test_kwargs_that_nobody_reads_are_refused(tiny: str) -> None:
    """What is asked for and ignored would be believed."""
    assert "student.kwargs.layers is no setting of an open_clip architecture" in said(tiny, kwargs={"layers": 3})
    assert "did you mean vision_cfg?" in said(tiny, kwargs={"vison_cfg": {}})
    assert "could not be built" in said(tiny, kwargs={"vision_cfg": {"depth": 3}})


def test_image_size_of_an_open_clip_student(tiny: str) -> None:
    """The tower is built for it."""
    model = student(tiny, image_size=48)
    assert model.preprocess.image_size == 48 and width_of(model) == 12
    assert model.module.state_dict()["visual.positional_embedding"].shape[0] == 1 + 9


def test_timm_student_with_a_layer_behind_its_pooling() -> None:
    """MobileNets: the projection takes what comes out, not what goes into that layer."""
    assert width_of(student("timm/mobilenetv4_conv_small_050", 20)) == 20


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_resnet", "timm/test_convnext"])
def test_timm_student(name: str) -> None:
    """Behind a projection without bias."""
    model = student(name, 20)
    assert width_of(model) == 20 and model.preprocess.image_size == 160
    assert not any(key.endswith("head.proj.bias") for key in model.module.state_dict())
    assert "drop_path" in said(name, 20, kwargs={"droppath": 0.1})


def test_timm_refusals() -> None:
    """Unknown, without width, with a text tower."""
    assert "timm has no model swin_tiny_patch4_window7_22; did you mean timm/swin_tiny_patch4_window7_224" in said(
        "timm/swin_tiny_patch4_window7_22", 20
    )
    assert "needs a width; name a teacher or set student.embed_dim" in said("timm/test_vit")
    assert "has no text tower" in said("timm/test_vit", 20, text_tower=True)


def test_unknown_names() -> None:
    """With the nearest known one, and how students can be named."""
    message = said("ViT-B-23")
    assert "student.name: no model named 'ViT-B-23'; did you mean ViT-B-32? Known: open_clip names" in message
    assert "no model named 'zzzzzzzzz'. Known: open_clip names, timm/<name>, package.module:function" in said(
        "zzzzzzzzz"
    )


def test_own_function(own_file: OwnFile) -> None:
    """From a file in the working directory; its own size, and its parameters from kwargs."""
    model = student(f"{own_file()}:net", kwargs={"width": 7})
    assert model.embed_dim == 7 and model.preprocess.image_size == 8 and not isinstance(model.module, Projected)


def test_own_function_that_takes_the_width(own_file: OwnFile) -> None:
    """Then it is built at it, and no projection is needed."""
    name = own_file("\ndef at(embed_dim):\n    return Net(embed_dim)\n")
    model = student(f"{name}:at", 20)
    assert width_of(model) == 20 and not isinstance(model.module, Projected)


def test_own_function_of_another_width_gets_a_projection(own_file: OwnFile) -> None:
    """Linear, without bias, behind both towers; what the body declares is kept."""
    code = (
        "\n\ndef full(width=6):\n    module = Net(width)\n    module.tokenizer, module.context_length = 'ViT-B-32', 5\n"
    )
    code += "    module.image_mean, module.image_std = (0.1, 0.2, 0.3), (1, 1, 1)\n"
    code += "    module.logit_scale = nn.Parameter(torch.ones(1) * 2)\n"
    code += "    module.set_grad_checkpointing = lambda on: setattr(module, 'saves_memory', on)\n    return module\n"
    model = student(f"{own_file(code)}:full", 20, text_tower=True, grad_checkpointing=True)
    assert isinstance(model.module, Projected) and width_of(model) == model.embed_dim == 20
    assert model.module.encode_text(torch.ones(2, 5, dtype=torch.int64)).shape == (2, 20)
    assert model.module.image_projection.bias is None and model.module.logit_scale.tolist() == [2.0]
    assert (model.tokenizer, model.context_length) == ("ViT-B-32", 5)
    assert model.preprocess.mean == (0.1, 0.2, 0.3) and model.module.body.saves_memory is True


WRONG_FUNCTIONS = {
    "def f():\n    return 3": "f gave a int; it must return a torch.nn.Module",
    "def f():\n    return nn.Linear(3, 3)": "has no method encode_image (if its forward already returns embeddings, add",
    "class F(Net):\n    def encode_image(self, x): return x.missing\ndef f(): return F(6)": (
        "encode_image failed on a float32 tensor of shape [2, 3, 8, 8]: AttributeError: 'Tensor' object has no attribute"
    ),
    "class F(Net):\n    def encode_image(self, x): return (x, x)\ndef f(): return F(6)": (
        "encode_image must return a tensor [b, e], it returned tuple"
    ),
    "class F(Net):\n    def encode_image(self, x): return x\ndef f(): return F(6)": (
        "encode_image must return [b, e], for 2 samples it returned [2, 3, 8, 8]; pool and flatten"
    ),
    "class F(Net):\n    def encode_image(self, x): return x.mean((0, 2))\ndef f(): return F(6)": (
        "encode_image must return [b, e], for 2 samples it returned [3, 8]"
    ),
    "class F(Net):\n    def encode_image(self, x): return x.mean((2, 3)).long()\ndef f(): return F(6)": (
        "encode_image must return finite floats, it returned torch.int64"
    ),
    "class F(Net):\n    def encode_image(self, x): return x.mean((2, 3)) / 0\ndef f(): return F(6)": (
        "encode_image must return finite floats, it returned torch.float32 with [nan"
    ),
    "def f():\n    n = Net(6)\n    n.scale = nn.Parameter(torch.tensor(1.0))\n    return n": (
        "has 0-d parameters (scale), with which DeepSpeed cannot start; give them the shape (1,)"
    ),
    "def f(width):\n    return Net(width)": "could not be called with {}: TypeError",
    "def f():\n    raise RuntimeError('no disk')": "could not be called with {}: RuntimeError: no disk",
}


@pytest.mark.parametrize("code", WRONG_FUNCTIONS)
def test_a_wrong_own_function(code: str, own_file: OwnFile) -> None:
    """The setting that named it, the method, and what it returned."""
    message = said(f"{own_file(code)}:f", 6)
    assert message.startswith("student.name=users_own_model") and WRONG_FUNCTIONS[code] in message


WRONG_TEXT = {
    "def f(): n = Net(6); n.encode_text = None; return n": "has no method encode_text",
    "class F(Net):\n    def encode_text(self, x): return x\ndef f(): return F(6)": (
        "encode_text must return finite floats, it returned torch.int64"
    ),
    "class F(Net):\n    def encode_text(self, x): return self.words(x)\ndef f(): return F(6)": (
        "encode_text must return [b, e], for 2 samples it returned [2, 77, 6]"
    ),
    "class F(Net):\n    def encode_text(self, x): return torch.zeros(len(x), 9)\ndef f(): return F(6)": (
        "encode_image returns width 6, encode_text 9; make them equal"
    ),
}


@pytest.mark.parametrize("code", WRONG_TEXT)
def test_a_wrong_text_tower(code: str, own_file: OwnFile) -> None:
    """Checked only where it is trained."""
    name = f"{own_file(code)}:f"
    assert WRONG_TEXT[code] in said(name, 6, text_tower=True)
    assert student(name, 6).embed_dim == 6


def test_modules_that_cannot_be_imported(own_file: OwnFile) -> None:
    """Not found, broken, without the function, of the wrong form."""
    assert "module 'no_such_package' was not found from" in said("no_such_package.x:f")
    assert "failed to import (SyntaxError" in said(f"{own_file('def f(', net=False)}:f")
    assert "failed to import (ZeroDivisionError" in said(f"{own_file('1 / 0', net=False)}:f")
    assert "module 'nmpy' was not found" in said(f"{own_file('import nmpy', net=False)}:f")
    assert "has no function 'nett'; did you mean net?" in said(f"{own_file()}:nett")
    assert "is not of the form package.module:function" in said("module:")


def test_widths_that_cannot_match(tiny: str) -> None:
    """The teacher's counts."""
    teacher = build_teacher(Teacher(name=tiny, pretrained="random"), "fp32", torch.device("cpu"))
    assert build_student(Student(name="timm/test_vit"), teacher).embed_dim == 12
    with pytest.raises(ConfigError, match=r"student.embed_dim \(20\) differs from the width of .* \(12\)"):
        build_student(Student(name="timm/test_vit", embed_dim=20), teacher)


def test_a_text_tower_needs_a_tokenizer(own_file: OwnFile, tiny: str) -> None:
    """Its own, the one that was set, or the teacher's."""
    name = f"{own_file()}:net"
    assert "has a text tower and no tokenizer; set student.tokenizer" in said(name, text_tower=True)
    assert student(name, text_tower=True, tokenizer="ViT-B-32").tokenizer == "ViT-B-32"
    teacher = build_teacher(Teacher(name=tiny, pretrained="random"), "fp32", torch.device("cpu"))
    borrowed = build_student(Student(name=name, text_tower=True), teacher)
    assert (borrowed.tokenizer, borrowed.context_length) == (tiny, 16)


def test_grad_checkpointing(own_file: OwnFile, tiny: str) -> None:
    """Switched on where there is a switch, refused where there is none."""
    assert student(tiny, grad_checkpointing=True).module.visual.transformer.grad_checkpointing  # type: ignore[union-attr]
    assert "has no method set_grad_checkpointing" in said(f"{own_file()}:net", grad_checkpointing=True)


def write(model: Model, folder: Path, kwargs: dict[str, Any], text_tower: bool = False) -> Path:
    """A checkpoint folder as a run leaves it."""
    folder.mkdir()
    write_card(model, kwargs, text_tower, folder, step=3)
    save_file({key: value.contiguous() for key, value in model.module.state_dict().items()}, folder / WEIGHTS_NAME)
    return folder


CASES: dict[str, Student] = {
    "open_clip": Student(name="tiny-clip-for-tests", embed_dim=20, kwargs={"vision_cfg": {"layers": 2}}),
    "open_clip at another size": Student(name="tiny-clip-for-tests", image_size=48),
    "open_clip with text": Student(name="tiny-clip-for-tests", text_tower=True),
    "timm": Student(name="timm/test_resnet", embed_dim=20),
    "timm at another size": Student(name="timm/test_resnet", embed_dim=20, image_size=64),
    "own": Student(name="OWN:net", kwargs={"width": 7}),
    "own behind a projection": Student(name="OWN:net", embed_dim=20, tokenizer="ViT-B-32", text_tower=True),
    "own at another size": Student(name="OWN:net", image_size=10),
}


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_folder_gives_the_student_back(case: str, tiny: str, own_file: OwnFile, tmp_path: Path) -> None:
    """Weights, preprocessing, tokenizer and outputs."""
    chosen = replace(CASES[case], name=CASES[case].name.replace("OWN", own_file()))
    model = build_student(chosen, None)
    found = from_folder(write(model, tmp_path / "c", chosen.kwargs, chosen.text_tower), asked_by="teacher.name")
    assert (found.name, found.embed_dim, found.preprocess) == (model.name, model.embed_dim, model.preprocess)
    assert (found.tokenizer, found.context_length) == (model.tokenizer, model.context_length)
    side = model.preprocess.image_size
    images = torch.randn(2, 3, side, side)
    for module in (model.module, found.module):
        module.eval()
    with torch.no_grad():
        assert torch.equal(model.module.encode_image(images), found.module.encode_image(images))  # type: ignore[operator]


def test_a_folder_can_be_moved(tiny: str, tmp_path: Path) -> None:
    """A sentencepiece vocabulary lies in it, not where it was trained."""
    model = student(tiny, text_tower=True)
    (tmp_path / "words.model").write_bytes(b"pieces")
    model.tokenizer = str(tmp_path / "words.model")
    folder = write(model, tmp_path / "c", {}, text_tower=True)
    (tmp_path / "words.model").unlink()
    moved = folder.rename(tmp_path / "elsewhere")
    found = from_folder(moved, asked_by="x").tokenizer
    assert found is not None and Path(found).parent == moved and Path(found).read_bytes() == b"pieces"


def test_wrong_weights_are_refused(tiny: str, tmp_path: Path) -> None:
    """Every key and shape must fit; the message shows the first ones and how many."""
    folder = write(student(tiny, 20), tmp_path / "c", {})
    with pytest.raises(CheckpointError, match=r"visual.proj is \[32, 20\], wanted \[32, 12\] \(1 in all\)"):
        load_weights(student(tiny).module, folder / WEIGHTS_NAME)
    with pytest.raises(CheckpointError, match=r"is of another model: .* is missing"):
        load_weights(nn.Linear(2, 2), folder)
    before = student(tiny, 20).module
    load_weights(before, folder)
    save_file({"visual.proj": torch.zeros(32, 20)}, tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match="is missing"):
        load_weights(before, tmp_path / "part.safetensors")
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x04.")
    for path in ("pickle.pt", "missing.safetensors"):
        with pytest.raises(CheckpointError, match="could not be read as safetensors"):
            load_weights(before, tmp_path / path)


def test_a_pretrained_student(tiny: str, tmp_path: Path) -> None:
    """From a folder or a file."""
    first = student(tiny)
    folder = write(first, tmp_path / "c", {})
    for path in (folder, folder / WEIGHTS_NAME):
        again = student(tiny, pretrained=str(path))
        assert torch.equal(again.module.visual.proj, first.module.visual.proj)  # type: ignore[union-attr]


@pytest.mark.parametrize("content", [None, "{", "[1"])
def test_a_torn_card_is_refused(content: str | None, tmp_path: Path) -> None:
    """With the name of the folder."""
    if content is not None:
        (tmp_path / CARD_NAME).write_text(content)
    with pytest.raises(CheckpointError, match=r"holds no readable student\.json"):
        from_folder(tmp_path, asked_by="x")

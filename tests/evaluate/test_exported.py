"""A folder of `dime export` as a judged model: the student's own embeddings in every format, and nothing of a torn one."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from export.conftest import PAIRED, VARIANTS, save_run, shaken
from torch import Tensor

from toolkit.errors import ConfigError, ExportError
from toolkit.evaluate import exported
from toolkit.evaluate.exported import is_export, open_export
from toolkit.evaluate.models import Encoder
from toolkit.export import export_run
from toolkit.models import build_tokenizer
from toolkit.models.build import build_model, from_folder

CPU = torch.device("cpu")
SENTENCES = ["a red square", "two blue dots, one small", "", "one " * 40]
FORMATS = ("open_clip", "hugging_face", "onnx", "onnx_int8", "torch_export")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a CLIP with both towers."""
    import open_clip

    folder = tmp_path_factory.mktemp("judged")
    (folder / "tiny-clip-to-judge.json").write_text(json.dumps(VARIANTS["tiny-clip-for-export"]))
    open_clip.add_model_config(folder)
    model = shaken(build_model("tiny-clip-to-judge", {}, embed_dim=None, text_tower=True, asked_by="test"))
    return save_run(folder / "run", model, ["student.text_tower=true", *PAIRED])


@pytest.fixture(scope="module")
def made(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`made(format)`: its export; made once, nobody writes into it."""
    folder = tmp_path_factory.mktemp("exports")

    def make(to: str) -> Path:
        if not (folder / to).exists():
            export_run(run, to, folder / to)
        return folder / to

    return make


def pictures() -> Tensor:
    """Bytes of noise."""
    return torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)


def by_hand(run: Path) -> tuple[Tensor, Tensor]:
    """Unit embeddings of pictures and sentences by the run's own module."""
    student = from_folder(run / "checkpoints" / "step_00000003", asked_by="test")
    module: Any = student.module.eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (student.preprocess.mean, student.preprocess.std))
    with torch.no_grad():
        image = module.encode_image((pictures().float() / 255 - mean) / std)
        text = module.encode_text(build_tokenizer("tiny-clip-to-judge", 16)(SENTENCES))
    return image / image.norm(dim=-1, keepdim=True), text / text.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("to", ["open_clip", *(pytest.param(to, marks=pytest.mark.slow) for to in FORMATS[1:])])
def test_it_embeds_as_the_student_does(to: str, run: Path, made: Callable[[str], Path]) -> None:
    """To 1e-5, int8 to a cosine of 0.99; from bytes and from sentences, by the folder's own settings and tokenizer."""
    found = open_export(made(to), CPU)
    encoder = found.encoder
    assert isinstance(encoder, Encoder) and is_export(made(to)) and not is_export(run)
    tokenize = pickle.loads(pickle.dumps(encoder.tokenizer()))  # noqa: S301 - data workers do
    rows = encoder.encode_image(pictures()), encoder.encode_text(tokenize(SENTENCES))
    for one, wanted in zip(rows, by_hand(run), strict=True):
        assert one.dtype == torch.float32 and one.shape == wanted.shape
        assert torch.allclose(one.norm(dim=-1), torch.ones(len(one)), atol=1e-6)
        if to == "onnx_int8":
            assert float((one - wanted).abs().max()) > 1e-5 and float((one * wanted).sum(-1).min()) > 0.99
        else:
            assert float((one - wanted).abs().max()) < 1e-5
    student = from_folder(run / "checkpoints" / "step_00000003", asked_by="test")
    assert (found.name, found.embed_dim) == ("student", 16) and found.facts["format"] == to
    assert (found.image_params, found.text_params) == (student.image_params, student.text_params)
    assert found.logit_scale == pytest.approx(float(student.module.logit_scale.detach().exp()), rel=1e-6)  # type: ignore[operator, union-attr]
    assert encoder.preprocess == student.preprocess
    if found.image_module is not None:
        value: Any = found.image_module.encode_image(torch.randn(2, 3, 32, 32))  # type: ignore[operator]
        value.sum().backward()
        assert any(p.grad is not None for p in found.image_module.parameters())
    assert (found.image_module is None) == (to in ("onnx", "onnx_int8", "torch_export"))


@pytest.mark.slow
def test_hashes_tell_exports_apart(made: Callable[[str], Path], tmp_path: Path) -> None:
    """The same folder twice gives one hash, another format another."""
    hashes = [open_export(made(to), CPU).sha256 for to in ("open_clip", "open_clip", "onnx", "onnx_int8")]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3
    shutil.copytree(made("open_clip"), tmp_path / "copy")
    assert open_export(tmp_path / "copy", CPU).sha256 == hashes[0]


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "torch_export"])
def test_a_sentencepiece_tokenizer_comes_along(to: str, tmp_path: Path) -> None:
    """The playground's teacher for sentences, a convolutional student for pictures; the licence of what is not its own."""
    from toolkit.playground.prepare import TEACHER

    model = build_model(
        "toolkit.playground.towers:scene_student", {"width": 8}, embed_dim=128, text_tower=False, asked_by="test"
    )
    words = [f"teacher.name={TEACHER}", "student.kwargs.width=8", "losses.feature.weight=1", "data.images=unread"]
    export_run(save_run(tmp_path / "run", shaken(model), words), to, tmp_path / "out")
    found = open_export(tmp_path / "out", CPU)
    teacher = from_folder(TEACHER, asked_by="test")
    assert teacher.tokenizer is not None
    tokens = build_tokenizer(teacher.tokenizer, teacher.context_length)(SENTENCES)
    assert torch.equal(found.encoder.tokenizer()(SENTENCES), tokens) and "copy of the teacher's" in found.licence
    module: Any = teacher.module.eval()
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(module.encode_text(tokens), dim=-1)
    assert torch.allclose(found.encoder.encode_text(tokens), wanted, atol=1e-5)


def test_torn_copies(made: Callable[[str], Path], tmp_path: Path) -> None:
    """One message each: a file gone, cut, or with one bit turned; a record gone, or of another time."""
    whole, torn = made("open_clip"), tmp_path / "torn"
    weights = "open_clip_model.safetensors"

    def refused(change: Callable[[], Any]) -> str:
        shutil.rmtree(torn, ignore_errors=True)
        shutil.copytree(whole, torn)
        change()
        with pytest.raises(ExportError) as caught:
            open_export(torn, CPU)
        return str(caught.value)

    def turned() -> None:
        content = bytearray((torn / weights).read_bytes())
        content[-1] ^= 1
        (torn / weights).write_bytes(content)

    def record(**changes: Any) -> None:
        found = json.loads((torn / "export.json").read_text())
        (torn / "export.json").write_text(json.dumps({**found, **changes}))

    assert f"{weights} is missing (1 in all); copy it again" in refused((torn / weights).unlink)
    assert "bytes instead of" in refused(lambda: (torn / weights).write_bytes(b"x"))
    assert f"{weights} has the right size and other contents" in refused(turned)
    assert "holds no whole export.json" in refused((torn / "export.json").unlink)
    assert "holds no whole export.json" in refused(lambda: (torn / "export.json").write_text("{"))
    assert "before it had hashes" in refused(lambda: record(sha256=None))
    assert f"{weights} is not in export.json" in refused(lambda: record(sha256={}))
    assert "is no name of a file in it" in refused(lambda: record(sha256={"../x": ""}, bytes={"../x": 1}))
    assert "the format 'keras' is not known; known: open_clip, hugging_face" in refused(lambda: record(format="keras"))
    assert "is a classifier of 2 classes with its head baked in" in refused(
        lambda: record(classes={"classnames": ["a", "b"], "templates": ["{}"]})
    )
    shutil.rmtree(torn)
    shutil.copytree(whole, torn)
    (torn / "benchmarks").mkdir()
    (torn / "benchmarks" / "results.json").write_text("{}")
    assert open_export(torn, CPU).embed_dim == 16  # what is written beside it later is no harm


def test_a_library_that_is_not_installed(
    made: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Says which and how."""
    (tmp_path / "x").mkdir()
    files = {name: {"bytes": 0} for name in exported.WAYS["onnx"].files}
    for name in files:
        (tmp_path / "x" / name).write_text("")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    record = json.loads((made("open_clip") / "export.json").read_text())
    record |= {"format": "onnx", "bytes": dict.fromkeys(files, 0), "sha256": dict.fromkeys(files, empty)}
    (tmp_path / "x" / "export.json").write_text(json.dumps(record))
    with pytest.raises(ExportError, match=r"the onnx export .* could not be loaded"):
        open_export(tmp_path / "x", CPU)
    monkeypatch.setattr(exported.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    with pytest.raises(
        ConfigError, match=r"needs onnxruntime, not installed here; pip install 'dime-fm-toolkit\[export\]'"
    ):
        open_export(tmp_path / "x", CPU)

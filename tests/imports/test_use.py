"""What comes out is a student, a teacher, and something `dime evaluate` judges; the epsilon cannot get lost on the way."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from imports.clip_file import IMAGES, PROJECTION, check_towers, openai_state
from imports.networks import exact, prefixed, vit, vit_state

from toolkit import config, distributed
from toolkit.cli import dispatch
from toolkit.cli_import import add_import
from toolkit.config.resolve import merge, parse_overrides
from toolkit.errors import ConfigError
from toolkit.evaluate.run import evaluate_run
from toolkit.models import build_student, build_teacher

Written = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process needs none, and other tests should not find one."""
    monkeypatch.setattr(distributed, "init", lambda: None)


@pytest.fixture
def student(tmp_path: Path, written: Written) -> Path:
    """A released student of DIME-FM, imported by the command."""
    path = written({"model": {**prefixed(vit_state(), "image_encoder."), "image_projection": PROJECTION}})
    dispatch(["import", str(path), "--layout", "dimefm", "--out", str(tmp_path / "student")])
    return tmp_path / "student"


@pytest.fixture
def clip(tmp_path: Path, written: Written) -> Path:
    """A CLIP of OpenAI, imported by the command."""
    path = written(openai_state(), "clip.pt")
    dispatch(["import", str(path), "--out", str(tmp_path / "clip")])
    return tmp_path / "clip"


def test_the_printed_settings_start_a_student_from_it(
    tmp_path: Path, written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they stand: features are those of the file, with its epsilon."""
    path = written({**prefixed(vit_state(), "image_encoder."), "image_projection": PROJECTION})
    dispatch(["import", str(path), "--out", str(tmp_path / "a student")])
    line = next(line for line in capsys.readouterr().out.splitlines() if "student.pretrained=" in line)
    run = merge(config.Run(), parse_overrides(shlex.split(line)))
    model = build_student(run.student, None)
    module: Any = model.module.eval().double()
    with torch.no_grad():
        found = module.encode_image(IMAGES.double())
    right = vit(exact(vit_state()), IMAGES.double(), heads=2, eps=1e-12) @ PROJECTION.double()
    assert torch.allclose(found, right, rtol=0, atol=1e-9)


def test_a_student_of_another_computation_is_refused(student: Path) -> None:
    """The weights fit, the epsilon does not: the message has the settings that do."""
    card = json.loads((student / "student.json").read_text())
    assert card["numerics"] == {"layer_norm_eps": [1e-12], "activations": ["QuickGELU"]}
    kwargs = {**card["kwargs"], "vision_cfg": {**card["kwargs"]["vision_cfg"], "norm_kwargs": None}}
    for weights in (student, student / "student.safetensors"):
        wrong = config.Student(card["name"], kwargs, embed_dim=24, pretrained=str(weights))
        with pytest.raises(
            ConfigError, match="trained with LayerNorm eps 1e-12 and QuickGELU, the student has LayerNorm eps 1e-05"
        ) as caught:
            build_student(wrong, None)
        assert "student.kwargs.vision_cfg.norm_kwargs.eps=1e-12" in str(caught.value)
    wrong = config.Student("ViT-B-32", card["kwargs"], embed_dim=24, pretrained=str(student))
    with pytest.raises(ConfigError, match="the student has LayerNorm eps 1e-12 and GELU"):
        build_student(wrong, None)


def test_mean_and_deviation_come_with_the_weights(tmp_path: Path, written: Written) -> None:
    """Early students of DIME-FM saw ImageNet's."""
    path = written({**prefixed(vit_state(), "image_encoder."), "image_projection": PROJECTION})
    dispatch(
        ["import", str(path), "--out", str(tmp_path / "early"), "--mean-std", "imagenet", "--layer-norm-eps", "1e-5"]
    )
    card = json.loads((tmp_path / "early/student.json").read_text())
    model = build_student(config.Student(card["name"], card["kwargs"], 24, pretrained=str(tmp_path / "early")), None)
    assert model.preprocess.mean == (0.485, 0.456, 0.406) and model.preprocess.image_size == 32


def test_as_a_teacher(clip: Path) -> None:
    """Both towers, its scale, its tokenizer; the image tower of a student for pictures alone."""
    teacher = build_teacher(config.Teacher(name=str(clip)), "fp32", torch.device("cpu"))
    check_towers(teacher.module)
    assert float(teacher.logit_scale) == pytest.approx(99.484, abs=1e-3)  # type: ignore[arg-type]
    assert teacher.tokenizer()(["a dog"]).shape == (1, 16)


@pytest.fixture
def judged(make_shards: Callable[..., Path], tmp_path: Path) -> list[str]:
    """Overrides for a set of six pictures of three classes."""
    (tmp_path / "classes.json").write_text(json.dumps({"classnames": ["red", "green", "blue"], "templates": ["a {}"]}))
    folder = make_shards("set", 6, fields=("png", "cls"))
    return [
        f"evaluation.sets.mine.shards={folder}",
        f"evaluation.sets.mine.classes={tmp_path / 'classes.json'}",
        "workers=0",
    ]


def test_evaluating_an_imported_student(
    student: Path, clip: Path, judged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a teacher's sentences; a CLIP judged as a student gives what it gives as a teacher."""
    seen: dict[str, Any] = {}
    result = evaluate_run(student, "newest", [*judged, f"teacher.name={clip}"], as_json=False)
    seen |= result["sets"]["mine"]["rows"]
    assert result["checkpoint"] == str(student) and set(seen) >= {"teacher", "student"}
    own = evaluate_run(clip, "newest", judged, as_json=False)["sets"]["mine"]["rows"]
    assert own["student"]["top1"] == seen["teacher"]["top1"]
    with pytest.raises(ConfigError, match="has no text tower and there is no teacher"):
        evaluate_run(student, "newest", judged, as_json=False)


def test_as_the_checkpoint_of_a_run(student: Path, clip: Path, judged: list[str], tmp_path: Path) -> None:
    """`dime evaluate RUN --checkpoint DIR`: the run's sets and teacher, the folder's student."""
    run = merge(config.Run(), parse_overrides([*judged, f"teacher.name={clip}", "out_dir=x", "student.name=ViT-B-32"]))
    run = merge(run, parse_overrides(["losses.vl.weight=1", "data.images=x", "data.texts=x", "precision=fp32"]))
    (tmp_path / "run").mkdir()
    config.save(run, tmp_path / "run/config.yaml")
    found = evaluate_run(tmp_path / "run", str(student), [], as_json=False)
    other = evaluate_run(student, "newest", [*judged, f"teacher.name={clip}"], as_json=False)
    assert found["sets"] == other["sets"]


def test_the_command_knows_every_layout() -> None:
    """Its choices stand in a file that imports no torch."""
    import argparse

    from toolkit.imports.command import MEAN_STD
    from toolkit.imports.detect import LAYOUTS

    parser = argparse.ArgumentParser()
    add_import(parser)
    choices = {action.dest: action.choices for action in parser._actions}
    assert tuple(choices["layout"]) == LAYOUTS and tuple(choices["mean_std"]) == tuple(MEAN_STD)


def test_json(student: Path, tmp_path: Path, written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    """The card as the last line; the file's hash is in it."""
    import hashlib

    path = written({**prefixed(vit_state(), "visual."), "visual.proj": PROJECTION}, "again.safetensors")
    dispatch(["import", str(path), "--out", str(tmp_path / "again"), "--json"])
    card = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert card == json.loads((tmp_path / "again/student.json").read_text())
    assert card["imported"]["sha256"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    assert card["numerics"]["layer_norm_eps"] == [1e-5]

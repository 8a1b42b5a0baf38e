"""People without this toolkit get its numbers: a script of another library and `dime evaluate` see one picture alike."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from export.other_library import SCRIPTS, classify_with, noise

from toolkit import config, distributed
from toolkit.config import EvalSet
from toolkit.data.shards import write_shards
from toolkit.distiller import Distiller
from toolkit.evaluate.harness import Harness
from toolkit.evaluate.models import StudentEncoder
from toolkit.export import export_run
from toolkit.losses import LossSum
from toolkit.models.build import from_folder

MakeRun = Callable[..., Path]
NAMES = ["red square", "two blue dots, it's 3 o'clock", "nothing at all", "one " * 40]
SCRIPT_OF = {"open_clip": "open_clip", "hugging_face": "transformers", "onnx": "onnxruntime", "torch_export": "torch"}


def evaluated(run: Path, picture: Path, work: Path) -> list[float]:
    """The picture as a set of one through the harness, at the student's own scale."""
    (work / "classes.json").write_text(json.dumps({"classnames": NAMES, "templates": ["a picture of {}."]}))
    shards = write_shards(work / "set", iter([{"__key__": "0", "png": picture.read_bytes(), "cls": 0}]), 1)
    chosen = EvalSet(shards=str(shards), classes=str(work / "classes.json"))
    student = from_folder(run / "checkpoints" / "step_00000003", asked_by="test")
    distiller = Distiller(student.module, LossSum({}, {}), student.preprocess, text_tower=True).eval()
    encoder = StudentEncoder(student, distiller, torch.device("cpu"), text_tower=True, teacher=None)
    found = Harness(config.Evaluation(sets={"one": chosen}))._encoded("one", "student", encoder)
    scale = float(student.module.logit_scale.detach().exp())  # type: ignore[operator, union-attr]
    probabilities: list[float] = (scale * found.images @ found.texts.T).softmax(-1)[0].tolist()
    return probabilities


@pytest.mark.parametrize("to", ["open_clip", *(pytest.param(to, marks=pytest.mark.slow) for to in list(SCRIPT_OF)[1:])])
def test_a_script_says_what_evaluate_says(
    to: str, own_text_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probabilities to 1e-5; of transformers for a picture of the student's size, because it resizes in its own way."""
    monkeypatch.setattr(distributed, "init", lambda: None)
    picture = noise(tmp_path / "picture.png", *((32, 32) if to == "hugging_face" else (96, 64)))
    run = own_text_run()
    export_run(run, to, tmp_path / "out")
    wanted = evaluated(run, picture, tmp_path)
    prompts = [f"a picture of {name}." for name in NAMES]
    assert classify_with(SCRIPT_OF[to])(tmp_path / "out", picture, prompts) == pytest.approx(wanted, abs=1e-5)
    assert max(wanted) - min(wanted) > 0.005


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "torch_export"])
def test_as_a_program_of_its_own(to: str, scene_run: Path, tmp_path: Path) -> None:
    """From a shell in another folder, with nothing of ours on the path: it prints probabilities."""
    export_run(scene_run, to, tmp_path / "out")
    picture = noise(tmp_path / "picture.png", 64, 48)
    script = str(SCRIPTS / f"with_{SCRIPT_OF[to]}.py")
    words = [script, str(tmp_path / "out"), str(picture), "a red square", "a blue dot"]
    done = subprocess.run(
        [sys.executable, "-P", *words],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout)) == pytest.approx(1, abs=1e-5)

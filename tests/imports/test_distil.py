"""Weights from elsewhere in a distillation: teachers and students as folders of `dime import`, two real steps each."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from imports.clip_file import PROJECTION, openai_state
from imports.networks import prefixed, vit_state
from launch_ranks import environment
from safetensors.torch import load_file, save_file

from toolkit.cli import dispatch
from toolkit.models.build import from_folder
from toolkit.models.numerics import as_overrides

ROOT = Path(__file__).resolve().parents[2]
WORDS = shlex.split(
    "steps=2 data.global_batch_size=4 optim.lr=1e-3 optim.warmup_steps=1 precision=fp32 workers=0 logging.every_steps=1 "
    "logging.tensorboard=false checkpoint.every_steps=0"
)


def written_open_clip(folder: Path) -> Path:
    """A CLIP of open_clip without a name of its own, as its hub folders are."""
    cfg = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 16, "width": 64, "heads": 2, "layers": 1},
    }
    folder.mkdir()
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**cfg).state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg}))
    return folder


def written_hugging_face(folder: Path) -> Path:
    """A CLIPModel saved by transformers."""
    transformers = pytest.importorskip("transformers")
    size = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 64, "intermediate_size": 128}
    torch.manual_seed(0)
    cfg = transformers.CLIPConfig(
        vision_config={**size, "image_size": 32, "patch_size": 16},
        text_config={**size, "max_position_embeddings": 16},
        projection_dim=24,
    )
    transformers.CLIPModel(cfg).save_pretrained(folder)
    return folder


def written_openai(folder: Path) -> Path:
    """A state dict of OpenAI's."""
    folder.mkdir()
    torch.save(openai_state(), folder / "clip.pt")
    return folder / "clip.pt"


def written_training(folder: Path) -> Path:
    """What the authors' training script writes: student, optimizer, scheduler, epoch."""
    folder.mkdir()
    state = {**prefixed(vit_state(), "visual."), "visual.proj": PROJECTION}
    content = {"epoch": 3, "image_state_dict": state, "best_loss": 1e7, "img_optimizer_state_dict": {"state": {}}}
    torch.save({**content, "img_scheduler_state_dict": {}}, folder / "checkpoint.pth.tar")
    return folder / "checkpoint.pth.tar"


TEACHERS = {"open_clip": written_open_clip, "hugging_face": written_hugging_face, "openai": written_openai}


@pytest.mark.slow
@pytest.mark.parametrize("layout", TEACHERS)
def test_two_steps(layout: str, tmp_path: Path, make_shards: Callable[..., Path]) -> None:
    """The teacher is the folder, to the last bit of its weights' hash; the student starts from the other folder and moves."""
    dispatch(
        ["import", str(TEACHERS[layout](tmp_path / "theirs")), "--layout", layout, "--out", str(tmp_path / "teacher")]
    )
    dispatch(["import", str(written_training(tmp_path / "released")), "--out", str(tmp_path / "student")])
    card = json.loads((tmp_path / "student" / "student.json").read_text())
    assert card["imported"]["layout"] == "dimefm" and card["numerics"]["layer_norm_eps"] == [1e-5]
    images, texts = (make_shards(name, 8, fields=(name,)) for name in ("png", "txt"))
    words = [f"teacher.name={tmp_path / 'teacher'}", f"student.pretrained={tmp_path / 'student'}"]
    words += [
        *shlex.split(as_overrides(card)),
        f"data.images={images}",
        f"data.texts={texts}",
        f"out_dir={tmp_path / 'run'}",
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "recipes" / "distill_vitb32.py"), *words, *WORDS],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    last = tmp_path / "run" / "checkpoints" / "step_00000002"
    before, after = (load_file(folder / "student.safetensors") for folder in (tmp_path / "student", last))
    assert before.keys() == after.keys()
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
    assert 0 < max(moved.values()) < 0.01 and sum(value > 0 for value in moved.values()) > len(moved) / 2
    student: Any = from_folder(last, asked_by="test")
    assert student.preprocess.image_size == 32 and student.module.visual.ln_post.eps == 1e-5
    out = tmp_path / "exported"
    dispatch(
        ["export", str(tmp_path / "run"), "--to", "open_clip" if layout != "open_clip" else "onnx", "--out", str(out)]
    )
    record = json.loads((out / "export.json").read_text())
    assert record["parity"]["text_features"] < 1e-5 and record["text_tower"]["name"] == str(tmp_path / "teacher")

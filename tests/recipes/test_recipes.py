"""Every recipe resolves, prints its dry run without torch, and those that can run here do, for a few steps."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from launch_ranks import environment, free_port
from safetensors.torch import load_file

from toolkit import config

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.py"))
FEW = [
    "logging.every_steps=1",
    "checkpoint.every_steps=0",
    "evaluation.every_steps=0",
    "evaluation.best=''",
    "workers=0",
    "logging.tensorboard=false",
]


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*words: str, cwd: Path, ranks: int = 0) -> subprocess.CompletedProcess[str]:
    """A recipe as a user starts it: alone, or through DeepSpeed's launcher."""
    launcher = [
        str(Path(sys.executable).with_name("deepspeed")),
        "--num_gpus",
        str(ranks),
        "--master_port",
        free_port(),
    ]
    start = launcher if ranks else [sys.executable]
    return subprocess.run([*start, *words], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=400)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_is_short_and_resolves(path):
    assert len(path.read_text().splitlines()) <= 60
    module = load(path)
    assert module.__doc__ and "deepspeed" in module.__doc__
    words = (
        ["data.images=a", "data.texts=b"] if not module.DEFAULTS.data.images and not module.DEFAULTS.data.pairs else []
    )
    assert config.resolve(module.DEFAULTS, words).steps == module.DEFAULTS.steps


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_dry_run_touches_nothing(path, tmp_path):
    done = run("-X", "importtime", str(path), "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "images per step = 1 ranks" in done.stdout
    assert not re.search(r"\btorch\b", done.stderr)
    assert not list(tmp_path.iterdir())


def test_paper_recipe_has_the_papers_numbers():
    defaults = load(ROOT / "recipes" / "distill_vitb32.py").DEFAULTS
    assert (defaults.steps, defaults.data.global_batch_size, defaults.optim.warmup_steps) == (324_800, 12_288, 12_992)
    assert (defaults.optim.lr, defaults.optim.warmup_lr, defaults.optim.min_lr) == (8e-4, 4e-6, 4e-5)
    assert (defaults.optim.weight_decay, defaults.optim.gradient_clipping, defaults.optim.betas) == (
        0.05,
        0.0,
        (0.9, 0.999),
    )
    assert {name: term.weight for name, term in defaults.losses.items()} == {"vl": 0.7, "pvl": 0.3, "udist": 0.0}
    assert (defaults.teacher.name, defaults.teacher.pretrained) == ("ViT-L-14-quickgelu", "openai")
    assert (defaults.data.augmentation.crop_scale, defaults.data.teacher_view) == ((0.08, 1.0), "plain")


def test_recipe_without_shards_says_what_to_set(tmp_path):
    done = run(str(ROOT / "recipes" / "distill_vitb32.py"), cwd=tmp_path)
    assert done.returncode == 2
    assert "data.images is not set" in done.stderr and "data.texts is not set" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """Six steps of the quickstart on two ranks through the real launcher, with a user's own student from the README."""
    folder = tmp_path_factory.mktemp("quickstart")
    snippet = re.search(r"```python\n# my_student\.py\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    assert 0 < len([line for line in snippet.splitlines() if line.strip()]) < 10
    (folder / "my_student.py").write_text(snippet)
    words = [*FEW, "steps=6", "optim.warmup_steps=2", "data.global_batch_size=64"]
    done = run(str(ROOT / "recipes" / "quickstart.py"), "student.name=my_student:tiny", *words, cwd=folder, ranks=2)
    return folder, done


def test_quickstart_trains_the_readmes_student(quickstart):
    folder, done = quickstart
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((folder / "runs/quickstart/report.json").read_text())
    for who in ("teacher", "student", "untrained"):
        assert 0 <= report[who]["top1"] <= 100
    assert {"unseen_top1", "image_params"} <= report["student"].keys() & report["teacher"].keys()
    assert report["seconds"] > 0
    page = (folder / "runs/quickstart/report.html").read_text()
    assert "my_student:tiny" in page
    checkpoint = folder / "runs/quickstart/checkpoints/step_00000006"
    assert {"student.safetensors", "student.json", "manifest.json", "state.json"} <= {
        p.name for p in checkpoint.iterdir()
    }


def test_rerun_resumes_on_any_ranks_and_other_settings_are_refused(quickstart):
    folder, _ = quickstart
    words = [*FEW, "steps=6", "optim.warmup_steps=2", "data.global_batch_size=64", "student.name=my_student:tiny"]
    again = run(str(ROOT / "recipes" / "quickstart.py"), *words, cwd=folder, ranks=2)
    assert again.returncode == 0 and "at step 6" in again.stdout
    other = run(str(ROOT / "recipes" / "quickstart.py"), *words, "optim.lr=1e-3", cwd=folder)
    assert other.returncode == 2 and "optim.lr: 0.003 -> 0.001" in other.stderr and "Traceback" not in other.stderr
    fewer = run(str(ROOT / "recipes" / "quickstart.py"), *words, cwd=folder)
    assert fewer.returncode == 0 and "its optimizer state is converted" in fewer.stdout


def test_embedded_teacher_is_small_and_good(quickstart):
    folder, _ = quickstart
    report = json.loads((folder / "runs/quickstart/report.json").read_text())
    weights = ROOT / "toolkit/playground/assets/teacher/student.safetensors"
    assert weights.stat().st_size <= 4_000_000
    assert all(value.isfinite().all() for value in load_file(weights).values())
    assert report["teacher"]["seen_top1"] >= 90 and report["teacher"]["unseen_top1"] >= 65
    assert report["untrained"]["top1"] < 5

"""The built wheel carries what it needs: `dime` works from an empty folder, from the wheel's own files."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from launch_ranks import environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel, built from this tree without network and unpacked into a folder of its own."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    site = out / "site"
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    return site


def python(site: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python with the unpacked wheel first on its path, working in an empty folder."""
    env = environment(PYTHONPATH=str(site))
    return subprocess.run([sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def test_wheel_carries_its_files(unpacked):
    for name in (
        "playground/assets/teacher/student.safetensors",
        "playground/assets/words.model",
        "report/template.html",
        "demo/page.html",
        "bundled/ds_configs/zero3_offload.json",
        "bundled/recipes/distill_vitb32.py",
        "bundled/slurm/distill.sh",
    ):
        assert (unpacked / "toolkit" / name).is_file(), name


def test_recipe_of_the_wheel_resolves_outside_the_repository(unpacked, tmp_path):
    recipe = unpacked / "toolkit" / "bundled" / "recipes" / "quickstart.py"
    done = python(unpacked, tmp_path, str(recipe), "--dry-run")
    assert done.returncode == 0, done.stderr[-2000:]
    assert str(unpacked) in done.stdout  # the teacher's folder, hence the wheel's own package was used


def test_dime_runs_outside_the_repository(unpacked, tmp_path):
    done = python(unpacked, tmp_path, "-m", "toolkit.cli", "report", "nowhere")
    assert done.returncode == 2 and "DataError" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_demo_of_the_wheel(unpacked, tmp_path):
    few = [
        "steps=4",
        "optim.warmup_steps=1",
        "data.global_batch_size=64",
        "evaluation.every_steps=0",
        "evaluation.best=''",
    ]
    done = python(unpacked, tmp_path, "-m", "toolkit.cli", "demo", "--json", *few)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / "runs/quickstart/report.html").is_file()
    assert json.loads(done.stdout.splitlines()[-1])["teacher"]["top1"] > 80

"""A small world, written once."""

import shutil
from pathlib import Path

import pytest
from doctor.looking import playground_run

from toolkit.config import Run
from toolkit.playground.shards import write_world


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training in this process leaves its ranks in the environment."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def kept_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return write_world(
        tmp_path_factory.mktemp("doctor") / "world", images=96, texts=96, test_images_per_class=1, test_pairs=20
    )


@pytest.fixture
def world(kept_world: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(kept_world, tmp_path / "world"))


@pytest.fixture
def run(world: Path, tmp_path: Path) -> Run:
    """Of the playground, over `world`."""
    return playground_run(world, tmp_path / "run")

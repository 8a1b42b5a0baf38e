"""Runs with one checkpoint of a random scene student, and their pages."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from demo.asking import CLIP, STUDENT, save_run

from toolkit.demo.command import server_of
from toolkit.demo.server import DemoServer
from toolkit.evaluate.loading import models_of_run
from toolkit.playground.prepare import TEACHER


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Student without a text tower, and its teacher."""
    return save_run(tmp_path_factory.mktemp("demo") / "tiny", STUDENT, f"teacher.name={TEACHER}")


@pytest.fixture(scope="session")
def lonely_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Student with a text tower, no teacher."""
    return save_run(tmp_path_factory.mktemp("demo") / "lonely", CLIP)


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., DemoServer]]:
    """`serve(folder, *overrides)`: a server in a thread, warmed up, on a free port."""
    servers: list[DemoServer] = []

    def start(folder: Path, *overrides: str) -> DemoServer:
        server = server_of(models_of_run(folder, "newest", overrides), folder, 0, lambda line: None)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
        server.classifier.close()


@pytest.fixture(scope="session")
def server(serve: Callable[..., DemoServer], run_folder: Path) -> DemoServer:
    """Of the run with a teacher."""
    return serve(run_folder)

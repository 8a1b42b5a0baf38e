"""Data workers do not outlive the process that reads them."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, torch
from toolkit.evaluate.sets import rank_loader

if __name__ == "__main__":
    batches = rank_loader([{"x": torch.zeros(1)}] * 100_000, 1, 1)
    next(batches)
    HOW
"""


@pytest.mark.parametrize(
    "how", ["os._exit(2)", pytest.param("os.kill(os.getpid(), signal.SIGKILL)", marks=pytest.mark.slow)]
)
def test_a_process_that_ends_at_once_leaves_no_worker_that_holds_its_output(tmp_path, how: str) -> None:
    script = tmp_path / "reads.py"
    script.write_text(SCRIPT.replace("HOW", how))
    ended = subprocess.run([sys.executable, script], capture_output=True, timeout=90)  # returns when all have closed it
    assert ended.returncode == (2 if "_exit" in how else -9)

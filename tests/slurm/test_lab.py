"""The private cluster itself, in both of its modes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_lab import SlurmLab
from slurm_layout import best_mode


@pytest.mark.parametrize("mode", ["netns", "loop"])
def test_two_nodes_without_privilege_or_leavings(labs: Callable[[str], SlurmLab], tmp_path: Path, mode: str) -> None:
    """Beside the one that other tests use; tasks run on both nodes, and GPUs are handed out."""
    if mode == "netns" and best_mode() != mode:
        pytest.skip("no namespaces here (unshare -Urn true)")
    with SlurmLab(tmp_path / "lab", mode=mode) as lab:
        said = lab.run("srun", "-N2", "--gpus-per-node=2", "sh", "-c", "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES")
        assert sorted(said.splitlines()) == [f"{name} 0,1" for name in lab.layout.names]
        if mode == "netns":
            assert sorted(lab.run("srun", "-N2", "hostname").split()) == lab.layout.names
            assert lab.run("srun", "-N1", "ls", "/dev/shm") == ""
        processes = [process for _, process in lab.daemons.started]
    assert all(process.poll() is not None for process in processes)

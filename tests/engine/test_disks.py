"""Disks that fill, turn read-only or stall under a real run: what it says, how it ends, and that nothing is lost."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from data.site import Site
from killing import Started, needs_proc
from launch_ranks import environment, free_port

from toolkit import checkpoint
from toolkit.data.shards import expand_shards, scan_shard, write_shards
from toolkit.playground.shards import write_world

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("faults_worker.py")
needs_namespaces = pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "-Urm", "true"]).returncode != 0,
    reason="no mount namespaces here: a small disk cannot be mounted",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("disks"), images=96, texts=96, test_images_per_class=1, test_pairs=20)


def in_a_namespace(script: str) -> subprocess.CompletedProcess[str]:
    """Run by a shell that may mount."""
    more = {"PYTHONPATH": str(ROOT), "PACE": "0.1"}
    return subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
@needs_namespaces
@pytest.mark.parametrize("case", ["full", "read_only"])
def test_the_disk_of_the_checkpoints(world: Path, tmp_path: Path, case: str) -> None:
    """A tmpfs that holds two checkpoints, or turns read-only in the middle: one clear message, exit code 6, the old ones whole."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = "3m" if case == "full" else "64m"
    folder, wait = disk / "run" / "checkpoints", f"while [ ! -e {disk}/run/checkpoints/newest ]; do sleep 0.1; done"
    later = "" if case == "full" else f"({wait}; until mount -o remount,ro {folder} 2>&-; do sleep 0.05; done) &\n"
    script = (
        f"mkdir -p {folder}; mount -t tmpfs -o size={size} tmpfs {folder}\n{later}"
        f"{sys.executable} {WORKER} {world} {disk}/run steps=60 checkpoint.every_steps=2 checkpoint.keep_last=9; code=$?\n"
        f"ls {folder}; cp -r {disk}/run {tmp_path}/kept; exit $code"
    )
    found = in_a_namespace(script)
    assert found.returncode == 6, found.stdout + found.stderr
    assert "Traceback" not in found.stderr
    said = "for lack of space on the disk (" if case == "full" else "Read-only file system"
    assert found.stdout.count(said) == 2 and "2 checkpoints in a row could not be saved" in found.stderr, found.stdout
    whole = checkpoint.steps_saved(tmp_path / "kept")
    assert whole and not any(checkpoint.complaint(folder) for folder in whole)


@pytest.mark.slow
@needs_namespaces
@pytest.mark.parametrize("room", [True, False])
def test_the_disk_of_the_cache(world: Path, tmp_path: Path, room: bool) -> None:
    """Others fill the disk on which fetched shards lie: older shards make room, and where they cannot the run says so and ends."""
    shard = scan_shard(expand_shards(str(world / "train_images"), asked_by="test")[0])
    pictures = ({"__key__": shard.keys[row], "png": shard.read(row, "png")} for row in range(shard.count))
    write_shards(tmp_path / "web", pictures, 12)
    largest = max(path.stat().st_size for path in (tmp_path / "web").glob("*.tar"))
    site = Site(tmp_path / "web")
    disk = tmp_path / "disk"
    disk.mkdir()
    left = largest * 3 + 65536 if room else largest // 2
    arrived = f"while [ $(ls {disk}/cache 2>&- | grep -c tar$) -lt 3 ]; do sleep 0.01; done"
    fill = f"dd if=/dev/zero of={disk}/others bs=4096 count=$((($(df -B1 --output=avail {disk} | tail -1) - {left}) / 4096))"
    script = (
        f"mount -t tmpfs -o size={largest * 7} tmpfs {disk}; ({arrived}; {fill} 2>&-) &\n"
        f"{sys.executable} {WORKER} {world} {tmp_path}/run steps=16 data.images={site.url}/{{00000..00007}}.tar data.cache_dir={disk}/cache"
    )
    try:
        found = in_a_namespace(script)
    finally:
        site.close()
    said = found.stdout + found.stderr
    if room:
        assert found.returncode == 0 and "is removed from the cache" in found.stdout, said
        return
    assert found.returncode == 6 and "Traceback" not in found.stderr, said
    assert f"the cache of shards {disk}/cache cannot be written (No space left on device); set data.cache_dir" in said


def until(ready: Callable[[], object], launch: Started, seconds: float) -> None:
    """Wait for it; shows the launch's last words where it does not come."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, launch.last_words()
        time.sleep(0.05)


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """An ext4 of its own, which `fsfreeze` can stall."""
    image = folder.with_suffix(".img")
    image.touch()
    os.truncate(image, 64 << 20)
    words = [["mkfs.ext4", "-q", str(image)], ["mount", "-o", "loop", str(image), str(folder)]]
    folder.mkdir()
    for line in words:
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"needs root and a loop device: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "-u", str(folder)], capture_output=True)
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@needs_proc
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("fsfreeze") is None, reason="needs root, to freeze a file system")
def test_a_file_system_that_stalls(world: Path, tmp_path: Path) -> None:
    """Every write to out_dir hangs, as on a dead NFS server: said within the stated time, and gone on with when it is back."""
    disk = tmp_path / "disk"
    log = tmp_path / "log"
    words = [str(WORKER), str(world), str(disk / "run"), "steps=40", "faults.hang_seconds=8"]
    launcher = [str(Path(sys.executable).with_name("deepspeed")), "--master_port", free_port(), "--num_gpus", "2"]

    def start(pace: str) -> Started:
        return Started([*launcher, *words], tmp_path, log, {"PYTHONPATH": str(ROOT), "PACE": pace})

    with mounted(disk):
        launch = start("0.2")
        until(lambda: (disk / "run" / "checkpoints" / "step_00000006").exists(), launch, 120)
        subprocess.run(["fsfreeze", "-f", str(disk)], check=True)
        began = time.monotonic()
        try:
            until(
                lambda: log.read_text().count("ends with code 5: no progress within faults.hang_seconds=8") == 2,
                launch,
                60,
            )
            waited = time.monotonic() - began
        finally:
            subprocess.run(["fsfreeze", "-u", str(disk)], check=True)
        assert 8 <= waited < 40, waited
        assert launch.process.wait(60) == 5
        said = log.read_text()
        assert said.count("nothing has moved for") == said.count("does not answer: does its file system hang?") == 2, (
            said
        )
        assert checkpoint.newest(disk / "run") is not None
        start("0").end(240)
        assert checkpoint.step_of(checkpoint.newest(disk / "run")) == 40

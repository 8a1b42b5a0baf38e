"""A run over two nodes without Slurm, by torchrun and by deepspeed: both nodes are this machine, started as a person starts them."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from launch_ranks import environment, free_port

from toolkit.playground.shards import write_world

REPO = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
TINY = (
    "steps=4", "optim.warmup_steps=1", "data.global_batch_size=64", "evaluation.every_steps=0", "evaluation.best=''",
    "checkpoint.every_steps=0", "logging.every_steps=1", "logging.tensorboard=false", "workers=0",
    "data.images=../world/train_images", "data.texts=../world/train_texts", "teacher.store=''",
    "evaluation.sets.scenes.shards=../world/test_classes", "evaluation.sets.scenes.classes=../world/classes.json",
    "evaluation.sets.captions.shards=../world/test_pairs",
)  # fmt: skip


def on_two_nodes(cwd: Path, *nodes: Sequence[str]) -> list[str]:
    """What each node's launcher printed; it is started in a session of its own, which is ended in any case."""
    started = [
        subprocess.Popen(words, cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for words in nodes
    ]
    try:
        said = [process.communicate(timeout=400)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    for process, output in zip(started, said, strict=True):
        assert process.returncode == 0, output[-4000:]
    return said


def losses_of(cwd: Path) -> list[float]:
    """Of the run's steps."""
    lines = [json.loads(line) for line in (cwd / "runs/quickstart/metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.mark.slow
def test_torchrun_and_deepspeed_over_two_nodes(tmp_path: Path) -> None:
    """The same run by each: two ranks, and the same losses."""
    recipe, found = str(REPO / "recipes/quickstart.py"), {}
    write_world(tmp_path / "world", images=320, texts=320, test_images_per_class=1, test_pairs=20)
    (tmp_path / "hosts").write_text("localhost slots=1\n127.0.0.2 slots=1\n")
    for launcher in ("torchrun", "deepspeed"):
        cwd = tmp_path / launcher
        cwd.mkdir()
        place = ["--master_addr=127.0.0.1", f"--master_port={free_port()}"]
        own = {
            "torchrun": ["--nnodes=2", "--nproc_per_node=1"],
            "deepspeed": [f"--hostfile={tmp_path / 'hosts'}", "--no_ssh"],
        }[launcher]
        nodes = [[str(BIN / launcher), *own, f"--node_rank={node}", *place, recipe, *TINY] for node in (0, 1)]
        said = on_two_nodes(cwd, *nodes)
        assert "64 images per step = 2 ranks x 32 per rank" in said[0]
        found[launcher] = losses_of(cwd)
    assert len(found["torchrun"]) == 4
    assert found["torchrun"] == found["deepspeed"]


PDSH = """\
#!/bin/bash
# pdsh -S -f 1024 -w HOSTS WORD...: the words are joined for a shell on each host, where %n is its number
while [[ $1 == -* ]]; do [[ $1 == -S ]] && shift || { [[ $1 == -w ]] && hosts=$2; shift 2; }; done
number=0 line=$*
for host in ${hosts//,/ }; do
    bash -c "${line//%n/$number}" 2>&1 | sed "s/^/$host: /" &
    number=$((number + 1))
done
wait
"""


@pytest.mark.slow
def test_words_survive_deepspeeds_hostfile(tmp_path: Path) -> None:
    """deepspeed hands them to a shell on each host; ssh and pdsh are stand-ins that start that shell here."""
    for name, text in (("pdsh", PDSH), ("ssh", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "hosts").write_text("one slots=2\ntwo slots=2\n")
    words = [
        "data.images=a b/{00000..00003}.tar::it/*.tar",
        "data.texts=b/texts",
        "data.global_batch_size=64",
        "--dry-run",
    ]
    env = environment()
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    launcher = [str(BIN / "deepspeed"), "--hostfile=hosts", "--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    command = [*launcher, str(REPO / "recipes/quickstart.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for host in ("one", "two"):
        said = [line.removeprefix(f"{host}: ") for line in done.stdout.splitlines() if line.startswith(f"{host}: ")]
        assert "  images: a b/{00000..00003}.tar::it/*.tar" in said, said
        assert any("64 images per step = 4 ranks x 16 per rank" in line for line in said)

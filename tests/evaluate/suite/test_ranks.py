"""Two processes give what one gives."""

import json
from pathlib import Path

from launch_ranks import run_ranks

WORKER = Path(__file__).with_name("judge_worker.py")


def test_two_ranks_equal_one(data: Path, tmp_path: Path) -> None:
    """15 pictures and 9 prompts: neither divides by two. Probes are shared out, one model each."""
    run = str(scene_run(tmp_path))
    rows = []
    for ranks in (1, 2):
        output = run_ranks(WORKER, run, str(data), str(tmp_path / f"out{ranks}"), ranks=ranks)
        rows.append(json.loads(output[0].strip().splitlines()[-1]))
    for tasks in rows:
        for task in tasks.values():
            for row in task["rows"].values():
                row.pop("seconds", None)
    assert rows[0] == rows[1]


def scene_run(tmp_path: Path) -> Path:
    """A student of the playground: other processes know its name, as they do not know a test's own architectures."""
    from export.conftest import UNPAIRED, save_run, shaken

    from toolkit.models.build import build_model
    from toolkit.playground.prepare import TEACHER

    model = build_model(
        "toolkit.playground.towers:scene_student", {"width": 8}, embed_dim=128, text_tower=False, asked_by="test"
    )
    return save_run(tmp_path / "scene", shaken(model), [f"teacher.name={TEACHER}", "student.kwargs.width=8", *UNPAIRED])

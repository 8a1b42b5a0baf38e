"""A hundred times kill -9 of a random rank at a random moment, started again each time: is the student what it would have been?

    python benchmarks/kills.py [--kills 100] [--no-receipt]          (about half an hour on two cores)

Two ranks with a data process for each stream, a checkpoint every third step, written in the background. The moments: so many
steps after a resume, while a checkpoint is being written, or at any time of a launch, start-up and filling of the data queue
included. A rank or one of its data processes is killed; what is left must end by itself. Every rank notes the samples of each
step as it uses them. Compared at the end with a run that nobody disturbed: the samples of every step, its loss, the weights.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from receipt import receipt, write

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "engine")]

import torch  # noqa: E402
from killing import Started  # noqa: E402
from launch_ranks import free_port  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from toolkit.playground.shards import write_world  # noqa: E402

WORKER = ROOT / "tests" / "engine" / "killed_worker.py"
MOMENTS = ("steps", "saving", "any time")


class Run:
    """A folder that is launched again and again."""

    def __init__(self, folder: Path, name: str, steps: int) -> None:
        """`folder` holds world/."""
        self.folder, self.out, self.steps = folder, folder / name, steps
        self.out.mkdir()

    def start(self) -> Started:
        """Two ranks through the launcher."""
        launcher = [str(Path(sys.executable).with_name("deepspeed")), "--master_port", free_port(), "--num_gpus", "2"]
        words = [str(WORKER), str(self.folder / "world"), str(self.out), str(self.out / "notes"), "1"]
        return Started(
            [*launcher, *words], self.folder, self.folder / "log", {"PYTHONPATH": str(ROOT), "STEPS": str(self.steps)}
        )

    def noted(self) -> int:
        """How often rank 0 has begun a step."""
        notes = self.out / "notes"
        return notes.read_text().count('"rank": 0') if notes.exists() else 0

    def being_written(self) -> set[str]:
        """Checkpoints without their name."""
        return {path.name for path in self.out.glob("checkpoints/.step_*")}

    def victims(self, launch: Started) -> list[int]:
        """The ranks, and their data processes (what a forkserver has forked)."""
        found = {}
        for pid in launch.left():
            with suppress(OSError):
                if b"\0RANK=" in Path(f"/proc/{pid}/environ").read_bytes():
                    found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
        servers = {pid for pid, words in found.items() if b"forkserver" in words}
        return [pid for pid, words in found.items() if str(WORKER).encode() in words or parent_of(pid) in servers]


def parent_of(pid: int) -> int:
    """0 where it is gone."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def main() -> None:
    """Undisturbed, then disturbed, then compared."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--kills", type=int, default=100)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--no-receipt", action="store_true")
    given = words.parse_args()
    steps = 5 * given.kills + 40
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_world(folder / "world", images=256, texts=256, test_images_per_class=1, test_pairs=20)
        whole, broken = Run(folder, "whole", steps), Run(folder, "broken", steps)
        began = time.monotonic()
        whole.start().end(3600)
        straight = time.monotonic() - began
        print(f"undisturbed: {steps} steps in {straight:.0f} s", flush=True)
        began, kills, launches = time.monotonic(), Counter[str](), 0
        while kills.total() < given.kills:
            launch = broken.start()
            launches += 1
            where = killed(broken, launch, MOMENTS[launches % 3], rng)
            kills[where] += bool(where)
            print(f"launch {launches}: killed in {where or 'nothing, it had ended'}; {kills.total()} kills", flush=True)
            if not where and launch.process.returncode == 0:
                break
        last = broken.start()
        launches += 1
        last.end(3600)
        seconds = time.monotonic() - began
        raw = {
            "kills": dict(kills), "launches": launches, "steps": steps, "seconds": round(seconds), "undisturbed_seconds": round(straight),
            "steps_done_twice": broken.noted() - steps, **compared(whole, broken),
        }  # fmt: skip
    text = table(raw)
    print(text)
    if not given.no_receipt:
        command = " ".join(["python benchmarks/kills.py", *sys.argv[1:]])
        write("kills_cpu2_202611", "A rank killed with SIGKILL, again and again", text, receipt(command), raw)


def killed(run: Run, launch: Started, moment: str, rng: random.Random) -> str:
    """Kill one process of a launch at some moment; where it was, empty when the launch ended before."""
    first, leavings = run.noted(), run.being_written()
    later, pause, span = rng.randint(1, 8), rng.uniform(0, 0.3), rng.uniform(1, 20)
    began = time.monotonic()
    while launch.process.poll() is None:
        due = {
            "steps": run.noted() >= first + later,
            "saving": bool(run.being_written() - leavings) and run.noted() > first,
            "any time": time.monotonic() - began > span,
        }[moment]
        if due:
            time.sleep(pause if moment != "saving" else pause / 10)
            saving, steps = run.being_written() - leavings, run.noted()
            victims = run.victims(launch)
            if not victims:
                continue
            with suppress(ProcessLookupError):
                os.kill(rng.choice(victims), signal.SIGKILL)
            where = "saving" if saving else "set-up" if steps == first else "steps"
            ended_by_itself(launch)
            return where
        time.sleep(0.005)
    launch.kill()
    return ""


def ended_by_itself(launch: Started) -> None:
    """The others notice, and the launcher ends with an error; what is left after a minute is a failure of ours."""
    try:
        code = launch.process.wait(120)
    finally:
        launch.kill()
    assert code != 0, launch.last_words()


def compared(whole: Run, broken: Run) -> dict[str, Any]:
    """Samples, losses and weights of two runs."""
    ends = [
        load_file(run.out / "checkpoints" / f"step_{run.steps:08d}" / "student.safetensors") for run in (whole, broken)
    ]
    return {
        "same_samples": consumed(whole) == consumed(broken),
        "samples_done_twice_were_the_same": consumed(broken) is not None,
        "same_losses": losses(whole) == losses(broken),
        "same_weights": ends[0].keys() == ends[1].keys()
        and all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0]),
        "different_samples": len({key for step in consumed(broken).values() for keys in step.values() for key in keys}),
    }


def consumed(run: Run) -> dict[tuple[int, int], dict[str, list[str]]]:
    """`shard:key` of every row by (step, rank) and stream; whatever was done twice must have been the same."""
    found: dict[tuple[int, int], dict[str, list[str]]] = {}
    for line in map(json.loads, (run.out / "notes").read_text().splitlines()):
        place = line["step"], line["rank"]
        assert found.setdefault(place, line["keys"]) == line["keys"], f"{place} had other samples the second time"
    assert sorted(found) == [(step, rank) for step in range(run.steps) for rank in (0, 1)], "a step is missing"
    return found


def losses(run: Run) -> list[float]:
    """After each step, every step once."""
    lines = [json.loads(line) for line in (run.out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, run.steps + 1))
    return [line["train/loss"] for line in lines]


def table(raw: dict[str, Any]) -> str:
    """In words."""
    kinds = ", ".join(f"{count} in {where}" for where, count in sorted(raw["kills"].items()))
    verdict = {True: "the same", False: "**DIFFERENT**"}
    return "\n".join(
        [
            "| | |",
            "|---|---|",
            f"| kills | {sum(raw['kills'].values())} ({kinds}) |",
            f"| launches | {raw['launches']} |",
            f"| steps | {raw['steps']}, {raw['steps_done_twice']} of them begun once more |",
            f"| seconds | {raw['seconds']} ({raw['undisturbed_seconds']} undisturbed) |",
            f"| samples of every step and rank | {verdict[raw['same_samples']]} |",
            f"| losses of all steps | {verdict[raw['same_losses']]} |",
            f"| weights at the end, bit for bit | {verdict[raw['same_weights']]} |",
        ]
    )


if __name__ == "__main__":
    main()

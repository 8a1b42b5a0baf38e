"""What was asked for, checked before anything is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import ConfigError
from toolkit.registry import did_you_mean

ON_SETS = (
    "zero_shot",
    "linear_probe",
    "linear_probe_clean",
    "fine_tune",
    "fine_tune_clean",
    "k_shot",
    "k_shot_fine_tune",
)
"""On labelled sets. `_clean`: nothing is chosen on test pictures; the others are ELEVATER's."""
TASKS = (*ON_SETS, "retrieval", "compositionality")
ALL = "all"


@dataclass(frozen=True)
class Request:
    """One `dime evaluate MODEL --tasks ...`."""

    model: str
    data: Path
    tasks: tuple[str, ...] = ("zero_shot",)
    sets: tuple[str, ...] = ()
    """Names and groups; empty: all that are there."""
    beside: tuple[str, ...] = ()
    """More models to judge on the same pictures."""
    checkpoint: str = "newest"
    overrides: tuple[str, ...] = ()
    out: Path | None = None
    cache: Path | None = None
    predictions: Path | None = None
    """Folder for ELEVATER's submission files."""
    shots: tuple[int, ...] = (5,)
    seeds: tuple[int, ...] = (0, 1, 2)
    """Draws of the k-shot tasks."""
    learning_rates: tuple[float, ...] = ()
    """That the searches try; empty: ELEVATER's six."""
    trial_epochs: int = 10
    final_epochs: int = 50
    two_lr: bool = False
    trained_projection: bool = False
    precision: str = "fp32"
    batch_size: int = 64
    workers: int = 2
    pictures: tuple[str, ...] = (ALL,)
    """Sets whose pictures may stand in the results; `all` or `none`."""
    sentences: Path | None = None
    """A sentence per line, of which the nearest ones to sample pictures are shown."""
    cost: bool = True

    def on_sets(self) -> list[str]:
        """Tasks on labelled sets, as named in the results: `k_shot` becomes one per number of shots."""
        found: list[str] = []
        for task in ON_SETS:
            if task in self.tasks:
                shot = task.startswith("k_shot")
                found += [task.replace("k_", f"{k}_", 1) for k in self.shots] if shot else [task]
        return found

    def trains(self) -> bool:
        """Does a task need training pictures."""
        return any(task != "zero_shot" for task in self.on_sets())

    def shows(self, name: str) -> bool:
        """May pictures of this set stand in the results."""
        return ALL in self.pictures or name in self.pictures


def check(request: Request) -> Request:
    """Raise ConfigError for what contradicts itself."""
    for task in request.tasks:
        if task not in TASKS:
            raise ConfigError(f"--tasks: no task {task!r}{did_you_mean(task, TASKS)}; known: {', '.join(TASKS)}")
    if not request.tasks:
        raise ConfigError(f"--tasks is empty; known: {', '.join(TASKS)}")
    least: dict[str, tuple[Sequence[float], float]] = {
        "--shots": (request.shots, 1), "--seeds": (request.seeds, 0), "--trial-epochs": ([request.trial_epochs], 1),
        "--final-epochs": ([request.final_epochs], 1), "--batch-size": ([request.batch_size], 1), "--workers": ([request.workers], 0),
    }  # fmt: skip
    for option, (values, low) in least.items():
        if not values or min(values) < low or len(set(values)) < len(values):
            raise ConfigError(
                f"{option} {','.join(map(str, values)) or '(nothing)'}: give numbers from {low:g} on, each once"
            )
    if any(not 0 < rate < 1e3 for rate in request.learning_rates):
        raise ConfigError(f"--learning-rates {request.learning_rates}: give numbers above 0, such as 1e-3,1e-2")
    if request.predictions and not request.on_sets():
        raise ConfigError(
            "--predictions goes with tasks on labelled sets, such as --tasks zero_shot; add one, or leave it out"
        )
    if request.sentences and not (request.on_sets() and request.pictures not in ((), ("none",))):
        raise ConfigError(
            "--sentences shows those nearest to pictures of a labelled set; found "
            f"--tasks {','.join(request.tasks)} --pictures {','.join(request.pictures)}; add zero_shot or pictures, or leave it out"
        )
    if request.trained_projection and not {"linear_probe", "linear_probe_clean", "k_shot"} & set(request.tasks):
        raise ConfigError("--trained-projection goes with linear_probe or k_shot; add one of them, or leave it out")
    if len(set(request.beside) | {request.model}) <= len(request.beside):
        raise ConfigError("--beside names a model twice, or the one that is judged anyway; name each once")
    return request


def shots_of(task: str) -> int:
    """Pictures per class of `5_shot` and `5_shot_fine_tune`; 0: all."""
    return int(task.split("_")[0]) if "_shot" in task and task != "zero_shot" else 0


def listed(text: str, kind: type, option: str) -> tuple[Any, ...]:
    """`5,20` -> (5, 20); raises ConfigError."""
    try:
        return tuple(kind(part.strip()) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(
            f"{option} {text}: give {'whole numbers' if kind is int else 'numbers'} with commas between"
        ) from None

"""What results.json says about the models of a benchmark, checked and typed; nothing is drawn here."""

from dataclasses import dataclass, field

from toolkit.report.run_files import Prediction, Sample

TEACHER = "teacher"
GROUP_SIZES = {"elevater": 20, "robustness": 5}
"""Sets of the groups that have a mean."""
GROUP_TITLES = {
    "imagenet": "ImageNet",
    "elevater": "ELEVATER",
    "robustness": "robustness sets",
    "yours": "your own sets",
}


@dataclass(frozen=True)
class Interval:
    """Percent with its 95 % bootstrap interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Bin:
    """Of a reliability diagram; all fractions."""

    confidence: float
    accuracy: float
    share: float


@dataclass(frozen=True)
class Row:
    """One model on one set in one task."""

    score: Interval
    per_class: list[float | None] = field(default_factory=list)
    ece: float | None = None
    bins: list[Bin] = field(default_factory=list)
    more: dict[str, float] = field(default_factory=dict)
    """By the keys of details.DETAILS: what is there of them"""
    seeds: int = 0
    std: float | None = None
    """Of k-shot, over seeds"""


@dataclass(frozen=True)
class Difference:
    """Points, the model in question minus another on the same pictures."""

    score: Interval
    p_value: float | None


@dataclass(frozen=True)
class Worst:
    """A class that the model in question finds badly."""

    name: str
    recall: float
    teacher_recall: float | None
    confused: list[Prediction]
    pictures: list[Sample]


@dataclass(frozen=True)
class Task:
    """One way of judging on one set, such as zero_shot."""

    label: str
    rows: dict[str, Row]
    differences: dict[str, Difference]
    worst: list[Worst]
    pictures: list[Sample]


@dataclass(frozen=True)
class JudgedSet:
    """A set and what was done with it."""

    title: str
    group: str
    metric: str
    samples: int
    classes: int | None
    classnames: list[str]
    problems: list[str]
    tasks: dict[str, Task]
    copy: str = ""
    """Fingerprint of the pictures and labels, where it is known."""


@dataclass(frozen=True)
class Mean:
    """Over all sets of a group."""

    sets: int
    rows: dict[str, Interval]
    differences: dict[str, Difference]


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one forward."""

    p50: float
    p95: float | None


@dataclass(frozen=True)
class Cost:
    """What a model costs to run; latencies by batch size."""

    image_bytes: float | None
    text_bytes: float | None
    image_ms: dict[int, Latency]
    text_ms: dict[int, Latency]
    device: str
    precision: str


@dataclass(frozen=True)
class JudgedModel:
    """A row's model."""

    what: str
    sha256: str
    embed_dim: float | None
    image_size: float | None
    image_params: float | None
    text_params: float | None
    cost: Cost | None
    licence: str = ""


PART, TEXT_ONLY = "part: ", "text only: "


@dataclass(frozen=True)
class Pairs:
    """A retrieval or compositionality set: metrics by model, in the order of the file."""

    title: str
    samples: int
    captions: int | None
    pictures: bool
    problems: list[str]
    rows: dict[str, dict[str, Interval]]
    """By model and metric; PART and TEXT_ONLY stand before the names of such metrics."""
    ranked: bool = True
    """False where rows of a comparison were judged differently: none is the best."""


@dataclass(frozen=True)
class Judgement:
    """The whole file."""

    model: str
    """The row that is in question."""
    models: dict[str, JudgedModel]
    sets: dict[str, JudgedSet]
    retrieval: dict[str, Pairs]
    compositionality: dict[str, Pairs]
    means: dict[str, dict[str, Mean]]
    sentences: list[Sample]
    """Pictures with their nearest sentences and cosines in the place of predictions"""
    missing: dict[str, str]
    facts: dict[str, object]
    """command, written_at, machine, versions and the like, as they are"""
    notes: list[str]
    compared: bool = False
    """Of several files: the models keep the order they have."""

    def names(self) -> list[str]:
        """The model in question, its teacher, then the others: in this order everywhere on the page."""
        first = [name for name in (self.model, TEACHER) if name in self.models and not self.compared]
        return list(dict.fromkeys([*first, *self.models]))

    def numbers(self) -> dict[str, int]:
        """Colour of each model: 0 for the one in question, 1 for its teacher, the others from 2."""
        if self.compared:
            return {name: number for number, name in enumerate(self.names())}
        others = iter(range(2, 2 + len(self.models)))
        return {name: 0 if name == self.model else 1 if name == TEACHER else next(others) for name in self.names()}

    def tasks(self) -> list[str]:
        """Of any set, in the order of a page."""
        found = dict.fromkeys(task for one in self.sets.values() for task in one.tasks)
        return sorted(found, key=task_order)

    def sets_of(self, task: str) -> dict[str, tuple[JudgedSet, Task]]:
        """By name, of the sets that were judged so; ImageNet, ELEVATER, robustness, then yours."""
        order = [*GROUP_TITLES]
        chosen = [(name, one) for name, one in self.sets.items() if task in one.tasks]
        chosen.sort(key=lambda item: order.index(item[1].group))
        return {name: (one, one.tasks[task]) for name, one in chosen}


TASK_TITLES = {
    "zero_shot": "Zero-shot",
    "linear_probe": "Linear probe",
    "linear_probe_clean": "Linear probe, test set read once",
    "fine_tune": "Fine-tuning",
    "fine_tune_clean": "Fine-tuning, test set read once",
}


def shots_of(task: str) -> tuple[int, str] | None:
    """(5, "fine_tune") for 5_shot_fine_tune, (5, "") for 5_shot, None for what is no k-shot task."""
    count, found, how = task.partition("_shot")
    return (int(count), how.lstrip("_")) if found and count.isdecimal() else None


def task_title(task: str) -> str:
    """'5-shot, fine tune' for 5_shot_fine_tune; words of its own for a task nobody has named."""
    shots = shots_of(task)
    if shots:
        return f"{shots[0]}-shot" + (f", {shots[1].replace('_', ' ')}" if shots[1] else ", linear probe")
    return TASK_TITLES.get(task) or task.replace("_", " ").capitalize()


def task_order(task: str) -> tuple[int, int, str]:
    """As TASK_TITLES, then k-shot by k, then the rest by name."""
    if task in TASK_TITLES:
        return (0, [*TASK_TITLES].index(task), "")
    shots = shots_of(task)
    return (1, shots[0], shots[1]) if shots else (2, 0, task)

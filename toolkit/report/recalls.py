"""Classes one by one: the worst with their pictures, and all of them in a table."""

from dataclasses import dataclass, replace

from toolkit.report.grids import Column, Entry, Grid, Line, percent_text
from toolkit.report.judged import JudgedSet, Judgement, Task, Worst, task_order, task_title
from toolkit.report.run_files import Sample

MOST_CLASSES = 1000
MOST_PICTURES = 240
"""Of a page, over all sets: it is one file that people mail."""


@dataclass
class Room:
    """How many more pictures the page takes."""

    left: int = MOST_PICTURES
    refused: int = 0

    def take(self, pictures: list[Sample]) -> list[Sample]:
        """As many of them as there is room for."""
        taken = pictures[: self.left]
        self.left -= len(taken)
        self.refused += len(pictures) - len(taken)
        return taken


@dataclass(frozen=True)
class WorstClass:
    """As the page shows it."""

    name: str
    recalls: list[tuple[str, str]]
    """Whose, and percent"""
    confused: str
    pictures: list[Sample]


@dataclass(frozen=True)
class SetClasses:
    """Of one set over all tasks."""

    title: str
    worst: list[WorstClass]
    tables: list[Grid]
    """Recall per class, one for each task."""
    pictures: list[Sample]


def set_classes(results: Judgement, room: Room) -> list[SetClasses]:
    """Only of sets that have something to show. Room is given to samples of every set before their worst classes."""
    tasks = {
        name: [one.tasks[task] for task in sorted(one.tasks, key=task_order)] for name, one in results.sets.items()
    }
    samples = {name: room.take([picture for task in own for picture in task.pictures]) for name, own in tasks.items()}
    found = []
    for name, one in results.sets.items():
        worst = [_worst(entry, results.model, room) for task in tasks[name] for entry in task.worst]
        tables = [
            replace(table, title=f"{table.title}, {task_title(task).lower()}")
            for task in sorted(one.tasks, key=task_order)
            if (table := class_table(results, one, one.tasks[task]))
        ]
        if worst or tables or samples[name]:
            found.append(SetClasses(one.title, worst, tables, samples[name]))
    return found


def _worst(entry: Worst, model: str, room: Room) -> WorstClass:
    recalls = [(model, f"{percent_text(entry.recall)}\u00a0%")]
    if entry.teacher_recall is not None:
        recalls.append(("teacher", f"{percent_text(entry.teacher_recall)}\u00a0%"))
    confused = ", ".join(f"{name} {percent_text(share)}\u00a0%" for name, share in entry.confused)
    return WorstClass(entry.name, recalls, confused, room.take(entry.pictures))


def class_table(results: Judgement, one: JudgedSet, task: Task) -> Grid | None:
    """Recall per class by model, the model in question's worst first; None where no row has it."""
    names = [name for name in results.names() if name in task.rows and task.rows[name].per_class]
    if not names:
        return None
    count = max(len(task.rows[name].per_class) for name in names)
    recalls = {name: _padded(task.rows[name].per_class, count) for name in names}
    first = recalls[names[0]]
    order = sorted(range(count), key=lambda number: (first[number] is None, first[number] or 0.0, number))
    labels = [one.classnames[number] if number < len(one.classnames) else f"class {number}" for number in range(count)]
    lines = [
        Line(labels[number], [Entry(percent_text(recalls[name][number])) for name in names])
        for number in order[:MOST_CLASSES]
    ]
    shown = f"The worst {MOST_CLASSES:,} of {count:,} classes" if count > MOST_CLASSES else f"All {count:,} classes"
    caption = f"{shown}, by recall in percent of {names[0]}; a dash where the set has no picture of a class."
    return Grid(f"Recall of {shown.lower()}", caption, "Class", [Column(name) for name in names], lines)


def _padded(recalls: list[float | None], count: int) -> list[float | None]:
    return recalls + [None] * (count - len(recalls))

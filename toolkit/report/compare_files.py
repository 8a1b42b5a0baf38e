"""Several folders side by side: what each holds, under a name of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import DataError
from toolkit.report.judged import Judgement
from toolkit.report.read_judged import PLACES, find_results, read_judgement
from toolkit.report.run_files import Points, RunFiles, optional, read_run


@dataclass(frozen=True)
class Compared:
    """One folder."""

    name: str
    folder: Path
    run: RunFiles | None
    judgement: Judgement | None
    notes: list[str] = field(default_factory=list)

    @property
    def config(self) -> dict[str, Any]:
        """Empty for what is no run."""
        return self.run.config if self.run else {}

    @property
    def series(self) -> dict[str, Points]:
        """Of metrics.jsonl."""
        return self.run.series if self.run else {}


def read_compared(folders: Sequence[Path]) -> list[Compared]:
    """Raises DataError for a folder that is neither a run nor holds a benchmark, and where one is named twice."""
    places = [folder.resolve() for folder in folders]
    twice = next((folder for place, folder in enumerate(folders) if places[place] in places[:place]), None)
    if twice is not None:
        raise DataError(f"report of {twice}: it is named twice; a comparison needs different folders")
    return [_read(name, folder) for name, folder in zip(unique_names(places), folders, strict=True)]


def _read(name: str, folder: Path) -> Compared:
    found = find_results(folder)
    is_run = (folder / "config.yaml").is_file()
    if found is None and not is_run:
        read_run(folder)  # says what is wrong with the folder
    run = read_run(folder) if is_run else None
    if found is None:
        return Compared(name, folder, run, None, [f"no benchmark: {PLACES[0]} is not there"])
    if run is None:
        return Compared(name, folder, None, read_judgement(found))
    notes: list[str] = []
    judgement = optional(found, read_judgement, notes, "its benchmarks", "evaluate again")
    return Compared(name, folder, run, judgement, notes + (judgement.notes if judgement else []))


def unique_names(places: Sequence[Path]) -> list[str]:
    """The folder's own name, with as many of its parents as tell it from the others."""
    depth = [1] * len(places)
    while True:
        names = ["/".join(place.parts[-count:]) for place, count in zip(places, depth, strict=True)]
        alike = [number for number, name in enumerate(names) if names.count(name) > 1]
        if not alike:
            return names
        for number in alike:
            depth[number] += 1


def joined(compared: Sequence[Compared]) -> dict[str, tuple[Compared, str]]:
    """Column -> whose file it stands in and under which row: each folder's own model, then every other model once.

    Two rows of the same weights are one column, told by their sha256: a teacher that all share is shown once.
    """
    columns = {one.name: (one, one.judgement.model) for one in compared if one.judgement}
    known = {one.judgement.models[one.judgement.model].sha256 for one in compared if one.judgement}
    for one in compared:
        for row, model in one.judgement.models.items() if one.judgement else ():
            assert one.judgement is not None
            if row == one.judgement.model or (model.sha256 and model.sha256 in known):
                continue
            known.add(model.sha256)
            columns[row if row not in columns else f"{row} of {one.name}"] = (one, row)
    return columns

"""`OUT/.work`: what a broken-off run has done, and whether this one is its continuation."""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.data.index import write_aside
from toolkit.errors import DataError

WORK = ".work"
REPORT = "report.json"
REQUEST = "request.json"


class Workspace:
    """Folders for lists of inputs, scans of them, and finished shards that have no number yet."""

    def __init__(self, out: Path, request: dict[str, Any]) -> None:
        """`request`: sources and options; what the shards depend on, and nothing else (not the number of workers)."""
        self.out, self.request = out, request
        self.root = out / WORK
        self.lists, self.scans, self.shards = self.root / "lists", self.root / "scans", self.root / "shards"

    def finished(self) -> dict[str, Any] | None:
        """The report of an earlier run with the same request; raises DataError where `out` holds anything else."""
        report = self.out / REPORT
        if not self.out.exists():
            return None
        if not self.out.is_dir():
            raise DataError(f"--out {self.out} is a file; name a folder")
        if report.is_file():
            found = read_json(report)
            self._compare(found.get("request"), "shards made")
            return found
        if (self.root / REQUEST).is_file():
            self._compare(read_json(self.root / REQUEST), "an unfinished conversion")
        elif any(entry.name != WORK for entry in self.out.iterdir()):
            raise DataError(f"--out {self.out} is not empty and holds no conversion of ours; name a new folder")
        return None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the folder: a second process that writes to it at the same time is refused."""
        for folder in (self.lists, self.scans, self.shards):
            folder.mkdir(parents=True, exist_ok=True)
        with open(self.root / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise DataError(
                    f"another process is writing to {self.out}; wait for it or name another --out"
                ) from error
            write_aside(self.root / REQUEST, json.dumps(self.request))
            yield

    def remove(self) -> None:
        """Called when all is in its place."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _compare(self, found: Any, what: str) -> None:
        asked = flat(json.loads(json.dumps(self.request)))
        there = flat(found) if isinstance(found, dict) else {}
        if there == asked:
            return
        keys = [key for key in {**there, **asked} if there.get(key) != asked.get(key)]
        differ = [f"{key}: {_short(there.get(key))} there, {_short(asked.get(key))} here" for key in keys[:3]]
        raise DataError(
            f"--out {self.out} holds {what} from other sources or options ({'; '.join(differ) or 'not readable'}); repeat "
            "that command, remove the folder, or name another --out"
        )


def flat(content: dict[str, Any]) -> dict[str, Any]:
    """Options one by one, so that a message can name the one that differs."""
    options = content.get("options", {})
    return {key: value for key, value in content.items() if key != "options"} | (
        options if isinstance(options, dict) else {}
    )


def _short(value: Any) -> str:
    words = json.dumps(value)
    return words if len(words) < 160 else f"{words[:157]}..."


def read_json(path: Path) -> Any:
    """Content; raises DataError for a torn file."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} cannot be read ({error}); remove {path.parent} and start again") from error

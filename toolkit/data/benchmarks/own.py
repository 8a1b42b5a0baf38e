"""Anybody's own set: pictures by class in folders, or shards, with names and prompts in `classes.json` beside them.

`classes.json` holds `classnames` (a list in the order of the class numbers, which for folders is that of their sorted names; or, for
folders, folder -> name), `templates` with one {} each, and perhaps `metric` (accuracy, mean-per-class). All three are optional;
shards need `classnames`.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.data.benchmarks import folders
from toolkit.data.benchmarks.entry import SPLITS, Entry
from toolkit.data.benchmarks.split import Split
from toolkit.errors import DataError

CARD = "classes.json"
KEYS = ("classnames", "templates", "metric", "groups")
TEMPLATES = ("a photo of a {}.",)


@dataclass(frozen=True)
class OwnSet:
    """What there is of it, in which layout."""

    root: Path
    layout: str
    """`folders` or `webdataset`."""
    splits: dict[str, Path]
    classnames: list[str]
    templates: list[str] = field(default_factory=lambda: list(TEMPLATES))
    metric: str = "accuracy"

    def open(self, split: str) -> Split:
        """Its index, not its pictures; DataError for a split that is not there."""
        if split not in self.splits:
            raise DataError(
                f"{self.name} has {', '.join(self.splits)} and no {split} split; lay it out as {self.name}/{split}/<class>/x.jpg"
            )
        if self.layout == "webdataset":
            from toolkit.data.benchmarks.tars import read_shards

            entry = Entry(
                self.name,
                self.name,
                "yours",
                "accuracy",
                len(self.classnames),
                {},
                "",
                "",
                "",
                classnames=self.classnames,
            )
            return read_shards(entry, self.splits[split], split)
        found = folders.read_own(self.root, self.name, split)
        return Split(self.name, split, "folders", found.where, self.classnames, found.labels, found.pictures)

    @property
    def name(self) -> str:
        """That of its folder."""
        return self.root.name


def own_set(folder: Path) -> OwnSet | None:
    """What lies in a folder; None where it holds neither pictures by class nor shards. DataError for a wrong card."""
    card = read_card(folder / CARD) if (folder / CARD).is_file() else {}
    shards = shard_splits(folder)
    if shards:
        names = card.get("classnames")
        if not isinstance(names, list):
            raise DataError(
                f"{folder} holds shards and no class names; write {folder / CARD} with "
                '{"classnames": ["cat", "dog"], "templates": ["a photo of a {}."]}'
            )
        return OwnSet(folder, "webdataset", shards, names, *_rest(card))
    splits = folders.own_splits(folder)
    if not splits:
        return None
    called = sorted({one for place in splits.values() for one in folders.class_folders(place)})
    if len(called) < 2:
        raise DataError(f"{folder}: pictures of one class alone ({called[0]!r}); a set needs two classes or more")
    return OwnSet(folder, "folders", splits, _named(called, card.get("classnames"), folder / CARD), *_rest(card))


def shard_splits(folder: Path) -> dict[str, Path]:
    """Folders of .tar files: <split>/, or the folder itself as the test split."""
    found = {
        split: folder / word
        for split in SPLITS
        for word in folders.WORDS[split]
        if (folder / word).is_dir() and next((folder / word).glob("*.tar"), None)
    }
    return found or ({"test": folder} if next(folder.glob("*.tar"), None) else {})


def read_card(path: Path) -> dict[str, Any]:
    """DataError naming what is wrong with it."""
    try:
        card = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not JSON ({error}); mend it, or take it away to use the folders' names") from error
    unknown = [key for key in card if key not in KEYS] if isinstance(card, dict) else ["no object"]
    if unknown:
        raise DataError(f"{path}: {unknown[0]!r} is not understood; it may hold {', '.join(KEYS)}")
    names, templates = card.get("classnames", []), card.get("templates", list(TEMPLATES))
    texts = list(names.values()) if isinstance(names, dict) else names
    if not isinstance(texts, list) or not all(isinstance(name, str) and name for name in texts):
        raise DataError(f"{path}: classnames must be a list of names, or folder -> name")
    wrong = not isinstance(templates, list) or not templates
    if wrong or not all(isinstance(one, str) and one.count("{}") == 1 for one in templates):
        raise DataError(f"{path}: templates must be a list of texts with one {{}} each; found {templates!r:.80}")
    if card.get("metric", "accuracy") not in ("accuracy", "mean-per-class"):
        raise DataError(
            f"{path}: metric={card['metric']!r}; a set of one class per picture has accuracy or mean-per-class"
        )
    return card


def _rest(card: dict[str, Any]) -> tuple[list[str], str]:
    return list(card.get("templates", TEMPLATES)), card.get("metric", "accuracy")


def _named(called: list[str], names: Any, where: Path) -> list[str]:
    """Names of the folders, as the card has them."""
    if isinstance(names, dict):
        strange = [name for name in names if name not in called]
        if strange:
            raise DataError(f"{where}: no folder is called {strange[0]!r}; found {', '.join(called[:5])}")
        return [names.get(name, name.replace("_", " ")) for name in called]
    if names:
        if len(names) != len(called):
            raise DataError(
                f"{where}: {len(names)} classnames for {len(called)} folders; they must be as many, in sorted order"
            )
        return list(names)
    return [name.replace("_", " ") for name in called]

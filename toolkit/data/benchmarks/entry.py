"""One declarative entry per set, as JSON beside this file: classes, prompts, metric, counts, layouts, and where it comes from."""

import importlib.util
import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from toolkit.data.convert.prompts import names_of, shipped, simple
from toolkit.errors import ConfigError, DataError
from toolkit.registry import did_you_mean

FOLDER = Path(__file__).with_name("entries")
SPLITS = ("train", "val", "test")


@dataclass
class Index:
    """One split in ELEVATER's layout."""

    index: str
    """File in the set's folder: lines of iris, or JSON of coco."""
    zips: list[str] = field(default_factory=list)
    """Archives that the index points into."""


@dataclass
class Elevater:
    """How ELEVATER (vision_datasets 0.2) lays the set out."""

    folder: str
    """Below `classification/`."""
    format: Literal["iris", "coco"] = "iris"
    labels: str = ""
    """A name per line; coco has its names inside."""
    splits: dict[str, Index] = field(default_factory=dict)


@dataclass
class Torchvision:
    """How torchvision lays its own copy out."""

    name: str
    """Class in torchvision.datasets, or `cifar` and `voc`, which are read here: torchvision's would unpickle, or give boxes."""
    folder: str
    """What must be there, below the folder that torchvision calls root."""
    splits: dict[str, str] = field(default_factory=dict)
    """Our split -> its word for it."""
    classes: list[str] = field(default_factory=list)
    """Names by its numbers, where its object has no `classes`; empty: its numbers are ours."""


@dataclass
class Entry:
    """What the protocol says of one set."""

    name: str
    title: str
    group: Literal["imagenet", "elevater", "robustness", "yours"]
    metric: Literal["accuracy", "mean-per-class", "roc_auc", "11point_mAP"]
    classes: int
    counts: dict[str, int]
    """Pictures per split; a split that is not here is not part of the protocol."""
    source: str
    licence: str
    get: str
    """How to come by it, in a sentence."""
    kind: Literal["multiclass", "multilabel"] = "multiclass"
    also: list[str] = field(default_factory=list)
    """Other names it goes by, for words and folders."""
    prompts: str = ""
    """Set of CLIP's shipped prompts whose templates are used, and whose class names if `classnames` is empty."""
    classnames: list[str] = field(default_factory=list)
    """In the protocol's order."""
    own_names: list[str] = field(default_factory=list)
    """What the set itself calls its classes (its folders), in the protocol's order; empty: as `classnames`, spelling aside."""
    own_names_of: str = ""
    """`numbers`, or a list of WordNet ids that timm ships."""
    other_folders: Literal["refused", "ignored"] = "refused"
    """What to do with folders of no class of the protocol."""
    folders: dict[str, list[str]] = field(default_factory=dict)
    """Where pictures by class may lie, per split, beside the usual <name>/<split>."""
    elevater: Elevater | None = None
    torchvision: Torchvision | None = None
    resize: Literal["shortest", "squash"] = "shortest"
    """KITTI is resized to a square without a crop."""

    @cached_property
    def names(self) -> list[str]:
        """Class names for prompts: the first of several, as the protocol has it."""
        if self.classnames:
            return list(self.classnames)
        found = shipped()["sets"][self.prompts]["classnames"]
        return names_of([name[0] if isinstance(name, list) else name for name in found])

    @cached_property
    def templates(self) -> list[str]:
        """With one {} each."""
        return [str(template) for template in shipped()["sets"][self.prompts]["templates"]]

    @cached_property
    def spellings(self) -> list[tuple[str, ...]]:
        """All names of each class by which a copy may call it."""
        own = own_names(self)
        if self.own_names_of:  # numbers and WordNet ids are exact, and ImageNet's plain names are not unique
            return [(name,) for name in own]
        return [
            tuple(dict.fromkeys([name, *given]))
            for name, *given in zip(self.names, *([own] if own else []), strict=True)
        ]

    @property
    def words(self) -> list[str]:
        """The names it goes by."""
        return [self.name, *self.also]


def own_names(entry: Entry) -> list[str]:
    """By the entry's list, as numbers, or out of timm's (a package file: timm itself is not imported)."""
    if not entry.own_names_of:
        return list(entry.own_names)
    if entry.own_names_of == "numbers":
        return [str(number) for number in range(entry.classes)]
    found = importlib.util.find_spec("timm")
    places = list(found.submodule_search_locations or []) if found else []
    path = Path(places[0] if places else "timm") / "data" / "_info" / entry.own_names_of
    if not path.is_file():
        raise DataError(
            f"{entry.name}: its WordNet ids stand in timm's {entry.own_names_of}, which is not there; reinstall timm"
        )
    return path.read_text().split()


def read_entry(content: dict[str, Any], where: str) -> Entry:
    """Check an entry; ConfigError naming the key that is unknown, missing or of the wrong type, or what contradicts."""
    try:
        made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Entry), content))
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{where}: {key}{str(error).splitlines()[0]}; correct the entry") from error
    assert isinstance(made, Entry)
    for problem in problems_of(made):
        raise ConfigError(f"{where}: {problem}")
    return made


def problems_of(entry: Entry) -> list[str]:
    """What a well-typed entry may still have wrong."""
    found = []
    if entry.prompts not in shipped()["sets"]:
        return [f"prompts={entry.prompts!r} is no shipped set{did_you_mean(entry.prompts, shipped()['sets'])}"]
    for what, names in {"classnames": entry.names, "own_names": own_names(entry)}.items():
        if len(names) != entry.classes and (names or what == "classnames"):
            found.append(f"{what} has {len(names)} names for {entry.classes} classes; correct one of them")
    own = own_names(entry)
    if len(set(own)) != len(own):
        found.append("own_names holds a name twice; each class needs its own")
    elif not found:
        claimed = {(simple(name), number) for number, names in enumerate(entry.spellings) for name in names}
        if len({name for name, _ in claimed}) < len(claimed):
            found.append("two classes have names that differ in spelling alone; pictures could not be told apart")
    found += [f"template {one!r} needs one {{}}" for one in entry.templates if one.count("{}") != 1]
    layouts = [layout for layout in (entry.elevater, entry.torchvision) if layout is not None]
    splits = {*entry.counts, *entry.folders, *(split for layout in layouts for split in layout.splits)}
    if strange := sorted(splits - set(SPLITS)):
        found.append(f"splits are {', '.join(SPLITS)}; found {strange[0]!r}")
    if "test" not in entry.counts:
        found.append("counts needs test")
    if (entry.kind == "multilabel") != (entry.metric == "11point_mAP"):
        found.append(f"metric={entry.metric} does not go with kind={entry.kind}")
    return found


@lru_cache(maxsize=1)
def entries() -> dict[str, Entry]:
    """Every shipped entry by name: ImageNet-1K, the 20 of ELEVATER, the five of robustness, in this order."""
    found = [read_entry(json.loads(path.read_text()), path.name) for path in sorted(FOLDER.glob("*.json"))]
    order = ("imagenet", "elevater", "robustness")
    return {entry.name: entry for entry in sorted(found, key=lambda entry: (order.index(entry.group), entry.name))}


def entry_of(word: str) -> Entry:
    """The entry a word names, spelling aside; ConfigError with the nearest name."""
    known = {simple(name): entry for entry in entries().values() for name in entry.words}
    if simple(word) not in known:
        near = did_you_mean(word, [name for entry in entries().values() for name in entry.words])
        raise ConfigError(f"no evaluation set is called {word!r}{near}; `dime evaluate --list` names them")
    return known[simple(word)]

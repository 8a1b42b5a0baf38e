"""Which sets are judged: by name, by group, or all that are there; each with its names, prompts and metric."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.data.benchmarks.entry import Entry, entries, entry_of
from toolkit.data.benchmarks.find import how_to_get, locate, open_split
from toolkit.data.benchmarks.folders import SPLIT_WORDS
from toolkit.data.benchmarks.own import OwnSet, own_set
from toolkit.data.benchmarks.split import Split
from toolkit.data.pairs.find import pair_words
from toolkit.data.pairs.own import holds_captions
from toolkit.errors import ConfigError, DataError
from toolkit.evaluate.metrics import Metric, metric_named

GROUPS = ("imagenet", "elevater", "robustness", "yours")
WORDS = ("all", *GROUPS)


@dataclass(frozen=True)
class JudgedSet:
    """One set that is there."""

    name: str
    title: str
    group: str
    metric: Metric
    classnames: list[str]
    templates: list[str]
    squash: bool
    layout: str
    splits: tuple[str, ...]
    counts: dict[str, int]
    """The protocol's; empty for anybody's own set."""
    open: Callable[[str], Split]
    """Opens a split's index; DataError."""

    def problems(self, split: Split) -> list[str]:
        """How the copy differs from the protocol, in words."""
        wanted = self.counts.get(split.split, 0)
        if wanted and len(split) != wanted:
            return [f"{split.split}: {len(split):,} pictures, the protocol has {wanted:,}"]
        return []


def chosen_sets(asked: Sequence[str], data: Path) -> tuple[dict[str, JudgedSet], dict[str, str]]:
    """(sets by name in the protocol's order, how to get those that a group names and that are not there).

    A set that is asked for by its own name and is not there is a DataError; an unknown name a ConfigError. `asked` empty
    means all.
    """
    if not data.is_dir():
        raise DataError(
            f"--data {data} is not a folder; give the one that holds the sets (`dime evaluate --list` says how)"
        )
    words = list(asked) or ["all"]
    named = [word for word in words if word not in WORDS]
    groups = {word for word in words if word in WORDS}
    found: dict[str, JudgedSet] = {}
    missing: dict[str, str] = {}
    for entry in entries().values():
        wanted = any(entry_named(word, data) is entry for word in named)
        if not wanted and not groups & {"all", entry.group}:
            continue
        one = from_entry(entry, data)
        if one is not None:
            found[entry.name] = one
        elif wanted:
            raise DataError(f"--sets {entry.name}: it is not in {data}. {how_to_get(entry, data)}")
        else:
            missing[entry.name] = how_to_get(entry, data)
    for name in (word for word in named if entry_named(word, data) is None):
        found[name] = from_own(own_set(data / name), data / name)
    for name in own_names(data) if groups & {"all", "yours"} else ():
        try:
            own = own_set(data / name) if name not in found else None
            if own is not None:
                found[name] = from_own(own, data / name)
        except DataError as error:
            missing[name] = str(error)
    if not found:
        raise DataError(
            f"no evaluation set is in {data} of those asked for ({', '.join(words)}); `dime evaluate --list --data {data}` "
            "says how to get them"
        )
    return found, missing


def entry_named(word: str, data: Path) -> Entry | None:
    """None where the word is a folder of `data` that is anybody's own; ConfigError where it is nothing."""
    try:
        return entry_of(word)
    except ConfigError as error:
        if word not in ("", ".", "..") and "/" not in word and (data / word).is_dir():
            return None
        raise ConfigError(
            f"{str(error).split(';')[0]}, nor is it a folder of {data}; --sets takes names, {', '.join(WORDS)}"
        ) from error


def own_names(data: Path) -> list[str]:
    """Folders of `data` that belong to no known set and hold no captions; pictures by class or shards, perhaps."""
    known = pair_words() | {word.lower() for entry in entries().values() for word in entry.words}
    known |= {
        Path(place).parts[0].lower()
        for entry in entries().values()
        for all_ in entry.folders.values()
        for place in all_
    }
    known |= {"classification", *SPLIT_WORDS}
    names = sorted(child.name for child in data.iterdir() if child.is_dir() and not child.name.startswith("."))
    return [name for name in names if name.lower() not in known and not holds_captions(data / name)]


def from_entry(entry: Entry, data: Path) -> JudgedSet | None:
    """None where its test split is not there."""
    place = locate(entry, data)
    if place is None or "test" not in place.splits:
        return None
    return JudgedSet(
        entry.name,
        entry.title,
        entry.group,
        metric_named(entry.metric),
        entry.names,
        entry.templates,
        entry.resize == "squash",
        place.layout,
        tuple(place.splits),
        entry.counts,
        lambda split: open_split(entry, place, split),
    )


def from_own(own: OwnSet | None, folder: Path) -> JudgedSet:
    """DataError where there is no test split."""
    if own is None:
        raise DataError(
            f"--sets {folder.name}: {folder} holds neither pictures in folders of two classes or more nor shards"
        )
    if "test" not in own.splits:
        raise DataError(
            f"--sets {own.name}: {folder} has the splits {', '.join(own.splits)} and no test split; lay pictures to judge by "
            f"out as {own.name}/test/<class>/x.jpg"
        )
    return JudgedSet(
        own.name,
        own.name,
        "yours",
        metric_named(own.metric),
        own.classnames,
        own.templates,
        False,
        own.layout,
        tuple(own.splits),
        {},
        own.open,
    )

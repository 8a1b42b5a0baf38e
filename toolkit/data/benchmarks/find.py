"""Where a set lies below a folder of data, in which layout, and opening a split of it."""

from dataclasses import dataclass
from pathlib import Path

from toolkit.data.benchmarks import downloaded, elevater, folders
from toolkit.data.benchmarks.entry import SPLITS, Entry, entry_of
from toolkit.data.benchmarks.split import Split
from toolkit.errors import ConfigError, DataError

LAYOUTS = ("elevater", "folders", "webdataset", "torchvision")
"""In the order in which they are looked for."""
READERS = {
    "elevater": elevater.read_elevater,
    "folders": folders.read_folders,
    "torchvision": downloaded.read_torchvision,
}


@dataclass(frozen=True)
class Place:
    """A copy of a set: its layout and the folder of each split."""

    layout: str
    splits: dict[str, Path]


def locate(entry: Entry, data: Path) -> Place | None:
    """The first layout of LAYOUTS in which the test split is there, else the first with any split, else None."""
    partial = None
    for layout in LAYOUTS:
        place = Place(layout, {split: found for split in SPLITS if (found := find_split(entry, data, layout, split))})
        if layout in ("folders", "webdataset") and place.splits.get("val") == place.splits.get("test"):
            place.splits.pop("val", None)  # ImageNet's test split is a folder called val
        if "test" in place.splits:
            return place
        partial = partial or (place if place.splits else None)
    return partial


def find_split(entry: Entry, data: Path, layout: str, split: str) -> Path | None:
    """The folder that a reader of the layout wants for the split."""
    if layout == "elevater":
        named = entry.elevater.splits.get(split) if entry.elevater else None
        return next((one for one in elevater.folders_of(entry, data) if named and (one / named.index).is_file()), None)
    if layout == "folders":
        if entry.kind == "multilabel":  # a folder gives one class
            return None
        return next((one for one in folders.folders_of(entry, data, split) if folders.holds(entry, one)), None)
    if layout == "webdataset":
        return shard_folder(entry, data, split)
    named_so = entry.torchvision is not None and split in entry.torchvision.splits
    return downloaded.root_of(entry, data) if named_so else None


def shard_folder(entry: Entry, data: Path, split: str) -> Path | None:
    """The folder whose .tar files are the split: <name>/<split>, or <name> for the test split."""
    for name in entry.words:
        places = [data / name / word for word in folders.WORDS[split]] + ([data / name] if split == "test" else [])
        for place in places:
            if place.is_dir() and next(place.glob("*.tar"), None):
                return place
    return None


def how_to_get(entry: Entry, data: Path) -> str:
    """What a user without the set can do."""
    pickled = downloaded.pickled_copy(entry, data)
    lead = f"{pickled} is pickles, which are never loaded; " if pickled else ""
    return f"{lead}{entry.get} Source: {entry.source} (licence: {entry.licence})"


def open_set(name: str, data: Path, split: str = "test") -> Split:
    """A split of a known set, or of anybody's pictures by class in `data`/`name`.

    Raises ConfigError for a name that is neither, DataError with how to get it where there is no copy.
    """
    try:
        entry = entry_of(name)
    except ConfigError:
        if not (data / name).is_dir():
            raise
        return open_folder(data / name, split)
    place = locate(entry, data)
    if place is None:
        raise DataError(f"{entry.name} is not in {data}. {how_to_get(entry, data)}")
    return open_split(entry, place, split)


def open_split(entry: Entry, place: Place, split: str) -> Split:
    """Read its index, not its pictures."""
    if split not in place.splits:
        raise DataError(
            f"{entry.name} in {place.layout} layout has {', '.join(place.splits)} and no {split} split; {entry.get}"
        )
    if place.layout == "webdataset":
        from toolkit.data.benchmarks.tars import read_shards  # it imports torch, for which a list need not wait

        return read_shards(entry, place.splits[split], split)
    return READERS[place.layout](entry, place.splits[split], split)


def open_folder(folder: Path, split: str = "test") -> Split:
    """Anybody's pictures by class."""
    return folders.read_own(folder, folder.name, split)

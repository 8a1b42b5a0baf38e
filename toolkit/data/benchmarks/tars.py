"""Sets as WebDataset shards: a picture and `cls`, a class number or, where there are several, numbers with commas."""

from dataclasses import dataclass
from pathlib import Path

from toolkit.data.benchmarks.archives import read_lines
from toolkit.data.benchmarks.entry import Entry
from toolkit.data.benchmarks.split import Split, label_array, numbers_by_name
from toolkit.data.decode import BadSample
from toolkit.data.shards import Shard, scan_shard
from toolkit.errors import DataError

IMAGES = ("jpg", "jpeg", "png", "webp")
NAMES = "classnames.txt"
"""A name per line: what the numbers of the shards mean. Without it they are the protocol's."""


@dataclass(frozen=True)
class ShardPictures:
    """Pictures where they lie in their shards."""

    shards: tuple[Shard, ...]
    places: tuple[tuple[int, int, str], ...]
    """(shard, row, field)."""

    def __len__(self) -> int:
        """How many."""
        return len(self.places)

    def files(self) -> list[Path]:
        """The shards."""
        return [Path(str(shard.path)) for shard in self.shards]

    def key(self, row: int) -> str:
        """Shard and key."""
        shard, inside, _ = self.places[row]
        return f"{self.shards[shard].name}:{self.shards[shard].keys[inside]}"

    def __getitem__(self, row: int) -> bytes:
        """Raises DataError for a field above half a GiB, or a shard that has changed."""
        shard, inside, field = self.places[row]
        try:
            return self.shards[shard].read(inside, field)
        except BadSample as error:
            raise DataError(f"{self.shards[shard].path}: {self.key(row)} cannot be read: {error}") from error


def read_shards(entry: Entry, folder: Path, split: str) -> Split:
    """In the order of the shards; DataError for a sample without picture or class."""
    shards = tuple(scan_shard(path) for path in sorted(folder.glob("*.tar")))
    numbers = meaning(entry, folder)
    places = []
    labels = []
    for position, shard in enumerate(shards):
        for row in range(shard.count):
            field = shard.extension_of(row, IMAGES)
            if field is None or shard.extension_of(row, ["cls"]) is None:
                raise DataError(
                    f"{shard.path}: sample {shard.keys[row]} has {', '.join(shard.extensions)} and needs a picture and 'cls'"
                )
            try:
                given = [int(number) for number in shard.read(row, "cls").decode().replace(",", " ").split()]
                labels.append([number if numbers is None else numbers[number] for number in given])
            except (BadSample, ValueError, IndexError) as error:
                raise DataError(
                    f"{shard.path}: the class of sample {shard.keys[row]} is no class number ({error})"
                ) from error
            places.append((position, row, field))
    if not places:
        raise DataError(f"{folder}: its shards hold no samples; write them again")
    return Split(
        entry.name,
        split,
        "webdataset",
        folder,
        entry.names,
        label_array(labels, entry, folder),
        ShardPictures(shards, tuple(places)),
    )


def meaning(entry: Entry, folder: Path) -> list[int] | None:
    """The protocol's number of each number in the shards, where names lie beside them."""
    for place in (folder / NAMES, folder.parent / NAMES):
        if place.is_file():
            return numbers_by_name(read_lines(place), entry, place)
    return None

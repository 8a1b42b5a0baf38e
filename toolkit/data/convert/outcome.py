"""What becomes of one input: a sample of a shard, or left out for a reason."""

from dataclasses import dataclass
from typing import NamedTuple


class LeftOut(Exception):
    """An input that cannot be used; its first argument is the reason it is counted under."""

    @property
    def reason(self) -> str:
        """Short words joined by `_`."""
        return str(self.args[0])


class Skip(NamedTuple):
    """A line of `skipped.jsonl`."""

    source: str
    name: str
    reason: str


@dataclass(frozen=True)
class Sample:
    """What a shard holds of one input, and where it came from."""

    source: str
    name: str
    """What the source calls it: path in the folder, member of the tar, key of the TSV row, line."""
    extension: str
    data: bytes
    kept: bool = True
    """Are these the bytes of the source."""
    row: int = -1
    """Row in the source where rows are numbered (TSV), for stored features."""
    further: tuple[tuple[str, bytes], ...] = ()
    """Fields that are kept beside it: (extension, bytes)."""

"""A picture's bytes by the path that an index gives: out of a plain file or a zip, bounded, never outside the set's folder."""

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from toolkit.data.decode import MAX_BYTES
from toolkit.errors import DataError

MAX_INDEX_BYTES = 1 << 28
"""Of an index or a list of labels."""
OPEN_ZIPS = 16

Place = tuple[str, str]
"""(file, member): member is empty for a plain file; both relative, with forward slashes."""


def place_of(path: str, where: str) -> Place:
    """Take `a.zip@dir/x.jpg` or `dir/x.jpg` apart; DataError for a path that leaves the folder."""
    file, at, member = path.replace("\\", "/").partition("@")
    if at and not file.lower().endswith(".zip"):
        file, member = file + at + member, ""
    for part in (file, member):
        if PurePosixPath(part).is_absolute() or ".." in PurePosixPath(part).parts or "\0" in part:
            raise DataError(f"{where}: the path {path!r} leads out of the set's folder; the index is not to be trusted")
    return file, member


@lru_cache(maxsize=OPEN_ZIPS)
def _opened(path: str, size: int, changed_ns: int, process: int) -> zipfile.ZipFile:
    """Of this process and of the file as it is: a fork would share the position, a file written anew its directory."""
    return zipfile.ZipFile(path)


def opened(path: Path) -> zipfile.ZipFile:
    """The archive, kept open; DataError when it is none."""
    try:
        stamp = path.stat()
        return _opened(str(path), stamp.st_size, stamp.st_mtime_ns, os.getpid())
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no readable zip ({error}); copy it again") from error


@dataclass(frozen=True)
class Files:
    """Pictures as files and members of zips below `root`; `files[k]` is the bytes of the k-th."""

    root: Path
    places: tuple[Place, ...]

    def __len__(self) -> int:
        """How many."""
        return len(self.places)

    def files(self) -> list[Path]:
        """Pictures, or the archives they are in."""
        return sorted({self.root / file for file, _ in self.places})

    def key(self, row: int) -> str:
        """Its path, as an index writes it."""
        file, member = self.places[row]
        return f"{file}@{member}" if member else file

    def __getitem__(self, row: int) -> bytes:
        """Raises DataError naming the picture: absent, torn, encrypted, or of more than half a GiB, whatever a zip claims."""
        file, member = self.places[row]
        path = self.root / file
        try:
            if not member:
                with open(path, "rb") as plain:
                    data = plain.read(MAX_BYTES + 1)
            else:
                with opened(path).open(member) as inside:
                    data = inside.read(MAX_BYTES + 1)
        except DataError:
            raise
        except Exception as error:  # zipfile raises many kinds on torn and hostile archives
            raise DataError(f"{self.root}: {self.key(row)} cannot be read ({error}); copy the set again") from error
        if len(data) > MAX_BYTES:
            raise DataError(f"{self.root}: {self.key(row)} is larger than {MAX_BYTES} bytes; that is no picture")
        return data

    def check(self) -> None:
        """DataError with the number of pictures that are not there and the first one; no picture is read."""
        members: dict[str, set[str]] = {}
        absent = []
        for row, (file, member) in enumerate(self.places):
            if member and file not in members:
                path = self.root / file
                if not os.path.isfile(path):
                    raise DataError(f"{self.root}: {file} is missing, which {self.key(row)} lies in; fetch it")
                members[file] = set(opened(path).namelist())
            # os.path, unlike Path, takes a name that is too long for one that is not there
            if (member not in members[file]) if member else not os.path.isfile(self.root / file):
                absent.append(row)
        if absent:
            raise DataError(
                f"{self.root}: {len(absent)} of {len(self)} pictures are not there, the first is {self.key(absent[0])}; "
                "fetch the set again"
            )


def read_lines(path: Path) -> list[str]:
    """Lines of a text file that are not empty, stripped; DataError when it cannot be read or is no UTF-8."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_text(path: Path) -> str:
    """A bounded file of an index; DataError says what is wrong with it."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_INDEX_BYTES + 1)
        if len(data) > MAX_INDEX_BYTES:
            raise DataError(f"{path} is larger than {MAX_INDEX_BYTES} bytes; that is no index")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); fetch it") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); fetch it again") from error


def check_count(found: Sequence[object], expected: int, what: str) -> None:
    """DataError when a list of classes has another length than the protocol."""
    if len(found) != expected:
        raise DataError(f"{what} has {len(found)} classes, the protocol {expected}; it is another version of the set")

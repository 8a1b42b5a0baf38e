"""The table of contents of a plain tar that nobody vouches for: every header is read once, in bounded time and memory.

Python's tarfile is not used for reading: up to 3.11.13 it goes round in circles on a negative size (CVE-2025-8194) and needs
the square of a header's length (CVE-2024-6232), it reads an extension header of any size into memory, recurses from one
to the next, and takes a torn header in the middle of a file for its end.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BLOCK = 512
MAX_EXTENSION_BYTES = 1 << 20
"""Of one pax or GNU header; the largest in use hold access lists."""
MAX_NAME_BYTES = 4096
MAX_REST_BYTES = 1 << 20
"""How much behind the end mark is looked at for further data."""
REGULAR, WITHOUT_DATA = b"\0" + b"07", b"123456"
KEPT_RECORDS = {b"path": "path", b"size": "size", b"GNU.sparse.name": "sparse_name"}
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*")


class Entry(NamedTuple):
    """A member; only a `file` has bytes worth reading (`folder`; `other`: a link, device, sparse file)."""

    name: str
    kind: str
    offset: int
    size: int


class TarDamage(Exception):
    """Where the table of contents ends before the tar does; `reason` is what it is counted under."""

    def __init__(self, reason: str, details: str, name: str = "") -> None:
        """`reason`: cut_short, no_end_mark or unreadable_tar; `name`: of the member that is not whole."""
        super().__init__(details)
        self.reason, self.name = reason, name


def read_entries(path: str | Path) -> Iterator[Entry]:
    """Members in their order, each whole; raises TarDamage at the first thing that is wrong, and OSError."""
    with open(path, "rb", buffering=0) as file:
        length = os.fstat(file.fileno()).st_size
        if length == 0:
            raise TarDamage("unreadable_tar", "empty file")
        yield from _Walk(file.fileno(), length).entries()


class _Walk:
    """One pass over the headers of an open file."""

    def __init__(self, descriptor: int, length: int) -> None:
        self.descriptor, self.length, self.position = descriptor, length, 0

    def entries(self) -> Iterator[Entry]:
        """See `read_entries`."""
        extended: dict[str, bytes] = {}
        waiting = False
        while (header := self._header()) is not None:
            kind = header[156:157]
            size = _number(header[124:136], self.position)
            start = self.position + BLOCK
            if kind in b"LKxXg":
                _extend(extended, kind, self._extension(start, size))
                self.position, waiting = start + _padded(size), waiting or kind != b"g"
                continue
            size = _pax_size(extended, size)
            name, kind_of = _named(header, extended)
            if kind == b"S":
                start = self._behind_sparse_map(header, start)
            held = 0 if kind in WITHOUT_DATA or kind_of == "folder" else size
            if start + held > self.length:
                end = start + held
                raise TarDamage("cut_short", f"{name!r} ends at byte {end} of {self.length}", name)
            yield Entry(name, kind_of, start, held)
            self.position, extended, waiting = start + _padded(held), {}, False
        if waiting:
            raise TarDamage("unreadable_tar", f"a header at byte {self.position} belongs to no member")

    def _header(self) -> bytes | None:
        """The header at the position, None at the end mark."""
        header = os.pread(self.descriptor, BLOCK, self.position)
        where = f"at byte {self.position}"
        if not header:
            raise TarDamage("no_end_mark", "the tar does not end as one, it may be cut short")
        if len(header) < BLOCK:
            raise TarDamage("cut_short" if self.position else "unreadable_tar", f"half a header {where}")
        if header.count(0) == BLOCK:
            self._check_rest()
            return None
        stored = _number(header[148:156], self.position)
        summed = header[:148] + b" " * 8 + header[156:]
        if stored != sum(summed) and stored != sum(summed) - 256 * sum(
            byte > 127 for byte in summed
        ):  # signed in old tars
            raise TarDamage("unreadable_tar", f"no tar header {where} (wrong checksum)")
        return header

    def _check_rest(self) -> None:
        """Tars joined by `cat` would lose all but the first."""
        rest = os.pread(self.descriptor, MAX_REST_BYTES, self.position + BLOCK)
        if rest.count(0) != len(rest):
            raise TarDamage("unreadable_tar", f"there is more behind its end mark at byte {self.position}")

    def _extension(self, start: int, size: int) -> bytes:
        """Contents of a pax or GNU header."""
        if size > MAX_EXTENSION_BYTES:
            raise TarDamage("unreadable_tar", f"a header at byte {self.position} claims {size} bytes")
        if start + size > self.length:
            raise TarDamage("cut_short", f"the header at byte {self.position} ends at {start + size} of {self.length}")
        return os.pread(self.descriptor, size, start)

    def _behind_sparse_map(self, header: bytes, start: int) -> int:
        """Where the data of an old GNU sparse file begin: its map may go on in further blocks."""
        goes_on = header[482] != 0
        while goes_on:
            block = os.pread(self.descriptor, BLOCK, start)
            if len(block) < BLOCK:
                raise TarDamage("cut_short", f"half a map of a sparse file at byte {start}")
            goes_on, start = block[504] != 0, start + BLOCK
        return start


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _number(field: bytes, position: int) -> int:
    """Octal digits, or the 256-base of large files."""
    if field[0] == 0o200:
        return int.from_bytes(field[1:], "big")
    found = _OCTAL.fullmatch(field.partition(b"\0")[0])
    if found is None:
        raise TarDamage("unreadable_tar", f"the header at byte {position} has no valid or a negative number")
    return int(found[1] or b"0", 8)


def _extend(extended: dict[str, bytes], kind: bytes, data: bytes) -> None:
    """Note what a pax or GNU header says of the member that follows; the first of several headers counts."""
    if kind == b"L":
        extended.setdefault("path", data.partition(b"\0")[0])
    elif kind != b"K":
        found = _records(data)
        if kind == b"g" and found:
            raise TarDamage("unreadable_tar", "a global header gives all members one name or size")
        if kind != b"g":
            for key, value in found.items():
                extended.setdefault(key, value)


def _records(data: bytes) -> dict[str, bytes]:
    """`length key=value` lines of a pax header, those that matter here."""
    found: dict[str, bytes] = {}
    position = 0
    while position < len(data) and data[position]:
        space = data.find(b" ", position, position + 12)
        digits = data[position:space] if space > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not space < end <= len(data) or data[end - 1 : end] != b"\n" or not equals:
            raise TarDamage("unreadable_tar", "a torn pax header")
        if key.startswith(b"GNU.sparse."):
            found["sparse"] = b"1"
        if key in KEPT_RECORDS:
            found[KEPT_RECORDS[key]] = value
        position = end
    return found


def _pax_size(extended: dict[str, bytes], size: int) -> int:
    """The size in the pax header where there is one."""
    text = extended.get("size", b"")
    if not text:
        return size
    if not text.isdigit() or len(text) > 20:
        raise TarDamage("unreadable_tar", "a pax header has no valid or a negative size")
    return int(text)


def _named(header: bytes, extended: dict[str, bytes]) -> tuple[str, str]:
    """Name and kind of the member with this header."""
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0]
    if prefix and header[257:263] == b"ustar\0":
        name = prefix + b"/" + name
    name = extended.get("sparse_name") or extended.get("path") or name
    if len(name) > MAX_NAME_BYTES:
        raise TarDamage("unreadable_tar", f"a name of {len(name)} bytes")
    kind = header[156:157]
    folder = kind == b"5" or (kind == b"\0" and name.endswith(b"/"))
    whole = kind in REGULAR and "sparse" not in extended
    return (
        name.decode("utf-8", "surrogateescape").rstrip("/" if folder or "path" in extended else ""),
        "folder" if folder else "file" if whole else "other",
    )


def key_and_field(name: str) -> tuple[str, str]:
    """As WebDataset splits a name, at the first dot behind the last slash: `a/b.seg.PNG` -> `a/b`, `seg.png`.

    The key is empty for names without a dot and for hidden files (WebDataset makes samples of those that lie in a folder).
    Bytes that are no UTF-8 and control characters are written as escapes, so that a key is one printable line.
    """
    folder, slash, last = name.rpartition("/")
    stem, dot, field = last.partition(".")
    return printable(folder + slash + stem) if stem and dot else "", printable(field.lower())


def printable(text: str) -> str:
    r"""Control characters and undecoded bytes as `\x0a`, `\xff`; other text as it is."""
    if not text.isascii():
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)

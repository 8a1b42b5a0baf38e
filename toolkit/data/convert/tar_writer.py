"""One shard, written aside: plain tar members of bytes, nothing in it but names and contents, hashed on the way."""

import hashlib
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

BLOCK = tarfile.BLOCKSIZE


_MEMBER = tarfile.TarInfo()
_MEMBER.mode = 0o444
_EMPTY = _MEMBER.tobuf(tarfile.USTAR_FORMAT)


def header(name: bytes, size: int) -> bytes:
    """As `tarfile.TarInfo.tobuf` makes it for a short name, six times as fast."""
    assert len(name) < 100 and size < 8**11
    block = bytearray(_EMPTY)
    block[: len(name)] = name
    block[124:135] = b"%011o" % size
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)


class ShardWriter:
    """The same samples give the same bytes: no time, user or group."""

    def __init__(self, path: Path) -> None:
        """`path` appears only when the shard is complete."""
        self.path = path
        self.aside = path.with_name(f".{path.name}.{os.getpid()}")
        self.samples = self.bytes = 0
        self._file = open(self.aside, "wb", buffering=1 << 20)  # noqa: SIM115 (closed by close() or abandon())
        self._sha256 = hashlib.sha256()

    def add(self, key: str, extension: str, data: bytes, further: Sequence[tuple[str, bytes]] = ()) -> None:
        """A sample; `further` fields lie behind the first."""
        for field, content in ((extension, data), *further):
            self._write(
                header(f"{key}.{field}".encode("ascii"), len(content)), content, b"\0" * (-len(content) % BLOCK)
            )
        self.samples += 1

    def close(self) -> str:
        """End the tar, rename it and return its sha256."""
        self._write(b"\0" * 2 * BLOCK)
        self._write(b"\0" * (-self.bytes % tarfile.RECORDSIZE))
        self._file.close()
        self.aside.replace(self.path)
        return self._sha256.hexdigest()

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self.aside.unlink(missing_ok=True)

    def _write(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._file.write(piece)
            self._sha256.update(piece)
            self.bytes += len(piece)

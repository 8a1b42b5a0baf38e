"""A shard written by hand is the tar that tarfile would have written."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from toolkit.data.convert.tar_writer import ShardWriter, header


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 8**7, 8**11 - 1])
def test_headers_are_tarfiles(size: int) -> None:
    """Bit for bit."""
    member = tarfile.TarInfo("000000017.jpg")
    member.size, member.mode = size, 0o444
    assert header(b"000000017.jpg", size) == member.tobuf(tarfile.USTAR_FORMAT)


def test_the_whole_tar_is_tarfiles(tmp_path: Path) -> None:
    """With its end, its hash, and nothing left beside it."""
    samples = [(f"{n:09d}", b"x" * n * 300) for n in range(9)]
    writer = ShardWriter(tmp_path / "a.tar")
    for key, data in samples:
        writer.add(key, "txt", data)
    assert list(tmp_path.iterdir()) == [writer.aside]
    found = writer.close()
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, data in samples:
            member = tarfile.TarInfo(f"{key}.txt")
            member.size, member.mode = len(data), 0o444
            tar.addfile(member, io.BytesIO(data))
    assert (tmp_path / "a.tar").read_bytes() == expected.getvalue()
    assert found == hashlib.sha256(expected.getvalue()).hexdigest() and writer.bytes == len(expected.getvalue())
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]

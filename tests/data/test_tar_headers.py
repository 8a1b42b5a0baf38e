"""Tars as tarfile reads them where they are right; where they are not, one reason instead of a loop, a bomb or a gap."""

import io
import tarfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from toolkit.data.convert.check_shard import samples_in
from toolkit.data.convert.listing import plain_members
from toolkit.data.convert.outcome import Skip
from toolkit.data.shards import scan_shard
from toolkit.data.store import hash_of
from toolkit.data.tar_headers import key_and_field, printable, read_entries
from toolkit.errors import DataError

BLOCK = 512
NAMES = ["a.txt", "b/c.jpg", "n" * 99, "p" * 90 + "/" + "q" * 90 + ".txt", "é" * 130 + ".txt", "z" * 300, "last.txt"]


def header(name: bytes = b"a.txt", size: int | bytes = 1, kind: bytes = b"0", **patch: Any) -> bytes:
    """A ustar header with a right checksum, whatever its fields say; `patch`: `at257=b"..."`."""
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    found = bytearray(name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + field + b"0" * 11 + b"\0")
    found += b" " * 8 + kind + bytes(100) + b"ustar\x0000" + bytes(247)
    for place, content in patch.items():
        found[int(place[2:]) :][: len(content)] = found[int(place[2:]) : int(place[2:]) + len(content)] = content
    found[148:156] = b"%06o\0 " % sum(found)
    return bytes(found)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def member(name: bytes, data: bytes, kind: bytes = b"0") -> bytes:
    return header(name, len(data), kind) + padded(data)


def record(key: bytes, value: bytes) -> bytes:
    """A line of a pax header."""
    length = len(key) + len(value) + 3
    while length != len(key) + len(value) + 3 + len(str(length)):
        length = len(key) + len(value) + 3 + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


END = bytes(2 * BLOCK)
GOOD = member(b"a.txt", b"one") + member(b"b.txt", b"two")


@pytest.mark.parametrize("how", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_same_as_tarfile(how: int, tmp_path: Path) -> None:
    """Names of any length in all formats, folders, links, pax headers of all kinds: names, kinds, places, sizes."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=how, pax_headers={"comment": "global"}) as tar:
        for number, name in enumerate(NAMES):
            if how == tarfile.USTAR_FORMAT and (len(name.encode()) > 255 or "z" in name):
                continue
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = number * 300, 1.5 if how == tarfile.PAX_FORMAT else 1
            tar.addfile(entry, io.BytesIO(bytes(entry.size)))
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
                entry = tarfile.TarInfo(f"{number}")
                entry.type, entry.linkname = kind, "k" * 150 if how != tarfile.USTAR_FORMAT else "k"
                tar.addfile(entry)
    kinds = {tarfile.REGTYPE: "file", tarfile.DIRTYPE: "folder"}
    with tarfile.open(path) as tar:
        theirs = [(m.name, kinds.get(m.type, "other"), m.offset_data, m.size) for m in tar]
    assert list(read_entries(path)) == theirs and len(theirs) > 20


def test_sizes_beyond_the_octal_field(tmp_path: Path) -> None:
    """256-base in GNU, `size` in pax; the file is sparse on disk."""
    for how in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        entry = tarfile.TarInfo("big.bin")
        entry.size = 9 << 30
        start = entry.tobuf(how)
        path = tmp_path / "x.tar"
        with open(path, "wb") as file:
            file.write(start)
            file.seek(len(start) + entry.size)
            file.write(member(b"b.txt", b"two") + END)
        found = [tuple(entry) for entry in read_entries(path)]
        end = len(start) + entry.size
        assert found == [("big.bin", "file", len(start), 9 << 30), ("b.txt", "file", end + BLOCK, 3)]
        with pytest.raises(Exception, match="too_many_bytes"):
            scan_shard(path).read(0, "bin")
        path.unlink()


def test_sparse_files_are_no_files(tmp_path: Path) -> None:
    """Old GNU with a map that goes on, and pax: what follows is found."""
    old = header(b"s.bin", 3, b"S", at482=b"\1") + bytes(504) + b"\1" + bytes(7) + bytes(BLOCK) + padded(b"abc")
    pax = member(b"x", record(b"GNU.sparse.size", b"99") + record(b"GNU.sparse.name", b"t.bin"), b"x")
    path = tmp_path / "x.tar"
    path.write_bytes(old + pax + member(b"none", b"abc") + GOOD + END)
    assert [(e.name, e.kind) for e in read_entries(path)] == [
        ("s.bin", "other"), ("t.bin", "other"), ("a.txt", "file"), ("b.txt", "file"),
    ]  # fmt: skip
    assert scan_shard(path).keys == ("a", "b") and scan_shard(path).read(1, "txt") == b"two"


def forever(kind: bytes) -> bytes:
    """Extension headers without end, where tarfile recurses."""
    return header(b"x", 0, kind) * 3000


DAMAGED: dict[str, tuple[bytes, str]] = {
    "negative size": (GOOD + header(size=b"\xff" * 11 + b"\x80"), "negative number"),
    "negative size first": (header(size=b"\xff" * 12), "negative number"),
    "negative size with a minus": (GOOD + header(size=b"-0000000777\0"), "negative number"),
    "negative pax size": (member(b"x", record(b"size", b"-512"), b"x") + GOOD, "negative size"),
    "pax size of many digits": (member(b"x", record(b"size", b"9" * 5000), b"x") + GOOD, "no valid"),
    "huge size": (GOOD + header(size=b"\x80" + b"\x7f" * 11), "ends at byte"),
    "gigabytes of pax": (GOOD + header(size=2 << 30, kind=b"x"), "claims 2147483648 bytes"),
    "gigabytes of long name": (header(size=2 << 30, kind=b"L") + GOOD, "claims 2147483648 bytes"),
    "terabytes of global header": (header(size=b"\x80" + b"\0" * 5 + b"\x10" + b"\0" * 5, kind=b"g"), "claims"),
    "pax beyond the end": (GOOD + header(size=5000, kind=b"x") + b"x", "ends at"),
    "digits without end": (member(b"x", b"1" * 900_000, b"x") + GOOD, "torn pax header"),
    "keys without end": (member(b"x", b"0000000001 " * 80_000, b"x") + GOOD, "torn pax header"),
    "record of no length": (member(b"x", b"0 a=b\n", b"x") + GOOD, "torn pax header"),
    "record beyond the header": (member(b"x", b"99 path=b\n", b"x") + GOOD, "torn pax header"),
    "a long name": (member(b"x", record(b"path", b"a/" * 9000 + b".txt"), b"x") + GOOD, "a name of 18004 bytes"),
    "a global name": (member(b"g", record(b"path", b"all.txt"), b"g") + GOOD, "one name"),
    "extensions and nothing": (GOOD + forever(b"x"), "belongs to no member"),
    "global headers and no end": (GOOD + forever(b"g")[:-7], "half a header"),
    "torn header in the middle": (GOOD + header()[:99] + b"!" + header()[100:] + b"x", "wrong checksum"),
    "sparse map without end": (GOOD + header(size=0, kind=b"S", at482=b"\1") + b"\1" * 900, "map of a sparse"),
    "no end mark": (GOOD, "does not end as one"),
    "joined by cat": (GOOD + END + GOOD + END, "there is more behind"),
    "half a header": (GOOD + header()[:300], "half a header"),
    "member cut": (GOOD + member(b"c.txt", b"x" * 3000)[:2000], "'c.txt' ends at byte"),
}
WITHOUT_END = ("does not end as one", "half a header", "'c.txt' ends at byte", "map of a sparse")


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_told(name: str, tmp_path: Path) -> None:
    """At once, in bounded memory, as one DataError with path and reason; converter and check stop at the same place."""
    content, said = DAMAGED[name]
    path = tmp_path / "x.tar"
    path.write_bytes(content if said in WITHOUT_END else content + END)
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(DataError) as caught:
        scan_shard(path)
    assert time.perf_counter() - start < 2 and tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()
    assert str(caught.value).startswith(f"{path} is") and said in str(caught.value)
    found = list(plain_members(str(path)))
    assert isinstance(found[-1], Skip) and not any(isinstance(entry, Skip) for entry in found[:-1])
    assert len(samples_in(path)[1]) == 1 and said in samples_in(path)[1][0]


def test_a_key_in_two_places_is_refused(tmp_path: Path) -> None:
    """All pictures first, then all sentences; or two samples of one name: the partner cannot be known."""
    path = tmp_path / "x.tar"
    path.write_bytes(member(b"a.jpg", b"1") + GOOD.replace(b"b.txt", b"c.jpg") + END)
    with pytest.raises(DataError, match="no tar header"):
        scan_shard(path)
    path.write_bytes(member(b"a.jpg", b"1") + member(b"b.jpg", b"2") + member(b"a.txt", b"3") + END)
    with pytest.raises(DataError, match=r"x\.tar: the fields of sample a do not lie side by side.*--sort=name"):
        scan_shard(path)


def test_more_fields_than_anybody_has(tmp_path: Path) -> None:
    """Keys with dots: a table of samples x fields would have 16 GB for 32,000 of them."""
    path = tmp_path / "x.tar"
    path.write_bytes(b"".join(header(b"photo%d.%d.jpg" % (n, n), 0) for n in range(32_000)) + END)
    tracemalloc.start()
    with pytest.raises(
        DataError, match=r"more than 256 kinds of fields, such as '256\.jpg' of sample 'photo256'.*dots"
    ):
        scan_shard(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_odd_names(tmp_path: Path) -> None:
    """Outside names are only names; bytes and control characters become escapes; hidden files are no samples."""
    names = [b"../../up.txt", b"/etc/abs.txt", b"caf\xe9.txt", b"two\nlines.txt", b"./a/._mac.txt", b".txt", b"none"]
    content = b"".join(member(name, b"x") for name in names)
    content += member(b"x", record(b"path", b"nul\0in.txt"), b"x") + member(b"short", b"y")
    path = tmp_path / "x.tar"
    path.write_bytes(content + member(b"empty.txt", b"") + END)
    shard = scan_shard(path)
    assert shard.keys == ("../../up", "/etc/abs", r"caf\xe9", r"two\nlines", r"nul\x00in", "empty")
    assert shard.read(4, "txt") == b"y" and shard.read(5, "txt") == b""
    assert len(hash_of(shard.keys)) == 64 and all(key.isprintable() for key in shard.keys)


def test_the_hash_of_keys_is_unambiguous(tmp_path: Path) -> None:
    """It joins keys by line ends, so a key must be one line."""
    paths = [tmp_path / "one.tar", tmp_path / "two.tar"]
    paths[0].write_bytes(member(b"a\nb.txt", b"x") + END)
    paths[1].write_bytes(member(b"a.txt", b"x") + member(b"b.txt", b"x") + END)
    assert len({hash_of(scan_shard(path).keys) for path in paths}) == 2
    assert hash_of(["000", "001"]) == "50f80de6d89854e1c783a0a36b9241f1dfe5dc1f56bff695a671719259b6e916"


@pytest.mark.parametrize(
    ("name", "key", "field"),
    [
        ("a.b.PNG", "a", "b.png"),
        ("v1.0/a.txt", "v1.0/a", "txt"),
        ("a/.b.txt", "", "b.txt"),
        ("a", "", ""),
        ("a.", "a", ""),
    ],
)
def test_keys(name: str, key: str, field: str) -> None:
    """At the first dot behind the last slash."""
    assert key_and_field(name) == (key, field)


def test_printable() -> None:
    """Letters of any script stay."""
    assert printable("日本 é ok") == "日本 é ok" and printable("a\u2028b\x85\udcff") == r"a\u2028b\x85\xff"


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told with its path."""
    path = tmp_path / "x.tar"
    path.write_bytes(GOOD + END)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match=r"x\.tar cannot be read \(Permission denied\)"):
        scan_shard(path)


def test_a_shard_that_shrinks_after_it_was_scanned(tmp_path: Path) -> None:
    """Half a sentence is no sentence."""
    path = tmp_path / "x.tar"
    path.write_bytes(GOOD + END)
    shard = scan_shard(path)
    path.write_bytes((GOOD + END)[: 3 * BLOCK + 1])
    with pytest.raises(DataError, match="has changed while it was read"):
        shard.read(1, "txt")

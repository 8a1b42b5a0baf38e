"""Shards on disk: what is written, listed and read, and what is refused."""

import gzip
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import webdataset

from toolkit.data.index import aside_of, write_aside
from toolkit.data.shards import INDEX_NAME, count_samples, expand_shards, scan_shard, write_shards
from toolkit.data.streams import Field, ShardStream
from toolkit.data.texts import decode_text
from toolkit.errors import DataError

MakeShards = Callable[..., Path]
INDEX = '{"shards": [{"name": "%s", "bytes": %s, "samples": %s}]}'


def tar_of(path: Path, members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    """A tar with these members in this order."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.type = len(content), kind
            tar.addfile(member, io.BytesIO(content))
    return path


def test_read_gives_the_bytes_that_were_written(make_shards: MakeShards, png: Callable[[int], bytes]) -> None:
    """Each field of each sample, in order; webdataset itself agrees."""
    folder = make_shards("pairs", 7, fields=("png", "txt", "cls"))
    paths = expand_shards(str(folder), asked_by="data.pairs")
    assert [path.name for path in paths] == ["00000.tar", "00001.tar"] and count_samples(paths) == [4, 3]
    number = 0
    for path in paths:
        shard = scan_shard(path)
        theirs = list(webdataset.WebDataset(str(path), shardshuffle=False))
        for row in range(shard.count):
            assert shard.keys[row] == theirs[row]["__key__"] == f"{number:04d}"
            assert shard.read(row, "png") == theirs[row]["png"] == png(number)
            assert shard.read(row, "txt") == theirs[row]["txt"] == f"sentence {number}".encode()
            assert shard.read(row, "cls") == theirs[row]["cls"] == str(number % 3).encode()
            number += 1


def test_the_same_samples_give_the_same_bytes(make_shards: MakeShards) -> None:
    """No time, user or group in the tar: shards can be compared by hash."""
    first, second = make_shards("a", 5), make_shards("b", 5)
    for name in ("00000.tar", "00001.tar", INDEX_NAME):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_patterns(make_shards: MakeShards) -> None:
    """A brace pattern, a folder in order of names, several joined by `::`."""
    a, b = make_shards("a", 9), make_shards("b", 5)
    names = [f"{n:05d}.tar" for n in range(3)]
    assert expand_shards(f"{a}/{{00000..00002}}.tar", asked_by="x") == [a / name for name in names]
    assert expand_shards(str(a), asked_by="x") == [a / name for name in names]
    assert expand_shards(f"{b}::{a}/00001.tar", asked_by="x") == [b / names[0], b / names[1], a / names[1]]


def test_missing_shards_are_counted_and_the_first_is_named(make_shards: MakeShards) -> None:
    """The config path is in the message."""
    folder = make_shards("a", 5)
    with pytest.raises(DataError, match=r"data\.images=.*: 2 of 4 shards do not exist, the first is .*00002\.tar"):
        expand_shards(f"{folder}/{{00000..00003}}.tar", asked_by="data.images")
    with pytest.raises(DataError, match=r"data\.texts is not set"):
        expand_shards("", asked_by="data.texts")
    (folder.parent / "empty").mkdir()
    with pytest.raises(DataError, match=r"the folder holds no \.tar file"):
        expand_shards(str(folder.parent / "empty"), asked_by="data.images")


def test_an_empty_shard_is_refused(tmp_path: Path) -> None:
    """With its name."""
    path = tar_of(tmp_path / "00000.tar", {})
    with pytest.raises(DataError, match=r"00000\.tar holds no samples"):
        count_samples([path])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_truncated_tar_is_refused(share: float, make_shards: MakeShards, png: Callable[..., bytes]) -> None:
    """Wherever it was cut; a copy that broke off must not train on what is left."""
    folder = make_shards("a", 4, broken={k: {"png": png(k, side=40)} for k in range(4)})
    path = folder / "00000.tar"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content.rstrip(b"\0")) * share)])
    with pytest.raises(DataError, match=r"00000\.tar is (not a readable|cut short).*copy it again|copy or write"):
        scan_shard(path)


@pytest.mark.parametrize("what", ["gzip", "text", "nothing"])
def test_what_is_no_plain_tar_is_refused(what: str, make_shards: MakeShards) -> None:
    """A compressed tar cannot be read at an offset."""
    path = make_shards("a", 4) / "00000.tar"
    path.write_bytes({"gzip": gzip.compress(path.read_bytes()), "text": b"hello" * 300, "nothing": b""}[what])
    with pytest.raises(DataError, match=r"00000\.tar is not a readable, uncompressed tar"):
        scan_shard(path)


def test_a_stale_index_is_not_believed(make_shards: MakeShards) -> None:
    """The bytes differ, so the shard is scanned; the untouched one is taken from the index."""
    folder = make_shards("a", 8)
    paths = expand_shards(str(folder), asked_by="x")
    write_shards(folder.parent / "b", ({"__key__": f"{k}", "txt": "x"} for k in range(3)))
    paths[0].write_bytes((folder.parent / "b" / "00000.tar").read_bytes())
    index = json.loads((folder / INDEX_NAME).read_text())
    index["shards"][1]["samples"] = 7
    (folder / INDEX_NAME).write_text(json.dumps(index))
    assert count_samples(paths) == [3, 7]


def test_without_an_index_shards_are_scanned(make_shards: MakeShards) -> None:
    """Shards that others have made come without one."""
    folder = make_shards("a", 7)
    (folder / INDEX_NAME).unlink()
    assert count_samples(expand_shards(str(folder), asked_by="x")) == [4, 3]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "3",
        '{"shards": [{"bytes": 3}]}',
        '{"shards": 7}',
        '{"shards": [{"name": "00000.tar"}]}',
        "[" * 99_999,
        INDEX % ("../a.tar", 9, 0),
        INDEX % ("a.tar", 2048, -1),
        INDEX % ("a.tar", 2048, 10**18),
        INDEX % ("a.tar", "1e999", 1),
        INDEX % ("a.tar", "NaN", 1),
    ],
    ids=range(12),
)
def test_a_corrupt_index_is_named(content: str, make_shards: MakeShards) -> None:
    """And what to do about it."""
    folder = make_shards("a", 4)
    (folder / INDEX_NAME).write_text(content)
    with pytest.raises(DataError, match=r"index\.json is not an index of shards .*; delete it"):
        count_samples([folder / "00000.tar"])


class Trap:
    """Unpickling it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    """Fields that nobody asked for are not read, not even those that webdataset would run code from."""
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    members = {f"{k}.{extension}": trap for k in range(2) for extension in ("pkl", "pyd", "pth")}
    members = {f"{k}.txt": b"words" for k in range(2)} | members
    path = tar_of(tmp_path / "00000.tar", dict(sorted(members.items())))
    stream = ShardStream(
        "data.texts", [path], [Field(["txt"], lambda data: {})], seed=0, window_shards=1, max_skip_fraction=0.0
    )
    assert {stream[position][1] for position in range(2)} == {"00000.tar:0", "00000.tar:1"}
    assert scan_shard(path).extensions == ("pkl", "pth", "pyd", "txt") and not (tmp_path / "sprung").exists()


def test_keys_with_dots_are_grouped_as_webdataset_does(tmp_path: Path) -> None:
    """The base name ends at the first dot, in a folder too; so `a.b.png` has the field `b.png`."""
    path = tar_of(tmp_path / "x.tar", {"v1.0/a.b.png": b"1", "v1.0/a.txt": b"2", "./c.png": b"3", "plain": b"4"})
    shard = scan_shard(path)
    assert shard.keys == ("v1.0/a", "./c") and shard.extensions == ("b.png", "png", "txt")
    assert shard.read(0, "b.png") == b"1" and shard.read(0, "txt") == b"2" and shard.read(1, "png") == b"3"
    assert shard.extension_of(0, ["png", "b.png"]) == "b.png" and shard.extension_of(1, ["txt"]) is None
    assert shard.lacking(["png"]) == 1 and shard.lacking(["jpg"]) == 2 and shard.lacking(["png", "b.png"]) == 0


def test_capital_extensions_are_found(tmp_path: Path) -> None:
    """Cameras write .JPG."""
    shard = scan_shard(tar_of(tmp_path / "x.tar", {"a.JPG": b"1", "b.Png": b"2"}))
    assert shard.read(0, "jpg") == b"1" and shard.read(1, "png") == b"2"


@pytest.mark.parametrize("second", ["a.png", "a.PNG"])
def test_a_field_twice_is_refused(second: str, tmp_path: Path) -> None:
    """Which of the two is meant cannot be known."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.png", second):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(DataError, match=r"sample a has the field 'png' twice"):
        scan_shard(path)


def test_links_and_folders_are_ignored(tmp_path: Path) -> None:
    """A link could point anywhere."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("d.x", tarfile.DIRTYPE), ("a.png", tarfile.SYMTYPE), ("b.png", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        member = tarfile.TarInfo("c.png")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"ok"))
    shard = scan_shard(path)
    assert shard.keys == ("c",) and shard.read(0, "png") == b"ok"


def test_long_names_and_unicode(tmp_path: Path) -> None:
    """Names beyond 100 bytes are written with an extension header; offsets must be those of the data."""
    key = "dir/" + "é" * 120
    shard = scan_shard(tar_of(tmp_path / "x.tar", {f"{key}.txt": b"first", f"{key}2.txt": b"second"}))
    assert shard.keys == (key, f"{key}2") and shard.read(0, "txt") == b"first" and shard.read(1, "txt") == b"second"


def test_decode_text() -> None:
    """Stripped UTF-8."""
    assert decode_text(" caf\u00e9 \n".encode()) == "caf\u00e9"


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """Files and folders of a process that has ended, of the same path only; those of one that lives stay."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = tmp_path / "index.json"
    start = aside_of(path).name.removesuffix(str(os.getpid()))
    (tmp_path / f"{start}{gone.pid}").write_text("half")
    (tmp_path / f".other.json{start.removeprefix('.index.json')}{gone.pid}").write_text("half")
    (tmp_path / f"{start}1").write_text("of somebody who lives")
    (tmp_path / f"{start}backup").write_text("no number")
    (tmp_path / f"{start}{2**70}").write_text("no process")
    before = {entry.name for entry in tmp_path.iterdir()}
    write_aside(path, "whole")
    assert {entry.name for entry in tmp_path.iterdir()} == before - {f"{start}{gone.pid}"} | {"index.json"}
    folder = tmp_path / f"{start}{gone.pid}"
    folder.mkdir()
    (folder / "file").write_text("half")
    write_aside(path, "again")
    assert path.read_text() == "again" and not folder.exists()

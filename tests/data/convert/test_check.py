"""`dime shards check` finds each planted fault, and nothing where there is none."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.cli import dispatch
from toolkit.data.convert.check import check_folder
from toolkit.data.index import write_index
from toolkit.errors import DataError

Dime = Callable[..., Any]


def check(folder: Path, fast: bool = False, **how: Any) -> tuple[list[str], dict[str, Any]]:
    """(lines, counts)."""
    lines: list[str] = []
    return lines, check_folder(folder, fast=fast, max_pixels=10_000, workers=how.pop("workers", 1), say=lines.append)


def good(make: Any, count: int = 6, first: int = 0) -> dict[str, bytes]:
    """A picture and its sentence per sample."""
    members: dict[str, bytes] = {}
    for n in range(first, first + count):
        members |= {f"{n:04d}.jpg": make.photo(n), f"{n:04d}.txt": b"some words"}
    return members


def folder_of(make: Any, path: Path, *shards: dict[str, bytes]) -> Path:
    """Shards with their index."""
    for number, members in enumerate(shards):
        make.tar(path / f"{number:05d}.tar", members)
    counts = {f"{n:05d}.tar": len({name.partition(".")[0] for name in members}) for n, members in enumerate(shards)}
    write_index(path, counts)
    return path


def test_what_is_right_passes(make: Any, dime: Dime, make_shards: Any, tmp_path: Path) -> None:
    """Shards of the converter, of write_shards, and by hand; fast and slow; one and two workers."""
    dime(
        "images", make.folder(tmp_path / "in", {f"{n}.jpg": make.photo(n) for n in range(5)}), "--samples-per-shard", 2
    )
    for folder in (
        tmp_path / "out",
        make_shards("a", 7),
        folder_of(make, tmp_path / "b", good(make), good(make, 6, 10)),
    ):
        for fast in (False, True):
            lines, found = check(folder, fast)
            assert lines == [] and found["wrong"] == 0 and found["samples"] > 4
    assert check(tmp_path / "b", workers=2)[1]["samples"] == 12


FAULTS: dict[str, tuple[dict[str, bytes], str, bool]] = {
    "empty picture": ({"0002.jpg": b""}, "00001.tar:0002: empty", True),
    "junk": ({"0002.jpg": b"junk"}, "00001.tar:0002: undecodable", False),
    "empty text": ({"0002.txt": b""}, "00001.tar:0002: empty_text txt", True),
    "blank text": ({"0002.txt": b" \n"}, "00001.tar:0002: empty_text txt", False),
    "latin-1": ({"0002.txt": b"caf\xe9"}, "00001.tar:0002: not_utf8 txt", False),
    "bad json": ({"0002.json": b"{"}, "00001.tar:0002: bad_json json", False),
    "bad class": ({"0002.cls": b"dog"}, "00001.tar:0002: no_class_number cls", False),
    "pickle": ({"0002.pkl": b"x"}, "00001.tar:0002: could_run_code pkl", True),
    "dotted": ({"0002.seg.png": b""}, "00001.tar:0002: dotted_key: readers take 'seg.png' for the field", True),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str, make: Any, tmp_path: Path) -> None:
    """By shard, key and reason; with --fast where the header tells."""
    change, said, by_header = FAULTS[name]
    members: dict[str, bytes] = {}
    for key, data in good(make).items():
        members[key] = change.get(key, data)
        members |= {extra: change[extra] for extra in change if key == "0002.txt" and extra not in good(make)}
    folder = folder_of(make, tmp_path / "a", good(make, 6, 10), members)
    lines, found = check(folder)
    assert said in lines and len(lines) == found["wrong"] <= 2
    assert (said in check(folder, fast=True)[0]) == by_header


def test_half_a_jpeg_and_a_bomb(make: Any, tmp_path: Path) -> None:
    """Decoded to the end, but only below the limit."""
    folder = folder_of(
        make,
        tmp_path / "a",
        good(make) | {"0001.jpg": make.photo(1, 90, 90)[:-300], "0002.jpg": make.photo(2, 200, 90)},
    )
    assert check(folder)[0] == ["00000.tar:0001: undecodable", "00000.tar:0002: too_many_pixels"]


def test_keys_twice(make: Any, tmp_path: Path) -> None:
    """Within a shard, across shards, and the same field twice."""
    path = folder_of(make, tmp_path / "a", good(make), good(make, 3, 10), good(make, 3, 3))
    assert check(path)[0] == [
        f"00002.tar:000{n}: duplicate_key_in_other_shard: 00000.tar has it too" for n in (3, 4, 5)
    ]
    twice = tmp_path / "b" / "00000.tar"
    make.tar(twice, good(make, 2))
    with tarfile.open(twice, "a") as tar:
        for name in ("0000.txt", "0002.txt", "0002.TXT"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, __import__("io").BytesIO(b"x"))
    lines, _ = check(tmp_path / "b")
    assert "00000.tar:0000: duplicate_key" in lines and "00000.tar:0002: field_twice txt" in lines


def test_missing_fields(make: Any, tmp_path: Path) -> None:
    """What more than half of all samples have; pictures may be of any kind."""
    members = good(make)
    del members["0001.txt"], members["0002.jpg"]
    members = {name.replace("0003.jpg", "0003.png"): data for name, data in members.items()}
    assert check(folder_of(make, tmp_path / "a", members))[0] == [
        "00000.tar:0001: missing_field: txt",
        "00000.tar:0002: missing_field: picture",
    ]


def test_hostile_names_and_links(make: Any, tmp_path: Path) -> None:
    """Nothing is followed, all is told."""
    path = make.tar(tmp_path / "a" / "00000.tar", {"../x.txt": b"a b c", "/etc/y.txt": b"a b c"})
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo("z.txt")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    lines, found = check(tmp_path / "a")
    assert lines[0].endswith("has no index.json: bytes, hashes and numbers of samples cannot be compared")
    assert lines[1:] == ["00000.tar:../x: unsafe_name", "00000.tar:/etc/y: unsafe_name", "00000.tar:z: not_a_file txt"]
    assert found["wrong"] == 3


def test_shards_against_the_index(make: Any, dime: Dime, tmp_path: Path) -> None:
    """Other bytes, other contents of the same length, missing, unknown, another number of samples, cut short."""
    source = make.folder(tmp_path / "in", {f"{n}.jpg": make.photo(n) for n in range(12)})
    folder = dime("images", source, "--samples-per-shard", 2).folder
    shards = sorted(folder.glob("*.tar"))
    content = bytearray(shards[0].read_bytes())
    content[700] ^= 1  # inside the first picture
    shards[0].write_bytes(content)
    shards[1].write_bytes(shards[1].read_bytes()[:900])
    shards[2].unlink()
    shards[3].write_bytes(shards[3].read_bytes() + b"\0" * 512)
    (folder / "00009.tar").write_bytes(shards[4].read_bytes())
    shards[5].write_bytes(b"no tar at all")
    lines, found = check(folder)
    for said in (
        "00000.tar: other_sha256",
        "00001.tar: cut_short: ",
        "00001.tar: other_bytes",
        "00001.tar: other_samples: the index says 2, found",
        "00002.tar: missing_shard",
        "00003.tar: other_bytes",
        "00005.tar: unreadable_tar",
        "00009.tar: not_in_index",
        "00009.tar:000000008: duplicate_key_in_other_shard: 00004.tar",
    ):
        assert any(line.startswith(said) for line in lines), (said, lines)
    assert found["wrong"] == len(lines) == sum(found["reasons"].values())
    assert not any("other_sha256" in line for line in check(folder, fast=True)[0])


def test_exit_code_and_json(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 and 1; the object is the last line."""
    folder = folder_of(make, tmp_path / "a", good(make))
    words = ["shards", "check", str(folder), "--workers", "1", "--json"]
    dispatch(words)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["wrong"] == 0
    folder_of(make, tmp_path / "a", good(make) | {"0001.txt": b""})
    with pytest.raises(SystemExit) as ended:
        dispatch(words)
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 1 and lines[0] == "00000.tar:0001: empty_text txt"
    assert json.loads(lines[-1])["reasons"] == {"empty_text": 1}


def test_what_is_no_folder_of_shards(tmp_path: Path) -> None:
    """Told."""
    with pytest.raises(DataError, match=r"holds no \.tar file"):
        check(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        check(tmp_path / "nowhere")

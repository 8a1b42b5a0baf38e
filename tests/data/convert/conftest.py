"""Pictures and the files that hold them, as people have them."""

import base64
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toolkit.data.shards import scan_shard


def photo(number: int, width: int = 40, height: int = 30, kind: str = "JPEG", mode: str = "RGB", **how: Any) -> bytes:
    """Smooth noise that differs with its number."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(buffer, kind, **how)
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """Members in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_tsv(path: Path, rows: Sequence[tuple[str, bytes | str]], index: bool = False) -> Path:
    """Bytes become base64, words stay; `index` writes the .lineidx too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{key}\t{base64.b64encode(value).decode() if isinstance(value, bytes) else value}\n".encode()
        for key, value in rows
    ]
    path.write_bytes(b"".join(lines))
    if index:
        starts = np.cumsum([0, *map(len, lines[:-1])]).tolist()
        path.with_suffix(".lineidx").write_text("".join(f"{start}\n" for start in starts))
    return path


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    """Files below a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


class Shards:
    """What a conversion left behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.report = json.loads((folder / "report.json").read_text())
        self.skipped = [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]
        self.index = json.loads((folder / "index.json").read_text())["shards"]

    @property
    def reasons(self) -> dict[str, str]:
        """Reason by name of the input."""
        return {skip["name"]: skip["reason"] for skip in self.skipped}

    def samples(self) -> list[tuple[str, str, bytes]]:
        """(original name, extension, bytes) in order, read as a run reads them."""
        found = []
        for entry in self.index:
            shard = scan_shard(self.folder / entry["name"])
            names = (self.folder / "names" / entry["name"]).with_suffix(".jsonl").read_text().splitlines()
            assert len(names) == shard.count == entry["samples"]
            for row, line in enumerate(names):
                known = json.loads(line)
                assert known["key"] == shard.keys[row]
                (extension,) = [e for e in shard.extensions if shard.extension_of(row, [e])]
                found.append((known["name"], extension, shard.read(row, extension)))
        return found

    def contents(self) -> dict[str, bytes]:
        """Bytes by original name."""
        return {name: data for name, _, data in self.samples()}

    def files(self) -> dict[str, bytes]:
        """Every byte of the folder."""
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in sorted(self.folder.rglob("*")) if p.is_file()}


@pytest.fixture
def dime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Shards]:
    """`dime("images", source, "--short-side", "20", out="a")`: the verb, in this process and with one worker."""
    from toolkit.cli import dispatch

    def run(verb: str, *words: object, out: str = "out") -> Shards:
        workers = [] if "--workers" in words else ["--workers", "1"]
        dispatch(["shards", verb, *map(str, words), "--out", str(tmp_path / out), *workers])
        capsys.readouterr()
        return Shards(tmp_path / out)

    return run


@pytest.fixture
def make() -> Any:
    """The makers of this file by name: `make.photo(3)`, `make.tar(path, members)`, `make.tsv(...)`, `make.folder(...)`."""

    class Makers:
        photo = staticmethod(photo)
        tar = staticmethod(write_tar)
        tsv = staticmethod(write_tsv)
        folder = staticmethod(write_folder)

    return Makers

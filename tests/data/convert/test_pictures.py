"""Pictures of every kind of source: what is stored, byte for byte, and what is left out for which reason."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toolkit.data.convert.listing import PIECE
from toolkit.errors import ConfigError, DataError

Dime = Callable[..., Any]


def opened(data: bytes) -> Image.Image:
    """As any reader would."""
    return Image.open(io.BytesIO(data))


def test_a_folder_keeps_bytes_and_order(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Sub-folders in sorted order, capital extensions, three per shard; keys say nothing, names are kept apart."""
    files = {
        f"{d}/{n}.{e}": make.photo(10 * i + n)
        for i, (d, e) in enumerate([("b", "jpg"), ("a", "JPG")])
        for n in range(4)
    }
    files |= {"a/x.v2.png": make.photo(99, kind="PNG"), "notes.md": b"hello", ".hidden.jpg": b"no"}
    made = dime("images", make.folder(tmp_path / "in", files), "--samples-per-shard", 3)
    pictures = {name: data for name, data in files.items() if name not in ("notes.md", ".hidden.jpg")}
    assert made.contents() == pictures and list(made.contents()) == sorted(pictures)
    assert [entry["samples"] for entry in made.index] == [3, 3, 3] and made.reasons == {"notes.md": "not_a_picture"}
    assert {extension for _, extension, _ in made.samples()} == {"jpg", "png"}
    assert made.report["samples"] == made.report["kept_as_they_were"] == 9 and made.report["inputs"] == 10
    assert all(len(entry["sha256"]) == 64 for entry in made.index) and not (tmp_path / "out" / ".work").exists()


def test_a_tar_with_folders_and_hostile_names(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Names with ../ or an absolute path only ever stand in a JSON line; nothing is written outside."""
    names = ["train/x/1.jpg", "../../evil.png", "/etc/passwd.jpg", "a.b.c.jpg", "é\udcff.jpg", "readme.txt"]
    members = {name: make.photo(i, kind="PNG" if name.endswith("png") else "JPEG") for i, name in enumerate(names)}
    before = set(tmp_path.parent.rglob("*evil*"))
    made = dime("images", make.tar(tmp_path / "x" / "in.tar", members))
    assert made.contents() == {name: data for name, data in members.items() if name != "readme.txt"}
    assert made.reasons == {"readme.txt": "not_a_picture"} and set(tmp_path.parent.rglob("*evil*")) == before


@pytest.mark.parametrize("index", [True, False])
def test_tsv_round_trip_byte_for_byte(index: bool, dime: Dime, make: Any, tmp_path: Path) -> None:
    """Whatever the keys; a missing .lineidx is made beside the file, the same as the one that was there."""
    rows = [(f"key {n} / .. é", make.photo(n)) for n in range(12)]
    path = make.tsv(tmp_path / "in" / "image_00.tsv", rows, index)
    made = dime("images", path, "--samples-per-shard", 5)
    assert [(name, data) for name, _, data in made.samples()] == rows
    other = make.tsv(tmp_path / "other" / "image_00.tsv", rows, True)
    assert path.with_suffix(".lineidx").read_bytes() == other.with_suffix(".lineidx").read_bytes()


def test_tsv_without_a_place_for_the_index(
    dime: Dime, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only folder: the index stays in memory."""
    path = make.tsv(tmp_path / "in" / "x.tsv", [("a", make.photo(1)), ("b", make.photo(2))])

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("toolkit.data.convert.tsv.write_aside", refuse)
    assert len(dime("images", path).samples()) == 2 and not path.with_suffix(".lineidx").exists()


@pytest.mark.parametrize("name", ["x.linelist", "x.linelist.tsv"])
def test_the_linelist_is_honoured(name: str, dime: Dime, make: Any, tmp_path: Path) -> None:
    """Only these rows, in sorted order."""
    path = make.tsv(tmp_path / "x.tsv", [(str(n), make.photo(n)) for n in range(6)])
    (tmp_path / name).write_text("4\n1\n")
    assert list(dime("images", path).contents()) == ["1", "4"]


@pytest.mark.parametrize("content", ["0\n7\n", "0\n", "0\n999999\n", "5\n6\n", "zero\n", "", "0\n0\n"])
def test_an_index_of_another_file_is_refused(content: str, dime: Dime, make: Any, tmp_path: Path) -> None:
    """Never believed, never mended in silence."""
    path = make.tsv(tmp_path / "x.tsv", [(str(n), make.photo(n)) for n in range(3)])
    path.with_suffix(".lineidx").write_text(content)
    with pytest.raises(DataError, match=r"x\.lineidx .*remove it, it is made anew"):
        dime("images", path)


def test_a_linelist_beyond_the_rows(dime: Dime, make: Any, tmp_path: Path) -> None:
    """With the row it names."""
    path = make.tsv(tmp_path / "x.tsv", [("a", make.photo(0))])
    path.with_suffix(".linelist").write_text("0\n3\n")
    with pytest.raises(DataError, match=r"x\.linelist names row 3, .*x\.tsv has 1"):
        dime("images", path)


def test_bad_rows_of_a_tsv(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Each by its reason, the others as ever; CRLF does no harm."""
    path = make.tsv(
        tmp_path / "x.tsv", [("good", make.photo(0)), ("padding", "abcde"), ("empty", ""), ("junk", b"no picture")]
    )
    with open(path, "ab") as file:
        file.write(
            b"only a key\n" + f"crlf\t{__import__('base64').b64encode(make.photo(1)).decode()}\textra\r\n".encode()
        )
    made = dime("images", path)
    assert made.contents() == {"good": make.photo(0), "crlf": make.photo(1)}
    assert made.reasons == {
        "padding": "bad_base64",
        "empty": "empty",
        "junk": "undecodable",
        "row 4": "no_second_column",
    }


def test_img2dataset_shards(dime: Dime, make: Any, tmp_path: Path) -> None:
    """jpg, txt and json per key, parquet and _stats.json beside the tars: pictures only, one per sample."""
    folder = tmp_path / "in"
    for shard in range(2):
        members: dict[str, bytes] = {}
        for n in range(3):
            key = f"{shard:05d}{n:04d}"
            members |= {f"{key}.jpg": make.photo(10 * shard + n), f"{key}.txt": b"a caption", f"{key}.json": b"{}"}
        members |= {"000999999.txt": b"no picture came", "000999999.json": b"{}"}
        make.tar(folder / f"{shard:05d}.tar", members)
        make.folder(folder, {f"{shard:05d}.parquet": b"PAR1", f"{shard:05d}_stats.json": b"{}"})
    made = dime("images", folder)
    assert list(made.contents()) == [f"{s:05d}{n:04d}" for s in range(2) for n in range(3)]
    assert [skip["reason"] for skip in made.skipped] == ["no_picture", "no_picture"]


def test_webdataset_shards_of_images_only(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Made by another tool; names with underscores, several shards by a brace pattern."""
    for n in range(3):
        make.tar(tmp_path / f"image{n}.tar", {f"{n}_{k}.jpg": make.photo(10 * n + k) for k in range(2)})
    made = dime("images", str(tmp_path / "image{0..2}.tar"))
    assert list(made.contents()) == [f"{n}_{k}.jpg" for n in range(3) for k in range(2)]


def test_short_side_changes_only_what_is_larger(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Short side exactly as asked, the long one in proportion, never enlarged; small ones keep their bytes."""
    files = {
        "large.jpg": make.photo(1, 400, 300),
        "tall.png": make.photo(2, 60, 90, "PNG"),
        "small.jpg": make.photo(3, 31, 32),
    }
    made = dime("images", make.folder(tmp_path / "in", files), "--short-side", 48, "--jpeg-quality", 80)
    found = made.contents()
    assert found["small.jpg"] == files["small.jpg"] and made.report["kept_as_they_were"] == 1
    assert opened(found["large.jpg"]).size == (64, 48) and opened(found["tall.png"]).size == (48, 72)
    assert {name: extension for name, extension, _ in made.samples()}["tall.png"] == "jpg"
    better = dime("images", tmp_path / "in", "--short-side", 48, "--jpeg-quality", 95, out="better").contents()
    assert len(better["large.jpg"]) > len(found["large.jpg"])
    original = np.asarray(opened(files["large.jpg"]).resize((64, 48), Image.Resampling.BICUBIC), dtype=float)
    assert np.abs(np.asarray(opened(better["large.jpg"]), dtype=float) - original).mean() < 3


def test_odd_pictures_become_upright_rgb(dime: Dime, make: Any, tmp_path: Path) -> None:
    """EXIF rotation, CMYK, 16 bits, animation, transparency, palette: what a plain reader sees is what was meant."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    deep = io.BytesIO()
    Image.fromarray((np.arange(40 * 30, dtype=np.uint16) * 50).reshape(30, 40)).save(deep, "PNG")
    clear = io.BytesIO()
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(clear, "PNG")
    moving = io.BytesIO()
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    files = {
        "turned.jpg": make.photo(1, exif=exif),
        "cmyk.jpg": make.photo(2, mode="CMYK"),
        "deep.png": deep.getvalue(),
        "clear.png": clear.getvalue(),
        "moving.gif": moving.getvalue(),
        "palette.png": make.photo(3, kind="PNG", mode="P"),
        "photo.tif": make.photo(4, kind="TIFF"),
        "fine.webp": make.photo(5, kind="WEBP"),
        "grey.jpg": make.photo(6, mode="L"),
        "named_wrongly.jpg": make.photo(7, kind="PNG"),
    }
    made = dime("images", make.folder(tmp_path / "in", files))
    found = made.contents()
    kept = {name for name in files if found[name] == files[name]}
    assert kept == {"fine.webp", "grey.jpg", "named_wrongly.jpg"} and made.skipped == []
    assert all(opened(found[name]).mode == "RGB" for name in files if name not in kept)
    assert opened(found["turned.jpg"]).size == (30, 40) and 0x0112 not in opened(found["turned.jpg"]).getexif()
    assert opened(found["clear.png"]).getpixel((5, 5)) == (255, 255, 255)
    assert opened(found["moving.gif"]).format == "PNG" and opened(found["moving.gif"]).getpixel((5, 5)) == (255, 0, 0)
    values = np.asarray(opened(found["deep.png"]))[..., 0].reshape(-1)
    assert (values == np.arange(1200) * 50 // 256).all()
    assert {name: e for name, e, _ in made.samples()}["named_wrongly.jpg"] == "png"


def png_claiming(width: int, height: int) -> bytes:
    """A header of that size and hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("dedupe", ["exact", "near", "none"])
def test_bad_pictures_are_counted_by_reason(dedupe: str, dime: Dime, make: Any, tmp_path: Path) -> None:
    """Zero bytes, junk, half a JPEG, a bomb that is never decoded, an EPS that PIL would hand to Ghostscript."""
    files = {
        "good.jpg": make.photo(0),
        "empty.jpg": b"",
        "junk.jpg": b"junk" * 100,
        "half.jpg": make.photo(1, 200, 200)[:-600],
        "bomb.png": png_claiming(20_000, 20_000),
        "script.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        "tiny.jpg": make.photo(2, 5, 50),
        "wide.jpg": make.photo(3, 300, 200),
    }
    made = dime(
        "images", make.folder(tmp_path / "in", files), "--dedupe", dedupe, "--min-side", 10, "--max-pixels", 50_000
    )
    expected = {
        "empty.jpg": "empty",
        "junk.jpg": "undecodable",
        "half.jpg": "undecodable",
        "bomb.png": "too_many_pixels",
    }
    expected |= {"script.jpg": "undecodable", "tiny.jpg": "too_small", "wide.jpg": "too_many_pixels"}
    assert made.reasons == expected and list(made.contents()) == ["good.jpg"]
    counts = {reason: list(expected.values()).count(reason) for reason in sorted(set(expected.values()))}
    assert made.report["left_out"] == counts and made.report["inputs"] == len(files)


def test_a_tar_cut_short(dime: Dime, make: Any, tmp_path: Path) -> None:
    """What is whole is used, the rest is told."""
    path = make.tar(tmp_path / "x.tar", {f"{n}.jpg": make.photo(n, 100, 100) for n in range(4)})
    path.write_bytes(path.read_bytes()[: 3 * 512 + 3 * len(make.photo(0, 100, 100))])
    made = dime("images", path)
    assert 1 <= len(made.samples()) < 4 and {"cut_short"} <= set(made.reasons.values()) <= {
        "cut_short",
        "rest_of_tar_unreadable",
    }


def test_near_duplicates(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Another size, quality and format, and a rotation undone by EXIF; other pictures stay, flat ones too."""
    first = opened(make.photo(1, 400, 300))
    files = {f"{n}_other.jpg": make.photo(n, 64, 48) for n in range(2, 8)}
    files["1_first.jpg"] = make.photo(1, 400, 300)
    exif = Image.Exif()
    exif[0x0112] = 6
    again = {"small.png": (first.resize((120, 90)), "PNG", {}), "poor.jpg": (first, "JPEG", {"quality": 40})}
    again["turned.jpg"] = (first.rotate(90, expand=True), "JPEG", {"exif": exif})
    for name, (image, kind, how) in again.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **how)
        files[f"9_{name}"] = buffer.getvalue()
    for colour in ("red", "green"):
        buffer = io.BytesIO()
        Image.new("RGB", (30, 30), colour).save(buffer, "PNG")
        files[f"8_{colour}.png"] = buffer.getvalue()
    made = dime("images", make.folder(tmp_path / "in", files), "--dedupe", "near")
    assert made.reasons == {f"9_{name}": "near_duplicate" for name in again}
    assert dime("images", tmp_path / "in", out="exact").report["left_out"] == {}


def test_exact_duplicates_across_sources(dime: Dime, make: Any, tmp_path: Path) -> None:
    """The first in the order of the sources stays; `none` keeps all."""
    folder = make.folder(tmp_path / "in", {f"{n}.jpg": make.photo(n % 3) for n in range(5)})
    path = make.tsv(tmp_path / "x.tsv", [("again", make.photo(1)), ("new", make.photo(7))])
    made = dime("images", folder, path)
    assert list(made.contents()) == ["0.jpg", "1.jpg", "2.jpg", "new"]
    assert [(skip["name"], skip["reason"]) for skip in made.skipped] == [
        (n, "duplicate") for n in ("3.jpg", "4.jpg", "again")
    ]
    assert made.skipped[-1]["source"] == str(path)
    assert len(dime("images", folder, path, "--dedupe", "none", out="all").samples()) == 7


def test_a_shard_of_only_bad_pictures_leaves_no_gap(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Numbers of shards stay consecutive, so that brace patterns work."""
    files = {f"{n}.jpg": (b"junk%d" % n if 2 <= n < 4 else make.photo(n)) for n in range(6)}
    made = dime("images", make.folder(tmp_path / "in", files), "--samples-per-shard", 2)
    assert [entry["name"] for entry in made.index] == ["00000.tar", "00001.tar"] and len(made.samples()) == 4


def test_mistakes_are_told(dime: Dime, make: Any, tmp_path: Path) -> None:
    """What was asked, what was found, what to do."""
    with pytest.raises(DataError, match=r"1 of 1 SRC do not exist, the first is .*nowhere"):
        dime("images", tmp_path / "nowhere")
    texts = make.tsv(tmp_path / "text_00.tsv", [("a", "words of a caption")])
    with pytest.raises(DataError, match="hold no base64 pictures; give it to `dime shards texts`"):
        dime("images", texts)
    with pytest.raises(DataError, match="is a single picture; give the folder"):
        dime("images", make.folder(tmp_path / "one", {"a.jpg": make.photo(1)}) / "a.jpg")
    with pytest.raises(DataError, match="not one of the pictures can be used: 2 undecodable"):
        dime("images", make.folder(tmp_path / "bad", {"a.jpg": b"x", "b.jpg": b"y"}), out="none")
    packed = tmp_path / "x.tar"
    packed.write_bytes(__import__("gzip").compress(b"x" * 2000))
    with pytest.raises(DataError, match="is compressed; unpack it"):
        dime("images", packed)
    with pytest.raises(ConfigError, match="--jpeg-quality 0 must lie in"):
        dime("images", tmp_path / "one", "--jpeg-quality", 0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="is not empty and holds no conversion of ours"):
        dime("images", tmp_path / "one", out="full")
    dime("images", tmp_path / "one", out="done")
    with pytest.raises(DataError, match=r"from other sources or options \(short_side: 0 there, 9 here\)"):
        dime("images", tmp_path / "one", "--short-side", 9, out="done")


def test_run_again_when_done_changes_nothing(dime: Dime, make: Any, tmp_path: Path) -> None:
    """And says the same."""
    folder = make.folder(tmp_path / "in", {"a.jpg": make.photo(1)})
    first = dime("images", folder)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert dime("images", folder).files() == first.files()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == stamps


def test_json_is_the_last_line(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object, with the counts."""
    from toolkit.cli import dispatch

    folder = make.folder(tmp_path / "in", {"a.jpg": make.photo(1), "b.jpg": make.photo(1)})
    dispatch(["shards", "images", str(folder), "--out", str(tmp_path / "out"), "--workers", "1", "--json"])
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["samples"] == 1 and said["left_out"] == {"duplicate": 1} and said["out"] == str(tmp_path / "out")


def test_pieces_are_bounded(dime: Dime, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists in pieces of another size give the same shards."""
    folder = make.folder(tmp_path / "in", {f"{n:02d}.jpg": make.photo(n % 7) for n in range(20)})
    whole = dime("images", folder, "--samples-per-shard", 3)
    monkeypatch.setattr("toolkit.data.convert.listing.PIECE", 4)
    assert PIECE > 20 and dime("images", folder, "--samples-per-shard", 3, out="pieces").files() == whole.files()

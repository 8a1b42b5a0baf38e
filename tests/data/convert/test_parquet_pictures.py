"""Pictures in parquet tables, as img2dataset and Hugging Face write them: found, read by row groups, refused when torn."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest
from pyarrow import parquet

from toolkit.data.convert import parquet_file
from toolkit.data.convert.check import check_folder
from toolkit.data.convert.convert import convert_images
from toolkit.data.convert.pictures import PictureOptions
from toolkit.errors import ConfigError, DataError

Dime = Callable[..., Any]
FAILED = {3: "failed_to_download", 5: "failed_to_resize"}


def rows_of(make: Any, count: int = 8, first: int = 0, kind: str = "JPEG") -> list[dict[str, Any]]:
    """As img2dataset has them: metadata of each URL, and bytes where the download succeeded."""
    rows = []
    for n in range(first, first + count):
        good = n not in FAILED
        row = {"url": f"http://x/{n}", "caption": f"caption of {n}", "key": f"{n:09d}"}
        row |= {"status": FAILED.get(n, "success"), "error_message": None if good else "404"}
        row |= {"width": 40 if good else None, "height": 30 if good else None, "exif": "{}" if good else None}
        rows.append(row | {"jpg": make.photo(n, kind=kind) if good else None})
    return rows


SCHEMA = [(name, arrow.string()) for name in ("url", "caption", "key", "status", "error_message", "exif")]
SCHEMA += [("width", arrow.int32()), ("height", arrow.int32())]


def write_rows(path: Path, rows: list[dict[str, Any]], picture: str = "jpg", group: int = 3) -> Path:
    """In row groups of three; the picture's column may have another name, or there may be none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{(picture if name == "jpg" else name): row[name] for name in row} for row in rows]
    schema = arrow.schema([*SCHEMA, *([(picture, arrow.binary())] if picture else [])])
    parquet.write_table(arrow.Table.from_pylist(rows, schema), path, row_group_size=group)
    return path


def boxed(path: Path, pictures: list[dict[str, Any] | None], name: str = "image", **columns: Any) -> Path:
    """A Hugging Face table: a struct of bytes and path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    parquet.write_table(arrow.table({name: arrow.array(pictures, kind), **columns}), path, row_group_size=3)
    return path


@pytest.mark.parametrize("picture", ["jpg", "png", "webp"])
def test_what_img2dataset_writes(picture: str, dime: Dime, make: Any, tmp_path: Path) -> None:
    """Two shards in a folder, named by key; failed rows counted by their status, a null without one too; nothing wrong."""
    kind = {"jpg": "JPEG"}.get(picture, picture.upper())
    rows = rows_of(make, kind=kind)
    rows[6] |= {"jpg": None}
    write_rows(tmp_path / "in" / "00000.parquet", rows, picture)
    write_rows(tmp_path / "in" / "00001.parquet", more := rows_of(make, 4, first=10, kind=kind), picture)
    make.folder(tmp_path / "in", {"00000_stats.json": b"{}", "00001_stats.json": b"{}"})
    made = dime("images", tmp_path / "in", "--samples-per-shard", 4)
    assert made.contents() == {row["key"]: row["jpg"] for row in rows + more if row["jpg"]}
    assert {extension for _, extension, _ in made.samples()} == {picture}
    assert made.reasons == {"000000006": "no_picture"} | {f"{n:09d}": FAILED[n] for n in FAILED}
    assert made.report["inputs"] == 12 and made.report["kept_as_they_were"] == 9
    said: list[str] = []
    assert check_folder(made.folder, fast=False, max_pixels=10**6, workers=1, say=said.append)["wrong"] == 0, said


def test_a_status_of_somebody_else_means_nothing(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Only img2dataset's own words for failure leave a row out."""
    rows = [row | {"status": "published"} for row in rows_of(make, 3)]
    assert len(dime("images", write_rows(tmp_path / "a.parquet", rows)).samples()) == 3


def test_img2dataset_files(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Folders of pictures with caption and metadata beside each, a table and a report of each folder: pictures only."""
    files: dict[str, bytes] = {}
    for shard in range(2):
        for n in range(3):
            stem = f"{shard:05d}/{shard:05d}{n:04d}"
            files |= {f"{stem}.jpg": make.photo(10 * shard + n), f"{stem}.txt": b"a caption", f"{stem}.json": b"{}"}
        files[f"{shard:05d}_stats.json"] = b"{}"
        write_rows(tmp_path / "in" / f"{shard:05d}.parquet", rows_of(make, 3), picture="")
    files |= {"00000/lonely.txt": b"of no picture", "notes.json": b"{}"}
    made = dime("images", make.folder(tmp_path / "in", files))
    assert made.contents() == {name: data for name, data in files.items() if name.endswith("jpg")}
    assert made.reasons == {"00000/lonely.txt": "not_a_picture", "notes.json": "not_a_picture"}


def test_img2dataset_tars_with_their_tables(dime: Dime, make: Any, tmp_path: Path) -> None:
    """A table of metadata beside a tar is passed over, torn or not; a table of pictures beside it is not."""
    for shard in range(3):
        fields = {f"{shard}{n}.{e}": make.photo(10 * shard + n) for n in range(2) for e in ("jpg", "txt")}
        make.tar(tmp_path / "in" / f"{shard:05d}.tar", fields)
    write_rows(tmp_path / "in" / "00000.parquet", rows_of(make), picture="")
    (tmp_path / "in" / "00001.parquet").write_bytes(b"PAR1")
    write_rows(tmp_path / "in" / "00002.parquet", rows_of(make, 2, first=50))
    names = [f"{shard}{n}" for shard in range(3) for n in range(2)]
    assert set(dime("images", tmp_path / "in").contents()) == {"000000050", "000000051", *names}


def test_hugging_face(dime: Dime, make: Any, tmp_path: Path) -> None:
    """A struct of bytes and path under any name; without path by row; null structs and bytes that lie elsewhere."""
    cells = [{"bytes": make.photo(n), "path": f"{n}.jpg" if n % 2 else None} for n in range(5)]
    cells += [None, {"bytes": None, "path": "elsewhere.jpg"}, {"bytes": b"junk", "path": "junk.jpg"}]
    path = boxed(tmp_path / "train-00000-of-00001.parquet", cells, "scan", label=list(range(8)))
    made = dime("images", path)
    names = ["row 0", "1.jpg", "row 2", "3.jpg", "row 4"]
    assert list(made.contents().items()) == [(name, make.photo(n)) for n, name in enumerate(names)]
    assert made.reasons == {"row 5": "no_picture", "elsewhere.jpg": "no_picture", "junk.jpg": "undecodable"}


@pytest.mark.parametrize("kind", [arrow.large_binary(), arrow.binary()])
def test_a_column_of_any_name(kind: Any, dime: Dime, make: Any, tmp_path: Path) -> None:
    """Found by its first bytes, behind nulls; bytes that are no picture beside it are not taken for one."""
    pictures = arrow.array([None, None, *(make.photo(n) for n in range(3))], kind)
    table = arrow.table(
        {"sha": arrow.array([b"\0" * 32] * 5, arrow.binary()), "payload": pictures, "n": list(range(5))}
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    assert list(dime("images", tmp_path / "a.parquet").contents()) == ["row 2", "row 3", "row 4"]
    with pytest.raises(ConfigError, match=r"--column n: in .*a\.parquet it holds int64"):
        dime("images", tmp_path / "a.parquet", "--column", "n", out="b")


def test_several_columns_of_pictures(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Asked for, and taken as asked; part of what a continuation must have in common."""
    left, right = ([make.photo(10 * side + n) for n in range(3)] for side in range(2))
    (tmp_path / "in").mkdir()
    parquet.write_table(arrow.table({"image": left, "img": right}), tmp_path / "in" / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet has pictures in image, img; say with --column"):
        dime("images", tmp_path / "in")
    made = dime("images", tmp_path / "in", "--column", "img")
    assert list(made.contents().values()) == right
    with pytest.raises(DataError, match="from other sources or options"):
        dime("images", tmp_path / "in", "--column", "image")
    with pytest.raises(ConfigError, match=r"--column nix: .* no such column; it has image, img"):
        dime("images", tmp_path / "in" / "a.parquet", "--column", "nix", out="b")


def test_mistakes_are_told(dime: Dime, make: Any, tmp_path: Path) -> None:
    """A table without pictures, a torn one, a TFRecord, a column where there is no table."""
    texts = write_rows(tmp_path / "texts" / "a.parquet", rows_of(make), picture="")
    for words in ([texts], [texts, "--format", "parquet"], [tmp_path / "texts", "--format", "parquet"]):
        with pytest.raises(DataError, match=r"none of its columns holds pictures.*`dime shards texts`"):
            dime("images", *words)
    with pytest.raises(DataError, match="found no pictures in"):
        dime("images", tmp_path / "texts")
    make.folder(tmp_path / "records", {"00000.tfrecord": b"x", "a.jpg": make.photo(1)})
    for source in (tmp_path / "records", tmp_path / "records" / "00000.tfrecord"):
        with pytest.raises(
            DataError, match="is a TFRecord, which is not read; let img2dataset write webdataset, files"
        ):
            dime("images", source)
    folder = make.folder(tmp_path / "loose", {"a.jpg": make.photo(1)})
    with pytest.raises(ConfigError, match="--column jpg: none of the SRC is a parquet table"):
        dime("images", folder, "--column", "jpg")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", [0, 3, 4, 200, 0.5, 0.9, 0.999])
def test_a_torn_table_is_one_error(part: float, dime: Dime, make: Any, tmp_path: Path) -> None:
    """Cut anywhere, named or found in a folder."""
    whole = write_rows(tmp_path / "in" / "a.parquet", rows_of(make))
    data = whole.read_bytes()
    whole.write_bytes(data[: int(part * len(data)) if isinstance(part, float) else part])
    for source in (whole, tmp_path / "in"):
        with pytest.raises(DataError, match=r"a\.parquet is no readable parquet file .*copy it again or leave it out"):
            dime("images", source)


def test_torn_pages_are_one_error(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Zeros in the middle, behind a whole footer; what changed behind our back too; a column name that is no UTF-8."""
    path = write_rows(tmp_path / "a.parquet", rows_of(make, 30, first=10))
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.parquet is no readable parquet file"):
        dime("images", path)
    whole = write_rows(tmp_path / "b.parquet", rows_of(make, 3))
    with pytest.raises(DataError, match="has changed while it was read"):
        parquet_file.Rows(str(whole), ["jpg"]).cell(3, "jpg")
    torn = tmp_path / "c.parquet"
    torn.write_bytes(
        write_rows(tmp_path / "d.parquet", rows_of(make, 3)).read_bytes().replace(b"caption", b"c\xffption")
    )
    with pytest.raises(DataError, match=r"c\.parquet is no readable parquet file"):
        dime("images", torn, out="c")


def test_bytes_changed_anywhere(make: Any, tmp_path: Path) -> None:
    """In the footer or the pages: shards or one of our errors, never pyarrow's or Python's."""
    path = write_rows(tmp_path / "a.parquet", rows_of(make, 6, first=10))
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    rng = np.random.default_rng(0)
    ends: set[str] = set()
    for number in range(80):
        data = bytearray(whole)
        for place in rng.integers(footer if number % 2 else 4, len(whole) - 8, rng.integers(1, 5)).tolist():
            data[place] = int(rng.integers(0, 256))
        path.write_bytes(data)
        try:
            convert_images([str(path)], tmp_path / f"{number}", PictureOptions(keep=("txt", "json")))
            ends.add("shards")
        except (DataError, ConfigError) as error:
            told = str(path) in str(error) or "not one of the pictures can be used" in str(error)
            ends.add("refused" if told else str(error))
    assert ends == {"shards", "refused"}


def test_rows_are_read_in_any_order(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forwards, backwards, across empty row groups; only a few rows are held."""
    monkeypatch.setattr(parquet_file, "BATCH_ROWS", 2)
    rows = rows_of(make, 20, first=10)
    path = tmp_path / "a.parquet"
    schema = arrow.schema([*SCHEMA, ("jpg", arrow.binary())])
    with parquet.ParquetWriter(path, schema) as writer:
        for start, end in ((0, 0), (0, 7), (7, 7), (7, 8), (8, 20), (20, 20)):
            writer.write_table(arrow.Table.from_pylist(rows[start:end], schema))
    found = parquet_file.Rows(str(path), ["jpg"])
    assert found.file.metadata.num_row_groups >= 3
    for row in [0, 6, 7, 8, 19, 18, 17, 9, 3, 3, 2, 0, 11, *range(20)]:
        assert parquet_file.bytes_of(found.cell(row, "jpg")) == rows[row]["jpg"]
        assert found._batch.num_rows <= 2


def test_a_table_is_read_once_forwards(dime: Dime, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row group in many pieces and shards: begun once to be scanned and once to be written."""
    path = write_rows(tmp_path / "a.parquet", rows_of(make, 40, first=10), group=1000)
    whole = dime("images", path, "--samples-per-shard", 3, out="whole")
    begun = []
    real = parquet_file.open_table

    class Counting:
        def __init__(self, path: str) -> None:
            self.file = real(path)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def iter_batches(self, *given: Any, **named: Any) -> Any:
            if given and given[0] == parquet_file.BATCH_ROWS:
                begun.append(given)
            return self.file.iter_batches(*given, **named)

    monkeypatch.setattr(parquet_file, "open_table", Counting)
    monkeypatch.setattr("toolkit.data.convert.listing.PIECE", 7)
    assert dime("images", path, "--samples-per-shard", 3, out="pieces").files() == whole.files()
    assert len(begun) == 2


def test_a_row_group_is_not_held(tmp_path: Path) -> None:
    """Read page by page, whatever the row group's size."""
    path = tmp_path / "a.parquet"
    table = arrow.table({"jpg": [np.random.default_rng(n).bytes(50_000) for n in range(400)]})
    parquet.write_table(table, path, row_group_size=400, write_batch_size=4)
    del table
    before, most = arrow.total_allocated_bytes(), 0
    found = parquet_file.Rows(str(path), ["jpg"])
    for row in range(400):
        assert parquet_file.bytes_of(found.cell(row, "jpg")) == np.random.default_rng(row).bytes(50_000)
        most = max(most, arrow.total_allocated_bytes() - before)
    assert 50_000 < most < path.stat().st_size / 3


def test_a_table_written_anew(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Nothing of the old one is left in this process."""
    path = write_rows(tmp_path / "a.parquet", rows_of(make, 3))
    dime("images", path)
    path.unlink()
    rows = rows_of(make, 3, first=50)
    assert dime("images", write_rows(path, rows), out="anew").contents() == {row["key"]: row["jpg"] for row in rows}


def test_texts_of_a_table_with_pictures(dime: Dime, make: Any, tmp_path: Path) -> None:
    """The same file gives its captions to `dime shards texts`."""
    path = write_rows(tmp_path / "a.parquet", rows_of(make))
    assert [data.decode() for _, _, data in dime("texts", path).samples()] == [f"caption of {n}" for n in range(8)]
    files = {"00000/0.jpg": make.photo(0), "00000/0.txt": b"one caption of it", "00000/0.json": b'{"url": "a b c d"}'}
    made = dime("texts", make.folder(tmp_path / "in", files), out="files")
    assert [data for _, _, data in made.samples()] == [b"one caption of it"]


def test_hostile_footers(dime: Dime, make: Any, tmp_path: Path) -> None:
    """A claim of more rows than bytes is refused before anything is listed."""
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"jpg": arrow.nulls(100_000, arrow.binary())}), path)
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"a\.parquet claims 100000 rows in"):
        dime("images", path)


def test_names_are_only_names(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Keys of any kind: numbers, hostile paths, no UTF-8, none at all."""
    keys = arrow.array([b"../../evil", b"\xff\xfe", None, b"fine"], arrow.binary())
    table = arrow.table({"key": keys, "jpg": [make.photo(n) for n in range(4)]})
    parquet.write_table(table, tmp_path / "a.parquet")
    made = dime("images", tmp_path / "a.parquet")
    assert list(made.contents()) == ["../../evil", "\udcff\udcfe", "row 2", "fine"]
    parquet.write_table(arrow.table({"key": [7, 8], "jpg": [make.photo(n) for n in range(2)]}), tmp_path / "b.parquet")
    assert list(dime("images", tmp_path / "b.parquet", out="b").contents()) == ["7", "8"]
    assert json.loads((made.folder / "index.json").read_text())["version"] == 1

"""`--keep`: what lies beside a picture stays with it, from every kind of source, or the picture is left out."""

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from toolkit.config import Augmentation, Preprocess
from toolkit.data.convert.check import check_folder
from toolkit.data.convert.keep import encoded, kept_fields
from toolkit.data.shards import expand_shards, scan_shard
from toolkit.data.streams import Field, ShardStream, batches
from toolkit.data.texts import TokenReader
from toolkit.data.views import TrainingViews
from toolkit.errors import ConfigError

Dime = Callable[..., Any]
META = b'{\n    "url": "http://x/0",\n    "width": 40\n}'


def fields_of(made: Any) -> dict[str, dict[str, bytes]]:
    """All fields of each sample by its original name; the shards must be without fault."""
    said: list[str] = []
    assert check_folder(made.folder, fast=False, max_pixels=10**6, workers=1, say=said.append)["wrong"] == 0, said
    found: dict[str, dict[str, bytes]] = {}
    for entry in made.index:
        shard = scan_shard(made.folder / entry["name"])
        names = (made.folder / "names" / entry["name"]).with_suffix(".jsonl").read_text().splitlines()
        for row, line in enumerate(names):
            extensions = [e for e in shard.extensions if shard.extension_of(row, [e])]
            found[json.loads(line)["name"]] = {e: shard.read(row, e) for e in extensions}
    return found


def samples(make: Any, count: int = 5, first: int = 0) -> dict[str, bytes]:
    """As img2dataset has them: three files of one name."""
    members: dict[str, bytes] = {}
    for n in range(first, first + count):
        members |= {f"{n:09d}.jpg": make.photo(n), f"{n:09d}.txt": b"caption %d" % n, f"{n:09d}.json": META}
    return members


def expected(members: dict[str, bytes], fields: tuple[str, ...], ending: str = "") -> dict[str, dict[str, bytes]]:
    """The same, sample by sample."""
    keys = dict.fromkeys(name.partition(".")[0] for name in members)
    return {f"{key}{ending}": {field: members[f"{key}.{field}"] for field in fields} for key in keys}


def test_webdataset(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Bytes as they were; without --keep as ever."""
    path = make.tar(tmp_path / "00000.tar", samples(make))
    words = [path, "--samples-per-shard", 2]
    both = dime("images", *words, "--keep", "txt,json", out="both")
    assert fields_of(both) == expected(samples(make), ("jpg", "txt", "json"))
    assert fields_of(dime("images", *words, "--keep", "txt", out="txt")) == expected(samples(make), ("jpg", "txt"))
    assert fields_of(dime("images", *words, out="none")) == expected(samples(make), ("jpg",))
    renamed = fields_of(dime("images", *words, "--keep", "about=json", out="renamed"))
    assert {field for sample in renamed.values() for field in sample} == {"jpg", "about"}


def test_files(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Beside each picture of a folder, a dot in its name or not."""
    members = samples(make)
    folder = make.folder(tmp_path / "in", {f"00000/{name}": data for name, data in members.items()})
    made = fields_of(dime("images", folder, "--keep", "txt,json"))
    assert {name.rpartition("/")[2]: sample for name, sample in made.items()} == expected(
        members, ("jpg", "txt", "json"), ".jpg"
    )
    make.folder(tmp_path / "dots", {"a.v2.jpg": make.photo(1), "a.v2.caption": b"two dots", "a.caption": b"other"})
    assert fields_of(dime("images", tmp_path / "dots", "--keep", "txt", out="b"))["a.v2.jpg"]["txt"] == b"two dots"


def test_parquet(dime: Dime, make: Any, tmp_path: Path) -> None:
    """caption becomes txt, json all that is no bytes; columns by name; the first of several captions; classes."""
    columns: dict[str, Any] = {"key": [f"k{n}" for n in range(4)], "jpg": [make.photo(n) for n in range(4)]}
    columns |= {"caption": [f"überall {n}" for n in range(4)], "score": [0.5, float("nan"), None, 1.0]}
    columns |= {"label": [0, 1, 2, 3], "many": [["first", "second"]] * 4, "when": np.array(["2020-01-01"] * 4, "M8[D]")}
    columns |= {"sha": arrow.array([b"\xff"] * 4, arrow.binary())}
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table(columns), path, row_group_size=3)
    made = fields_of(dime("images", path, "--keep", "txt,json,cls=label,alt=many"))
    assert [sample["txt"].decode() for sample in made.values()] == columns["caption"]
    assert [sample["cls"] for sample in made.values()] == [b"0", b"1", b"2", b"3"]
    assert {sample["alt"] for sample in made.values()} == {b'["first", "second"]'}
    about = json.loads(made["k1"]["json"])
    assert about == {"key": "k1", "caption": "überall 1", "score": None, "label": 1} | {
        "many": ["first", "second"],
        "when": "2020-01-01",
    }
    several = fields_of(dime("images", path, "--keep", "txt=many", out="b"))
    assert {sample["txt"] for sample in several.values()} == {b"first"}


def test_hugging_face_with_its_caption(dime: Dime, make: Any, tmp_path: Path) -> None:
    """A struct of the picture, words beside it."""
    pictures = [{"bytes": make.photo(n), "path": f"{n}.jpg"} for n in range(4)]
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"image": pictures, "text": [f"words {n}" for n in range(4)]}), path)
    made = fields_of(dime("images", path, "--keep", "txt"))
    assert made == {f"{n}.jpg": {"jpg": make.photo(n), "txt": b"words %d" % n} for n in range(4)}


BAD = {
    "missing": (None, "txt_missing"),
    "empty": (b"", "txt_empty"),
    "blank": (b" \n", "txt_empty"),
    "latin-1": (b"caf\xe9", "txt_not_utf8"),
    "nul": (b"a\0b", "txt_nul_in_text"),
    "long": (b"a b " * 20_000, "txt_too_many_bytes"),
}
"""What a run could not read, and why the picture is left out then."""


@pytest.mark.parametrize("dedupe", ["exact", "none"])
@pytest.mark.parametrize("kind", ["webdataset", "folder", "parquet"])
def test_a_picture_without_its_caption_is_left_out(
    kind: str, dedupe: str, dime: Dime, make: Any, tmp_path: Path
) -> None:
    """Counted by reason; one with the same bytes and a caption behind it is not pushed out by it."""
    rows = [(f"bad{n}", make.photo(n), text) for n, (text, _) in enumerate(BAD.values())]
    rows += [(f"good{n}", make.photo(n), b"words") for n in range(3)]
    files = {f"{key}.jpg": picture for key, picture, _ in rows} | {
        f"{key}.txt": t for key, _, t in rows if t is not None
    }
    if kind == "folder":
        path = make.folder(tmp_path / "in", files)
    elif kind == "webdataset":
        path = make.tar(tmp_path / "a.tar", dict(sorted(files.items())))
    else:
        path = tmp_path / "a.parquet"
        table = {"key": [key for key, _, _ in rows], "jpg": [picture for _, picture, _ in rows]}
        parquet.write_table(arrow.table(table | {"txt": arrow.array([t for _, _, t in rows], arrow.binary())}), path)
    made = dime("images", path, "--keep", "txt", "--dedupe", dedupe)
    ending = ".jpg" if kind == "folder" else ""
    assert set(fields_of(made)) == {f"good{n}{ending}" for n in range(3)}
    assert made.reasons == {f"bad{n}{ending}": reason for n, (_, reason) in enumerate(BAD.values())}


def test_bad_metadata_and_classes(dime: Dime, make: Any, tmp_path: Path) -> None:
    """No JSON, no number; a string column that is no UTF-8; a date outside the calendar."""
    members = samples(make, 3) | {"000000001.json": b"{", "000000002.json": b""}
    made = dime("images", make.tar(tmp_path / "a.tar", members), "--keep", "json")
    assert made.reasons == {"000000001": "json_bad_json", "000000002": "json_empty"}
    table = arrow.table(
        {"jpg": [make.photo(n) for n in range(3)], "txt": ["word_a", "word_b", "word_c"], "label": [-1, 1, 2]}
    )
    dates = arrow.array([2**62, 0, 0], arrow.int64()).cast(arrow.timestamp("us"))
    parquet.write_table(
        table.append_column("when", dates), tmp_path / "a.parquet", use_dictionary=False, compression="none"
    )
    data = (tmp_path / "a.parquet").read_bytes().replace(b"word_b", b"word\xff\xff")
    (tmp_path / "a.parquet").write_bytes(data)
    made = dime("images", tmp_path / "a.parquet", "--keep", "txt,cls=label", out="b")
    assert made.reasons == {"row 0": "cls_no_class_number", "row 1": "txt_not_utf8"}
    made = dime("images", tmp_path / "a.parquet", "--keep", "json", out="c")
    assert made.reasons == {"row 0": "json_unreadable", "row 1": "json_not_utf8"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("jpg", "a sample has one picture"),
        ("pkl", "other loaders run code from pkl"),
        ("txt,txt=alt", "names txt twice"),
        ("seg.png", "give fields as txt,json"),
        ("../x", "give fields as txt,json"),
        ("txt=", "give fields as txt,json"),
    ],
)
def test_fields_that_cannot_be(words: str, said: str, dime: Dime, tmp_path: Path) -> None:
    """Before any source is looked at."""
    with pytest.raises(ConfigError, match=said):
        dime("images", tmp_path, "--keep", words)


def test_sources_that_have_no_such_field(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Told before anything is written, so that the same folder can be used."""
    tsv = make.tsv(tmp_path / "a.tsv", [("a", make.photo(1))])
    with pytest.raises(ConfigError, match=r"--keep txt: .*a\.tsv is a TSV, which holds pictures alone"):
        dime("images", tsv, "--keep", "txt")
    tar = make.tar(tmp_path / "b.tar", {"a.jpg": make.photo(1), "a.text": b"of another tool"})
    with pytest.raises(ConfigError, match=r"b\.tar seems to hold pictures alone.*--format webdataset"):
        dime("images", tar, "--keep", "txt")
    path = tmp_path / "c.parquet"
    parquet.write_table(arrow.table({"jpg": [make.photo(1)], "alt": ["x"], "title": ["y"], "text": ["z"]}), path)
    for words in ("txt", "cls", "txt=nix"):
        with pytest.raises(
            ConfigError, match=r"has the columns jpg, alt, title, text; say which one it is with --keep"
        ):
            dime("images", path, "--keep", words)
    assert not (tmp_path / "out").exists()
    assert fields_of(dime("images", tar, "--keep", "txt", "--format", "webdataset"))["a"]["txt"] == b"of another tool"
    assert fields_of(dime("images", path, "--keep", "txt=alt", out="alt"))["row 0"]["txt"] == b"x"


def test_an_unfinished_conversion_of_before_goes_on(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Nothing about fields stands in the request where none are kept; with them they are part of it."""
    path = make.tar(tmp_path / "00000.tar", samples(make))
    assert "keep" not in dime("images", path).report["request"]["options"]
    kept = dime("images", path, "--keep", "txt", out="kept")
    assert kept.report["request"]["options"]["keep"] == ["txt"]
    assert dime("images", path, "--keep", "txt", out="kept").files() == kept.files()


def test_a_run_reads_them_as_pairs(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Each picture with its own caption, none skipped: flat grey ones, whose caption says how grey."""
    greys = []
    for number in range(12):
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16), (20 * number,) * 3).save(buffer, "PNG")
        greys.append(buffer.getvalue())
    table = {"png": greys[::-1], "caption": [chr(20 * number + 300) for number in reversed(range(12))]}
    parquet.write_table(arrow.table(table), tmp_path / "a.parquet", row_group_size=5)
    made = dime("images", tmp_path / "a.parquet", "--keep", "txt", "--samples-per-shard", 4)

    def letters(texts: list[str]) -> torch.Tensor:
        return torch.tensor([ord(text) for text in texts])

    views = TrainingViews(Preprocess(image_size=8), {}, Augmentation(), "plain", 10**6)
    fields = [Field(["jpg", "png"], views), Field(["txt"], TokenReader({"tokens": letters}))]
    paths = expand_shards(str(made.folder), asked_by="data.pairs")
    stream = ShardStream("data.pairs", paths, fields, seed=0, window_shards=2, max_skip_fraction=0.0)
    seen = []
    for batch in itertools.islice(batches(stream, 6, rank=0, world=1, first_step=0, workers=0), 2):
        assert not batch.skipped
        pixels = batch.tensors["student_images"].flatten(1).float().mean(1)
        assert (pixels - (batch.tensors["tokens"].reshape(-1) - 300)).abs().max() < 1
        seen += pixels.round().tolist()
    assert sorted(seen) == [20.0 * number for number in range(12)]


def test_values_of_tables() -> None:
    """As words, as JSON, never as Python writes them."""
    assert kept_fields(("txt=Alt Text",))[0].source == "Alt Text"
    assert encoded("txt", [None, "b"]) == b"b" and encoded("cls", 3) == b"3" and encoded("x", True) == b"true"
    assert encoded("json", {"a": [float("inf"), b"x", {"b": None}]}) == b'{"a": [null, null, {"b": null}]}'

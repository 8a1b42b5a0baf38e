"""Sentences of every kind of source, and the prompts that are made of class names."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from toolkit.data.convert.prompts import class_sets, shipped, shipped_names
from toolkit.errors import ConfigError, DataError

Dime = Callable[..., Any]
WORDS = ["a dog runs on grass", "two cats sleep on a sofa", "übergroße Äpfel auf dem Tisch"]


def texts(made: Any) -> list[str]:
    """In order."""
    assert {extension for _, extension, _ in made.samples()} <= {"txt"}
    return [data.decode() for _, _, data in made.samples()]


def write(path: Path, content: str | bytes) -> Path:
    """With its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet_of(path: Path, columns: dict[str, list[Any]]) -> Path:
    """As img2dataset writes it."""
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_plain_text(dime: Dime, tmp_path: Path) -> None:
    """One per line, any line end, gzip too; empty lines are nothing."""
    path = write(tmp_path / "a.txt", "\n\n".join(WORDS) + "\r\n")
    assert texts(dime("texts", path)) == WORDS
    assert texts(dime("texts", write(tmp_path / "a.txt.gz", gzip.compress(path.read_bytes())), out="b")) == WORDS


def test_tables(dime: Dime, tmp_path: Path) -> None:
    """The usual column is found, another is asked for; quotes, commas and line breaks inside a field; parquet, CSV, JSON."""
    quoted = ["a dog, a cat", 'he said "no" to all', "two\nlines of text"]
    csv_path = write(
        tmp_path / "a.csv", 'id,caption\n1,"a dog, a cat"\n2,"he said ""no"" to all"\n3,"two\nlines of text"\n'
    )
    assert texts(dime("texts", csv_path)) == quoted
    file = parquet_of(tmp_path / "a.parquet", {"url": ["u"] * 3, "caption": WORDS})
    assert texts(dime("texts", file, out="parquet")) == WORDS
    file = write(
        tmp_path / "a.jsonl",
        "".join(json.dumps({"n": 1, "text": word}) + "\n" for word in WORDS) + '"a bare string here"\n',
    )
    assert texts(dime("texts", file, out="jsonl")) == [*WORDS, "a bare string here"]
    file = write(
        tmp_path / "a.json", json.dumps({str(n): {"filename": "x", "caption": word} for n, word in enumerate(WORDS)})
    )
    assert texts(dime("texts", file, out="json")) == WORDS
    file = write(tmp_path / "b.tsv", "file\tname\tgroup\n" + "".join(f"x\t{word}\tg\n" for word in WORDS))
    assert texts(dime("texts", file, "--column", "name", out="tsv")) == WORDS
    file = write(tmp_path / "headless.csv", "".join(f"x,{word}\n" for word in WORDS))
    assert texts(dime("texts", file, "--column", "1", out="headless")) == WORDS


def test_an_unclear_column_is_asked_for(dime: Dime, tmp_path: Path) -> None:
    """The message lists what there is."""
    file = parquet_of(tmp_path / "a.parquet", {"title": WORDS, "alt": WORDS, "text": WORDS})
    with pytest.raises(ConfigError, match=r"has the columns title, alt, text; say with --column"):
        dime("texts", file)
    with pytest.raises(ConfigError, match=r"--column caption: .* no such column; it has title, alt, text"):
        dime("texts", file, "--column", "caption", out="b")
    with pytest.raises(ConfigError, match=r"has 3 columns and no \.lineidx"):
        dime("texts", write(tmp_path / "x.tsv", "a\tb\tc\n1\t2\t3\n"), out="c")


def test_img2dataset_captions(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Its parquet, or the txt beside each picture of its tars."""
    members: dict[str, bytes] = {}
    for n, word in enumerate(WORDS):
        members |= {f"{n:09d}.jpg": make.photo(n), f"{n:09d}.txt": word.encode(), f"{n:09d}.json": b"{}"}
    make.tar(tmp_path / "in" / "00000.tar", members)
    write(tmp_path / "in" / "00000_stats.json", "{}")
    made = dime("texts", tmp_path / "in")
    assert texts(made) == WORDS and list(made.contents()) == [f"{n:09d}" for n in range(3)]
    parquet_of(tmp_path / "in" / "00000.parquet", {"caption": [*WORDS, None], "url": ["u"] * 4})
    both = dime("texts", tmp_path / "in", out="both")
    assert texts(both) == WORDS and both.report["left_out"] == {"duplicate": 3, "empty_text": 1}


TSV_ROWS = [
    ("plain", "a dog on the grass", ["a dog on the grass"]),
    ("string", '"a quoted caption here"', ["a quoted caption here"]),
    (
        "captions",
        '{"captions": ["first of two captions", "second of two captions"]}',
        ["first of two captions", "second of two captions"],
    ),
    ("caption", '{"caption": "only one caption", "tags": ["cat"]}', ["only one caption"]),
    ("list", '[{"captions": "in a list"}, {"caption": "never seen by anyone"}]', ["in a list"]),
    ("number", "2012", ["2012"]),
    ("true", "true", ["true"]),
    ("trap", '"a caption with the word captions and tags"', ["a caption with the word captions and tags"]),
    ("person", "[unused0] rides a horse", ["person rides a horse"]),
    ("broken", '{"captions": ["not quite json', ['{"captions": ["not quite json']),
]
"""Each with the rule of the released loader that it exercises; `number`, `true` and `trap` kill that loader."""


def test_tsv_decoding_rules(dime: Dime, make: Any, tmp_path: Path) -> None:
    """In order, with nothing raised where the loader would die."""
    file = make.tsv(tmp_path / "text_00.tsv", [(key, column) for key, column, _ in TSV_ROWS])
    made = dime("texts", file, "--min-words", 0, "--dedupe", "none")
    assert [(name, data.decode()) for name, _, data in made.samples()] == [
        (k, t) for k, _, found in TSV_ROWS for t in found
    ]
    first = dime("texts", file, "--min-words", 0, "--captions", "first", out="first")
    assert len(first.samples()) == len(TSV_ROWS) and first.reasons == {"captions": "other_caption"}


def test_tsv_tags_become_prompts(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Of one of the 81 templates each, the same whenever the file is read; commas go, + is a space."""
    rows = [("a", '{"tags": ["ice+cream, cold", "dog"]}'), ("b", '{"task": "classification", "class_name": "hot dog"}')]
    file = make.tsv(tmp_path / "text_00.tsv", rows)
    found = texts(dime("texts", file, "--min-words", 0))
    assert len(found) == 3 and all(
        name in text for name, text in zip(["ice cream cold", "dog", "hot dog"], found, strict=True)
    )
    assert texts(dime("texts", file, "--min-words", 0, out="again")) == found


def test_bad_sentences_are_counted_by_reason(dime: Dime, make: Any, tmp_path: Path) -> None:
    """Each kind of file in its own way."""
    rows = [("none", '{"url": "x"}'), ("empty_list", "[]"), ("null", "null"), ("blank", "  "), ("short", "two words")]
    file = make.tsv(tmp_path / "text_00.tsv", [*rows, ("long", " ".join("word" * 9)), ("good", "just four words here")])
    with open(file, "ab") as more:
        more.write(b"latin\tcaf\xe9 on the corner\nno column\n")
    made = dime("texts", file, "--max-words", 10)
    assert made.reasons == {
        **{"none": "no_caption", "empty_list": "empty_list", "null": "no_caption", "blank": "empty_text"},
        **{"short": "too_few_words", "long": "too_many_words", "latin": "not_utf8", "row 8": "no_second_column"},
    }
    lines = write(
        tmp_path / "a.jsonl",
        b'{"text": "four good words here"}\n{"text": \n{"text": 3}\n{"other": "x"}\n{"text": "caf\xe9"}\n',
    )
    assert dime("texts", lines, out="jsonl").report["left_out"] == {
        "bad_json": 1,
        "empty_text": 1,
        "not_text": 1,
        "not_utf8": 1,
    }
    table = write(tmp_path / "a.csv", b"id,text\n1,four good words here\n2\n3,caf\xe9 on the corner\n4,\n")
    assert dime("texts", table, out="csv").report["left_out"] == {"empty_text": 1, "not_utf8": 1, "too_few_columns": 1}


@pytest.mark.parametrize(("dedupe", "stay"), [("none", 5), ("exact", 4), ("near", 2)])
def test_duplicates(dedupe: str, stay: int, dime: Dime, tmp_path: Path) -> None:
    """Exact: white space does not count; near: case and punctuation neither. The first stays as it was written."""
    found = ["A dog,  running!", "A dog, running!", "a dog running", "A DOG RUNNING", "a dog walking"]
    made = dime("texts", write(tmp_path / "a.txt", "\n".join(found)), "--dedupe", dedupe)
    assert len(made.samples()) == stay and texts(made)[0] == "A dog,  running!"


def test_all_of_clips_template_sets_are_shipped() -> None:
    """27 with their class names, licence beside them; ELEVATER's 20 by their own names."""
    known = shipped()
    assert len(known["sets"]) == 27 and len(known["elevater"]) == 20 and "MIT" in known["licence"]
    assert all(
        entry["classnames"] and all(t.count("{}") == 1 for t in entry["templates"]) for entry in known["sets"].values()
    )
    assert len(known["sets"]["ImageNet"]["templates"]) == 80 and len(known["sets"]["ImageNet"]["classnames"]) == 1000
    assert shipped_names("food-101") == shipped_names("Food101") == ["Food101"] and shipped_names("imagenet-1k") == [
        "ImageNet"
    ]
    assert len(shipped_names("clip")) == 27 and len(shipped_names("elevater")) == 20 and shipped_names("fod101") == []
    assert sum(len(names) * len(templates) for _, names, templates in class_sets("elevater", "")) > 9_900


def test_class_names_times_templates(dime: Dime, tmp_path: Path) -> None:
    """A classes file as evaluation sets have it, lines of names, shipped sets; length filters do not touch them."""
    classes = write(tmp_path / "classes.json", json.dumps({"classnames": ["dog", "cat"], "templates": ["a {}.", "{}"]}))
    assert texts(dime("texts", classes)) == ["a dog.", "dog", "a cat.", "cat"]
    names = write(tmp_path / "names.txt", "dog\ncat\n")
    made = dime("texts", "--classnames", names, "--templates", "stl10", out="b")
    assert texts(made) == ["a photo of a dog.", "a photo of the dog.", "a photo of a cat.", "a photo of the cat."]
    assert next(iter(made.contents())) == "names.txt: dog | a photo of a {}."
    assert len(dime("texts", "--classnames", "cifar-10", out="c").samples()) == 180
    mixed = dime("texts", write(tmp_path / "a.txt", "a heap of sentences"), "--classnames", "mnist", out="d")
    assert texts(mixed)[0] == "a heap of sentences" and len(mixed.samples()) == 11


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--classnames", "fod101"],
            "--classnames fod101 is neither a file nor a set; known: clip, elevater, Birdsnap",
        ),
        (["--classnames", "stl10", "--templates", "nothing"], "--templates nothing is neither a file nor a set"),
        (["--templates", "stl10"], "nothing to convert; give SRC, or --classnames"),
    ],
)
def test_unknown_sets(words: list[str], said: str, dime: Dime) -> None:
    """With what is known."""
    with pytest.raises(ConfigError, match=said):
        dime("texts", *words)


def test_mistakes_are_told(dime: Dime, make: Any, tmp_path: Path) -> None:
    """What was asked, what was found, what to do."""
    with pytest.raises(DataError, match="its rows hold pictures; give it to `dime shards images`"):
        dime("texts", make.tsv(tmp_path / "image_00.tsv", [("a", make.photo(1))]))
    with pytest.raises(DataError, match="cannot tell what it is; name it with --format"):
        dime("texts", write(tmp_path / "words", "a b c"))
    with pytest.raises(DataError, match="is no readable parquet file"):
        dime("texts", write(tmp_path / "x.parquet", "PAR1"), out="b")
    with pytest.raises(DataError, match="found no sentences in"):
        dime("texts", make.folder(tmp_path / "pictures", {"a.jpg": b"x"}), out="c")
    with pytest.raises(ConfigError, match=r"--max-words \(2\) is below --min-words \(3\)"):
        dime("texts", tmp_path, "--max-words", 2)


def test_pieces_are_bounded(dime: Dime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spools of another size give the same shards, without the white space around."""
    file = write(tmp_path / "a.txt", "".join(f"  sentence number {n % 23} \n" for n in range(40)))
    whole = dime("texts", file, "--samples-per-shard", 5)
    monkeypatch.setattr("toolkit.data.convert.sentence_job.PIECE", 7)
    assert dime("texts", file, "--samples-per-shard", 5, out="pieces").files() == whole.files()
    assert len(whole.samples()) == 23 and texts(whole)[0] == "sentence number 0"

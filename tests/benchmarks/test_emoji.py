"""The emoji benchmark's data on a few rows of its own: halves share no concept, and no picture stands by its sentence."""

import io
import random
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import emoji
from benchmarks.emoji_models import (
    JUDGED_ON,
    SIDE,
    TRAINED_ON,
    Row,
    base_name,
    concepts_of,
    family,
    images,
    judged,
    pairs,
    pick,
    read_pictures,
    read_rows,
    sentence,
    split,
    texts,
)

NAMES = (
    ["hash sign", "keycap: 1", "keycap: 2", "tent", "lion", "man's shoe", "people hugging"]
    + [f"{who} running{tone}" for who in ("man", "woman", "person") for tone in ("", ": dark skin tone")]
    + ["man: red hair", "man: light skin tone, red hair", "man running: dark skin tone, facing right"]
)


def rows() -> list[Row]:
    """Both artists drew everything but the hash sign."""
    return [
        Row(f"{artist}/{number}.png", name, ("drawn", *name.split()), "Objects" if number % 2 else "People")
        for artist in (TRAINED_ON, JUDGED_ON)
        for number, name in enumerate(NAMES)
        if artist == TRAINED_ON or name != "hash sign"
    ]


@pytest.mark.parametrize(
    ("name", "base", "kin"),
    [
        ("man: light skin tone, red hair", "man: red hair", "red hair"),
        ("woman running: dark skin tone, facing right", "woman running", "running"),
        (
            "woman and man holding hands: dark skin tone, light skin tone",
            "woman and man holding hands",
            "holding hands",
        ),
        ("kiss: man, man, light skin tone", "kiss", "kiss"),
        ("handshake: light skin tone, dark skin tone", "handshake", "handshake"),
        ("health worker", "health worker", "health worker"),
        ("man health worker", "man health worker", "health worker"),
        ("keycap: 1", "keycap: 1", "keycap: 1"),
        ("man's shoe", "man's shoe", "man's shoe"),
        ("person", "person", "person"),
    ],
)
def test_variants_have_one_base_and_sexes_one_family(name: str, base: str, kin: str) -> None:
    assert (base_name(name), family(name)) == (base, kin)


def test_no_concept_and_no_family_stands_in_both_halves() -> None:
    concepts = concepts_of(rows())
    for seed in range(20):
        halves = split(concepts, seed)
        assert sorted(c.name for half in halves.values() for c in half) == sorted(c.name for c in concepts)
        for found in (base_name, family):
            a, b = ({found(row.name) for c in half for row in c.drawn} for half in halves.values())
            assert a and b and not a & b
        assert abs(len(halves["a"]) - len(halves["b"])) <= 3  # a family of three is not divided


def test_the_judged_picture_is_the_other_artists_and_plain() -> None:
    concepts = {c.name: c for c in concepts_of(rows())}
    assert concepts["hash sign"].judged is None
    assert all(c.judged.artist == JUDGED_ON and c.judged.name == c.name for c in concepts.values() if c.judged)
    assert [row.name for row in concepts["man running"].drawn] == [n for n in NAMES if n.startswith("man running")]
    assert all(row.artist == TRAINED_ON for c in concepts.values() for row in c.drawn)


def test_sentences_tell_only_of_their_row() -> None:
    rng = random.Random(0)
    row = Row("x/1.png", "tent", ("camping", "tent", "summer"), "Travel")
    said = [sentence(row, rng) for _ in range(300)]
    allowed = {"tent", "camping", "summer", "travel", "an", "emoji", "of", "a", "picture", "small", "drawing"}
    assert {word.strip(",:").lower() for line in said for word in line.split()} == allowed
    assert "tent" in said and all(line.strip() for line in said)
    assert sentence(Row("x/2.png", "ox", (), ""), rng)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """captions.tsv and both tars, 16-pixel squares with a transparent rim."""
    lines = ["file\tcodepoints\tname\tkeywords\tgroup"]
    lines += [f"{r.file}\t1f600\t{r.name}\t{'|'.join(r.keywords)}\t{r.group}" for r in rows()]
    (tmp_path / "captions.tsv").write_text("\n".join(lines) + "\n")
    picture = Image.new("RGBA", (16, 16))
    picture.paste((200, 30, 30, 255), (4, 4, 12, 12))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    for artist in (TRAINED_ON, JUDGED_ON):
        with tarfile.open(tmp_path / f"{artist}.tar", "w") as tar:
            for row in rows():
                if row.artist == artist:
                    member = tarfile.TarInfo(row.file)
                    member.size = len(buffer.getvalue())
                    tar.addfile(member, io.BytesIO(buffer.getvalue()))
    return tmp_path


def test_samples(pool: Path) -> None:
    assert read_rows(pool / "captions.tsv") == rows()
    concepts = concepts_of(read_rows(pool / "captions.tsv"))
    halves, rng = split(concepts), random.Random(0)
    pictures = read_pictures(pool, rows())
    words = {half: {c.name for c in members} for half, members in halves.items()}

    paired = list(pairs(halves["a"], pictures, 3, rng))
    assert len(paired) == 3 * len(halves["a"]) == len({sample["__key__"] for sample in paired})
    assert Image.open(io.BytesIO(paired[0]["jpg"])).size == (SIDE, SIDE)
    assert all(set(sample) == {"__key__", "jpg"} for sample in images(halves["a"], pictures, 2, rng))

    said = [sample["txt"] for sample in texts(halves["b"], 4, rng)]
    assert len(said) == 4 * len(halves["b"]) and words["b"] <= set(said) and not words["a"] & set(said)

    shown = list(judged(halves["a"], pictures, ["Objects", "People"]))
    assert {sample["txt"] for sample in shown} == words["a"] - {"hash sign"}
    assert Image.open(io.BytesIO(shown[0]["png"])).getpixel((0, 0)) == (255, 255, 255)  # transparent became white


def test_plain_pictures_are_half_of_what_is_picked() -> None:
    concept = next(c for c in concepts_of(rows()) if c.name == "man running")
    rng = random.Random(0)
    share = sum(pick(concept, rng).name == concept.name for _ in range(1000)) / 1000
    assert 0.6 < share < 0.75  # a half, and a third of the other half


def test_the_launches_resolve_and_share_no_half(tmp_path: Path) -> None:
    import importlib

    from toolkit import config

    found = {}
    for name, (recipe, *overrides) in emoji.launches(tmp_path, 300, 400).items():
        defaults = importlib.import_module(f"recipes.{recipe.removesuffix('.py')}").DEFAULTS
        found[name] = config.resolve(defaults, [f"out_dir={tmp_path / name}", *overrides])
    student = found["student"]
    assert student.data.images.endswith("images_a") and student.data.texts.endswith("texts_b")
    assert not student.data.pairs and student.teacher.name.endswith("teacher/checkpoints/step_00000400")
    assert found["contrastive"].data.pairs.endswith("pairs_a") and "pairs_b" in found["teacher"].data.pairs
    assert found["contrastive"].student.kwargs["width"] == student.student.kwargs["width"]
    assert {name: run.steps for name, run in found.items()} == {"teacher": 400, "student": 300, "contrastive": 200}
    assert all(set(run.evaluation.sets) == {"all", "a", "b", "scenes"} for run in found.values())


def test_the_result_says_how_far_both_requirements_are_met() -> None:
    ways = [f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]
    row = {**dict.fromkeys(ways, 20.0), "top1": 30.0, "top5": 60.0}
    rows = {name: {"teacher": row, "student": {**row, ways[2]: 15.0}} for name in ("all", "a", "b", "scenes")}
    said = emoji.requirements(rows["all"], pictures=1000)
    assert "image_to_text_r10: the teacher's is 20.0 times chance (wanted 5), the student's 75.0 % of" in said
    assert "| B (sentences seen) | student | 20.0 |" in emoji.table(rows)

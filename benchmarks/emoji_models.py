"""What the models of benchmarks/emoji.py learn from and are judged on: concepts, halves, pictures, sentences, shards."""

import csv
import io
import json
import random
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
from PIL import Image, ImageEnhance

from toolkit.data.shards import write_shards

TRAINED_ON, JUDGED_ON = "noto_png72", "fluent_3d_png72"
SIDE = 36
"""Pixels of a training picture on disk; the towers see a crop of it at 32."""
VIEWS = 16
"""Training pictures per concept on disk; twice as many of half A without text."""
VOCABULARY = 2000
TEMPLATES = ("{}", "an emoji of {}", "a picture of {}", "a small drawing of {}")


@dataclass(frozen=True)
class Row:
    """One line of captions.tsv."""

    file: str
    name: str
    keywords: tuple[str, ...]
    group: str

    @property
    def artist(self) -> str:
        """Folder of the picture."""
        return self.file.split("/")[0]


@dataclass
class Concept:
    """What pictures of all skin tones and directions have in common."""

    name: str
    drawn: list[Row]
    """By the artist trained on."""
    judged: Row | None
    """By the other artist, without skin tone; None: that artist did not draw it."""


def base_name(name: str) -> str:
    """`man: light skin tone, red hair` -> `man: red hair`: the name without skin tones and without the direction."""
    head, _, tail = name.partition(": ")
    kept = [part for part in tail.split(", ") if part and "skin tone" not in part and "facing" not in part]
    if re.match(r"kiss|couple with heart|handshake", head):
        kept = []
    return ": ".join([head, ", ".join(kept)]) if kept else head


def family(name: str) -> str:
    """What must stay on one side of the split: the base name without the person's sex (`man running` -> `running`)."""
    return re.sub(r"^(?:wom[ae]n|m[ae]n|person|people)(?: and m[ae]n)?(?:: | )", "", base_name(name))


def read_rows(path: Path) -> list[Row]:
    """Every line of captions.tsv."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [
        Row(line["file"], line["name"], tuple(filter(None, line["keywords"].split("|"))), line["group"])
        for line in lines
    ]


def concepts_of(rows: Sequence[Row]) -> list[Concept]:
    """Rows by base name; concepts that the artist trained on did not draw are left out."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(base_name(row.name), []).append(row)
    concepts = []
    for name, members in sorted(found.items()):
        drawn = [row for row in members if row.artist == TRAINED_ON]
        plain = [row for row in members if row.artist == JUDGED_ON and row.name == name]
        if drawn:
            concepts.append(Concept(name, drawn, plain[0] if plain else None))
    return concepts


def split(concepts: Sequence[Concept], seed: int = 0) -> dict[str, list[Concept]]:
    """Halves A and B of about as many concepts; a family is never divided."""
    families: dict[str, list[Concept]] = {}
    for concept in concepts:
        families.setdefault(family(concept.name), []).append(concept)
    order = sorted(families)
    random.Random(seed).shuffle(order)
    halves: dict[str, list[Concept]] = {"a": [], "b": []}
    for name in order:
        min(halves.values(), key=len).extend(families[name])
    return halves


def sentence(row: Row, rng: random.Random) -> str:
    """One way to say what a picture shows: its name, in a template, with some keywords or its group, or keywords alone."""
    words = list(row.keywords)
    rng.shuffle(words)
    some = ", ".join(words[: rng.randint(2, 4)])
    kind = rng.choice(("name", "template", "keywords", "both", "group"))
    if kind == "keywords" and len(words) > 1:
        return some
    if kind == "both" and words:
        return f"{row.name}, {some}"
    if kind == "group" and row.group:
        return rng.choice(TEMPLATES).format(rng.choice((f"{row.name}, {row.group}", row.group, f"{row.group}: {some}")))
    return row.name if kind == "name" else rng.choice(TEMPLATES).format(row.name)


def pick(concept: Concept, rng: random.Random) -> Row:
    """The plain picture half of the time, else any variant."""
    plain = [row for row in concept.drawn if row.name == concept.name]
    return rng.choice(plain if plain and rng.random() < 0.5 else concept.drawn)


def on_colour(picture: Image.Image, colour: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """RGB, transparency laid onto a colour."""
    ground = Image.new("RGB", picture.size, colour)
    ground.paste(picture, mask=picture.getchannel("A"))
    return ground


def varied(picture: Image.Image, rng: random.Random, wild: float = 0.1) -> Image.Image:
    """A training view at SIDE pixels: recoloured (`wild`: how often in any hue), turned, scaled, mostly on white."""
    turn = rng.randrange(256) if rng.random() < wild else rng.randint(-10, 10)
    h, s, v = picture.convert("RGB").convert("HSV").split()
    drawn = Image.merge("HSV", (h.point([(i + turn) % 256 for i in range(256)]), s, v)).convert("RGB")
    for enhancer in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        drawn = enhancer(drawn).enhance(rng.uniform(0.6, 1.4))
    drawn.putalpha(picture.getchannel("A"))
    inner = round(SIDE * rng.uniform(0.75, 1.0))
    drawn = drawn.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR).resize((inner, inner))
    place = Image.new("RGBA", (SIDE, SIDE))
    place.paste(drawn, (rng.randint(0, SIDE - inner), rng.randint(0, SIDE - inner)))
    return on_colour(place, (255, 255, 255) if rng.random() < 0.75 else tuple(rng.randrange(256) for _ in range(3)))


def mixed(first: Image.Image, second: Image.Image, rng: random.Random) -> Image.Image:
    """A picture nobody drew: two halves, one inside the other, or both shining through."""
    kind = rng.choice(("halves", "inside", "blend"))
    if kind == "blend":
        return Image.blend(first, second, rng.uniform(0.2, 0.5))
    joined = first.copy()
    if kind == "inside":
        side = rng.randint(SIDE // 3, 2 * SIDE // 3)
        joined.paste(second.resize((side, side)), (rng.randint(0, SIDE - side), rng.randint(0, SIDE - side)))
        return joined
    cut = rng.randint(SIDE // 4, 3 * SIDE // 4)
    box = rng.choice(((0, 0, cut, SIDE), (0, 0, SIDE, cut)))
    joined.paste(second.crop(box), box)
    return joined


def encoded(picture: Image.Image, kind: str = "jpeg") -> bytes:
    """The file's bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 92, "subsampling": 0} if kind == "jpeg" else {}))
    return buffer.getvalue()


def read_pictures(folder: Path, rows: Sequence[Row]) -> dict[str, Image.Image]:
    """RGBA by file name, for the rows asked for."""
    wanted = {row.file for row in rows}
    pictures = {}
    for artist in sorted({row.artist for row in rows}):
        with tarfile.open(folder / f"{artist}.tar") as tar:
            for member in tar:
                if member.name in wanted:
                    data = tar.extractfile(member)
                    assert data is not None
                    pictures[member.name] = Image.open(io.BytesIO(data.read())).convert("RGBA")
    return pictures


def pairs(half: Sequence[Concept], pictures: dict[str, Image.Image], views: int, rng: random.Random) -> Iterator[dict]:
    """`views` pictures of every concept with a sentence each, all concepts in turn."""
    for number in range(views * len(half)):
        row = pick(half[number % len(half)], rng)
        yield {"__key__": f"{number:06d}", "jpg": encoded(varied(pictures[row.file], rng)), "txt": sentence(row, rng)}


def images(half: Sequence[Concept], pictures: dict[str, Image.Image], views: int, rng: random.Random) -> Iterator[dict]:
    """Pictures without any text: of every second view one concept, else two mixed; recoloured freely."""
    for number in range(views * len(half)):
        picture = varied(pictures[pick(half[number % len(half)], rng).file], rng, wild=0.3)
        if number // len(half) % 2:
            picture = mixed(picture, varied(pictures[pick(rng.choice(half), rng).file], rng, wild=0.3), rng)
        yield {"__key__": f"{number:06d}", "jpg": encoded(picture)}


def texts(half: Sequence[Concept], each: int, rng: random.Random) -> Iterator[dict]:
    """Sentences without any picture."""
    for number in range(each * len(half)):
        concept = half[number % len(half)]
        said = concept.name if number < len(half) else sentence(pick(concept, rng), rng)
        yield {"__key__": f"{number:06d}", "txt": said}


def judged(half: Sequence[Concept], pictures: dict, groups: Sequence[str]) -> Iterator[dict]:
    """The other artist's picture of every concept, its name and the number of its group."""
    for number, row in enumerate(concept.judged for concept in half if concept.judged):
        picture = encoded(on_colour(pictures[row.file]), "png")
        yield {"__key__": f"{number:06d}", "png": picture, "txt": row.name, "cls": groups.index(row.group)}


def prepare(folder: Path, work: Path) -> None:
    """Shards, vocabulary and classes under `work`, and `world.json` with the counts when all is written."""
    concepts = concepts_of(read_rows(folder / "captions.tsv"))
    halves = split(concepts)
    shown = [concept.judged for concept in concepts if concept.judged]
    groups = sorted({row.group for row in shown})
    pictures = read_pictures(folder, [row for concept in concepts for row in concept.drawn] + shown)
    world: dict[str, Any] = {"concepts": len(concepts), "judged": len(shown), "groups": len(groups)}
    for number, (half, members) in enumerate(halves.items()):
        rng = random.Random(number)
        write_shards(work / f"pairs_{half}", pairs(members, pictures, VIEWS, rng))
        write_shards(work / f"judge_{half}", judged(members, pictures, groups))
        world[half] = {
            "concepts": len(members),
            "families": len({family(concept.name) for concept in members}),
            "pictures": sum(len(concept.drawn) for concept in members),
            "judged": sum(concept.judged is not None for concept in members),
        }
    write_shards(work / "images_a", images(halves["a"], pictures, 2 * VIEWS, random.Random(2)))
    write_shards(work / "texts_b", texts(halves["b"], 16, random.Random(3)))
    said = [sentence(row, rng) for concept in concepts for row in concept.drawn for _ in range(8)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(said), model_prefix=str(work / "words"), model_type="bpe", vocab_size=VOCABULARY,
        normalization_rule_name="nmt_nfkc_cf", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1, minloglevel=2,
    )  # fmt: skip
    (work / "classes.json").write_text(json.dumps({"classnames": groups, "templates": TEMPLATES}) + "\n")
    (work / "world.json").write_text(json.dumps(world, indent=1) + "\n")

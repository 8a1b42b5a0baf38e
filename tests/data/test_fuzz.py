"""Thousands of damaged shards, pictures, sentences and indices: each is refused in one sentence or counted, at once.

A new target is a line in TARGETS: how its input is made from a generator, and how it is read. A case that fails is named
by target and number; `run("shards", [1234], folder)` repeats it.
"""

import itertools
import os
import pickle
import random
import resource
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import mutations
import pytest
import torch
from guard import Guard, TooLong, watchdog
from torch import Tensor

from toolkit.config import Augmentation, Preprocess
from toolkit.data.convert.check import check_folder
from toolkit.data.convert.listing import LISTED
from toolkit.data.convert.outcome import LeftOut, Skip
from toolkit.data.convert.pictures import PictureOptions, prepare
from toolkit.data.convert.sentences import SentenceOptions, sentences_of
from toolkit.data.convert.sources import Source, recognise_pictures, recognise_texts
from toolkit.data.decode import BadSample, decode_text
from toolkit.data.images import decode_image
from toolkit.data.index import read_index
from toolkit.data.shards import count_samples, scan_shard
from toolkit.data.store import MANIFEST, EmbeddingStore
from toolkit.data.stored import StoredPool, read_manifest, stored_shards
from toolkit.data.streams import Field, ShardStream
from toolkit.data.tar_headers import printable
from toolkit.data.texts import TokenReader
from toolkit.data.views import TrainingViews
from toolkit.embed.pool import views_of
from toolkit.embed.verify import Verdict, check_files
from toolkit.errors import DataError, ToolkitError
from toolkit.models import Teacher

SECONDS = 5.0
"""Of computing, per case."""
MEGABYTES = 250
"""That the process may grow over all cases of a target."""
MAX_PIXELS = 200_000


def letters(texts: list[str]) -> Tensor:
    return torch.tensor([[ord(character) for character in text.ljust(4)[:4]] for text in texts])


VIEWS = TrainingViews(
    Preprocess(image_size=8), {"teacher": Preprocess(image_size=12)}, Augmentation(), "plain", MAX_PIXELS
)
FIELDS = [
    Field(["jpg", "png", "gif", "webp", "bmp", "tif", "ppm"], VIEWS),
    Field(["txt"], TokenReader({"tokens": letters})),
]


def read_shard(data: bytes, folder: Path) -> Counter[str]:
    """As a run, a check and a conversion read it; good and bad samples add up to those of the shard."""
    path = folder / "00000.tar"
    path.write_bytes(data)
    found: Counter[str] = Counter()
    try:
        shard = scan_shard(path)
        if shard.count:
            stream = ShardStream("fuzz", [path], FIELDS, seed=0, window_shards=1, max_skip_fraction=1.0)
            found = read_all(stream)
            assert found["sample"] == shard.count == sum(found.values()) - found["sample"], found
            stream[0]
    except DataError as error:
        found["refused" if str(path) in str(error) else f"path not named: {error}"] += 1
    assert not [said for said in found if said.startswith("path")], found
    check_and_convert(path)
    return found


def read_all(stream: ShardStream) -> Counter[str]:
    """One pass: every sample is good or bad for a reason."""
    found: Counter[str] = Counter(sample=len(stream))
    for position in range(len(stream)):
        place = stream.plan.place(position)
        try:
            tensors = stream._decode(stream._open(place.shard), place, position)
            assert tensors["student_images"].shape == (3, 8, 8) and tensors["tokens"].shape == (4,)
            found["good"] += 1
        except BadSample as bad:
            found[str(bad.args[0])] += 1
    return found


def check_and_convert(path: Path) -> None:
    """`dime shards check` tells lines that can be printed; listing a tar yields entries that lie in it, or reasons."""
    lines: list[str] = []
    check_folder(path.parent, fast=False, max_pixels=MAX_PIXELS, workers=1, say=lines.append)
    assert all(line.encode() and printable(line) == line for line in lines)
    for recognise in (recognise_pictures, recognise_texts):
        with suppress(ToolkitError):
            recognise([str(path)])
    size = path.stat().st_size
    for kind in ("tar", "webdataset"):
        for entry in LISTED[kind](str(path)):
            assert isinstance(entry, Skip) or (0 <= entry[1] <= entry[1] + entry[2] <= size)
    for sentence in sentences_of(Source("webdataset", str(path)), SentenceOptions()):
        assert sentence.reason or sentence.text.encode()


def read_picture(data: bytes, _: Path) -> Counter[str]:
    """As a run decodes it, and as the converter writes it anew, which a run must then be able to read."""
    found: Counter[str] = Counter()
    try:
        image = decode_image(data, MAX_PIXELS)
        assert image.mode == "RGB" and {tensor.dtype for tensor in VIEWS(data).values()} == {torch.uint8}
        found["good"] += 1
    except BadSample as bad:
        found[str(bad.args[0])] += 1
    try:
        _, written, kept = prepare(data, PictureOptions(max_pixels=MAX_PIXELS))
        assert kept or decode_image(written, MAX_PIXELS).mode == "RGB"
    except LeftOut as left:
        found[f"left out: {left.reason}"] += 1
    return found


def read_sentence(data: bytes, _: Path) -> Counter[str]:
    """Stripped and printable somewhere, or bad."""
    try:
        text = decode_text(data)
        assert text == text.strip() and text.encode() and "\0" not in text
        return Counter(good=1)
    except BadSample as bad:
        return Counter({str(bad.args[0]): 1})


def two_shards(folder: Path) -> tuple[list[Path], list[int]]:
    """Whole ones, the same in every case."""
    paths = [folder / f"{number:05d}.tar" for number in range(2)]
    for number, path in enumerate(paths):
        rows = range(3 * number, 3 * number + 2 + number)
        parts = [mutations.header(b"%04d.txt" % row, 5) + mutations.padded(b"words") for row in rows]
        path.write_bytes(b"".join(parts) + bytes(1024))
    return paths, [2, 3]


def make_index(rng: random.Random) -> bytes:
    """For the two shards."""
    return mutations.index(rng, ["00000.tar", "00001.tar"], [3072, 4096], [2, 3])


def read_indexed(data: bytes, folder: Path) -> Counter[str]:
    """What an index claims is refused or, where it cannot be known to be false, found out when the shard is opened."""
    paths, counts = two_shards(folder)
    (folder / "index.json").write_bytes(data)
    found: Counter[str] = Counter()
    try:
        assert all(folder / name == (folder / name).resolve() for name in read_index(folder) or {})
        found["right" if count_samples(paths) == counts else "wrong"] += 1
        stream = ShardStream("fuzz", paths, FIELDS[1:], seed=0, window_shards=2, max_skip_fraction=1.0)
        assert sorted(stream[position][1] for position in range(len(stream)))[-1] == "00001.tar:0005"
        assert stream.counts == counts
    except DataError:
        found["refused"] += 1
    try:
        lines: list[str] = []
        check_folder(folder, fast=False, max_pixels=MAX_PIXELS, workers=1, say=lines.append)
        assert "\n".join(lines).encode().isascii()
    except DataError:
        found["refused by check"] += 1
    return found


def one_shard(folder: Path) -> Path:
    """Two pictures, the same in every case."""
    path = folder / "00000.tar"
    image = mutations.pictures()["0.png"]
    parts = [mutations.header(b"%04d.png" % row, len(image)) + mutations.padded(image) for row in range(2)]
    path.write_bytes(b"".join(parts) + bytes(1024))
    return path


REPLAYED = TrainingViews(Preprocess(image_size=8), {}, Augmentation(), "same", MAX_PIXELS, frame=8)


def read_store(data: bytes, folder: Path) -> Counter[str]:
    """As a run, a selection and `dime embed verify` read it: every row of unit length, or a reason."""
    path = one_shard(folder)
    found: Counter[str] = Counter()
    stores = [EmbeddingStore(folder, {"width": 4, "view": {"count": views}} if views else {}) for views in (0, 1, 2)]
    stores[0].file_of(path).write_bytes(data)
    for store in stores:
        try:
            found += read_replayed(store, path)
        except DataError:
            found["refused"] += 1
    verdict = Verdict()
    try:
        entries = stored_shards(folder)
        check_files(folder, entries, verdict)
        assert StoredPool(entries, 4).read(0, 2).shape == (2, 4)
    except DataError:
        found["refused by the rest"] += 1
    found["found wrong" if verdict.wrong else "not found wrong"] += 1
    return found


def read_replayed(store: EmbeddingStore, path: Path) -> Counter[str]:
    """Two passes, each sample through its stored crop."""
    found: Counter[str] = Counter()
    fields = [Field(["png"], REPLAYED, replays=store.views > 1)]
    stores = {"teacher_image_features": store}
    stream = ShardStream("fuzz", [path], fields, seed=0, window_shards=1, max_skip_fraction=1.0, stores=stores)
    for position in range(4):
        place = stream.plan.place(position)
        try:
            tensors = stream._decode(stream._open(place.shard), place, position)
            assert abs(float(tensors["teacher_image_features"].norm()) - 1) < 0.03
            found["good"] += 1
        except BadSample as bad:
            found[str(bad.args[0])] += 1
    return found


def read_any_manifest(data: bytes, folder: Path) -> Counter[str]:
    """As what opens a store reads it."""
    (folder / MANIFEST).write_bytes(data)
    try:
        found = read_manifest(folder)
        store = EmbeddingStore(folder, found)
        store.check_identity()
        views_of(found.get("view"), Named(), MAX_PIXELS, str(folder))
        return Counter({f"{store.views} views": 1})
    except DataError as error:
        return Counter({"refused" if str(folder) in str(error) else f"folder not named: {error}": 1})


class Named(Teacher):
    """What is asked of a teacher here."""

    def __init__(self) -> None:
        self.preprocess = Preprocess(image_size=8)


class Target(NamedTuple):
    """Something that reads what others have written."""

    make: Callable[[random.Random], bytes]
    read: Callable[[bytes, Path], Counter[str]]
    """Raises nothing, whatever the bytes; counts what became of them."""
    share: float
    """Of all cases."""


TARGETS = {
    "shards": Target(mutations.shard, read_shard, 0.45),
    "pictures": Target(mutations.picture, read_picture, 0.35),
    "sentences": Target(mutations.sentence, read_sentence, 0.1),
    "index": Target(make_index, read_indexed, 0.1),
    "stores": Target(mutations.store, read_store, 0.2),
    "manifests": Target(mutations.manifest, read_any_manifest, 0.1),
}


GUARD = Guard()


def run(name: str, numbers: Iterable[int], folder: Path) -> Counter[str]:
    """Cases of a target, each from a generator of its own; what became of them."""
    target = TARGETS[name]
    found: Counter[str] = Counter()
    for number in numbers:
        data = target.make(random.Random(f"{name} {number}"))
        try:
            with watchdog(SECONDS):
                found.update(target.read(data, folder))
        except (Exception, TooLong) as error:
            raise AssertionError(f"case {number} of {name} ({len(data)} bytes): {error!r}") from error
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cases", [1_500, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_a_reason(
    name: str, cases: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """No exception but ours, no hang, no growth, no file, no code; enough cases on both sides to mean something."""
    folder, elsewhere = tmp_path / "in", tmp_path / "cwd"
    folder.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    run(name, range(20), folder)  # modules are imported, caches filled
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with GUARD.watching(folder):
        found = run(name, range(int(cases * TARGETS[name].share)), folder)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEGABYTES, f"{grown:.0f} MB"
    assert not list(elsewhere.iterdir()) and {path.suffix for path in folder.iterdir()} <= {
        ".tar",
        ".json",
        ".safetensors",
    }
    capfd.readouterr()  # libtiff has said much
    print(name, dict(found), f"{grown:.0f} MB")
    assert len(found) >= 3 and min(found.values()) >= 1


def test_the_guard_bites(tmp_path: Path) -> None:
    """A file outside, an unpickled trap and a loop are all noticed."""
    with pytest.raises(AssertionError, match="outside"), GUARD.watching(tmp_path / "in"):
        (tmp_path / "outside").write_bytes(b"")
    with pytest.raises(AssertionError, match=r"pickle\.find_class"), GUARD.watching(tmp_path):
        pickle.loads(pickle.dumps(os.path.join))  # noqa: S301
    with pytest.raises(TooLong), watchdog(0.05):
        any(number < 0 for number in itertools.count())

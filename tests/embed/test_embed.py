"""`dime embed`: what is stored is what the teacher makes of the samples, however it was computed and stored."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from toolkit import config
from toolkit.cli import dispatch
from toolkit.data.images import crop_of, cropped, decode_image, shrunk
from toolkit.data.shards import Shard, expand_shards, scan_shard, write_shards
from toolkit.data.store import EmbeddingStore
from toolkit.data.store_file import StoredRows, read_entry, write_rows
from toolkit.errors import ConfigError, DataError
from toolkit.models import Teacher, build_teacher
from toolkit.playground.prepare import TEACHER
from toolkit.playground.shards import write_world

BROKEN = b"\xff\xfe"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Two shards of pictures, two of sentences (one of which is no text)."""
    folder = write_world(
        tmp_path_factory.mktemp("embed") / "world", images=60, texts=8, test_images_per_class=1, test_pairs=20
    )
    shard = scan_shard(expand_shards(str(folder / "train_images"), asked_by="test")[0])
    samples = [{"__key__": shard.keys[row], "png": shard.read(row, "png")} for row in range(shard.count)]
    write_shards(folder / "pictures", samples, 32)
    write_shards(
        folder / "sentences",
        [
            {"__key__": f"{k:03d}", "txt": f"a red circle and {k} squares".encode() if k != 7 else BROKEN}
            for k in range(50)
        ],
        30,
    )
    return folder


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return build_teacher(config.Teacher(name=str(TEACHER)), "fp32", torch.device("cpu"))


def embed(kind: str, world: Path, out: Path, *more: str) -> None:
    shards = world / {"images": "pictures", "texts": "sentences"}[kind]
    dispatch(["embed", kind, str(shards), "--teacher", str(TEACHER), "--out", str(out), "--workers", "0", *more])


def said(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def opened(folder: Path) -> list[StoredRows]:
    files = sorted(folder.glob("*.safetensors"), key=lambda file: read_entry(file).shard)
    return [StoredRows(file) for file in files]


def shards_of(folder: Path) -> list[Shard]:
    return [scan_shard(path) for path in sorted(folder.glob("*.tar"))]


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("store_as", "least"), [("fp32", 1.0), ("bf16", 0.99999), ("fp16", 0.999999), ("int8", 0.9998)]
)
def test_rows_are_the_teachers(world, teacher, tmp_path, capsys, store_as, least):
    """Plain pictures through the teacher's own preprocessing, sentences through its tokenizer; fp32 bit for bit."""
    for kind in ("images", "texts"):
        embed(kind, world, tmp_path, "--store-as", store_as, "--precision", "fp32", "--json")
        (told,) = said(capsys)["stores"]
        assert told["samples"] == {"images": 60, "texts": 50}[kind] and told["new"]["cosine_min"] >= least - 1e-6
        assert told["new"]["unreadable"] == ({} if kind == "images" else {"not_utf8": 1})
    for stored, shard in zip(opened(tmp_path / "text"), shards_of(world / "sentences"), strict=True):
        assert stored.keys == shard.keys
        for row, key in enumerate(shard.keys):
            found = stored.floats(row)
            if key == "007":
                assert bool(found.isnan().all())
                continue
            live = teacher.encode_text(teacher.tokenizer()([shard.read(row, "txt").decode()]))[0]
            assert float(found @ live) >= least - 1e-5 and float(found.norm()) == pytest.approx(1.0, abs=1e-5)
    again = EmbeddingStore(tmp_path / "image", json.loads((tmp_path / "image/manifest.json").read_text()))
    shard = shards_of(world / "pictures")[0]
    assert again.read(shard.path, shard.keys, 3).crop is None


def test_recorded_crops_are_seen_again(world, teacher, tmp_path, capsys):
    """The picture seen through the recorded box, encoded again, is the stored row; mirrored it is another one."""
    embed(
        "images",
        world,
        tmp_path,
        "--views",
        "3",
        "--crop-scale",
        "0.3",
        "1",
        "--precision",
        "fp32",
        "--store-as",
        "fp32",
    )
    side = teacher.preprocess.image_size
    mirrored = []
    for stored, shard in zip(opened(tmp_path / "image"), shards_of(world / "pictures"), strict=True):
        assert (stored.views, stored.tensors["crops"].shape) == (3, (shard.count, 3, 5))
        for row in range(0, shard.count, 7):
            picture = shrunk(decode_image(shard.read(row, "png"), 10**7), side)
            for view in range(3):
                crop = crop_of(stored.crop(row, view))
                seen, other = (cropped(picture, c, side) for c in (crop, crop._replace(flip=not crop.flip)))
                live, flipped = teacher.encode_image(torch.stack([seen, other]))
                assert float(live @ stored.floats(row, view)) > 0.99999
                mirrored.append(float(flipped @ stored.floats(row, view)))
    assert len({tuple(crop) for crop in opened(tmp_path / "image")[0].tensors["crops"].flatten(0, 1).tolist()}) > 80
    assert np.median(mirrored) < 0.999
    dispatch(["embed", "verify", str(tmp_path), "--samples", "20"])
    assert "0 things wrong; 60 embeddings computed again" in capsys.readouterr().out


def test_verify_finds_what_is_wrong(world, tmp_path, capsys):
    """A flipped crop, exchanged rows, changed bytes, another shard: each named, exit code 1."""
    embed("images", world, tmp_path / "good", "--views", "1", "--crop-scale", "0.5", "1")
    dispatch(["embed", "verify", str(tmp_path / "good"), "--samples", "500"])

    def spoiled(name: str, keys: list[str] | None = None, **changed: torch.Tensor) -> str:
        folder = tmp_path / name
        (folder / "image").mkdir(parents=True)
        for path, content in all_bytes(tmp_path / "good").items():
            (folder / path).write_bytes(content)
        stored = opened(folder / "image")[0]
        entry = read_entry(stored.file)
        rows = changed.get("rows", stored.rows.float())
        crops = changed.get("crops", stored.tensors["crops"].clone())
        write_rows(stored.file, entry.shard, entry.path, keys or stored.keys, rows, "bf16", crops)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            dispatch(["embed", "verify", str(folder), "--samples", "500"])
        assert stopped.value.code == 1
        return capsys.readouterr().out

    good = opened(tmp_path / "good/image")[0]
    crops = good.tensors["crops"].clone()
    crops[..., 4] = 1 - crops[..., 4]
    assert "has cosine" in spoiled("flipped", crops=crops)
    assert "has cosine" in spoiled("shifted", rows=good.rows.float().roll(1, 0))
    assert "keys differ" in spoiled("keys", keys=["x", *good.keys[1:]])
    file = opened(tmp_path / "good/image")[0].file
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    header = int.from_bytes(content[:8], "little")
    content[8 + header + 4] ^= 4
    file.write_bytes(content)
    with pytest.raises(SystemExit):
        dispatch(["embed", "verify", str(tmp_path / "good")])
    assert "hash differs" in capsys.readouterr().out


def test_started_again_it_does_what_is_missing(world, tmp_path, capsys):
    """Same bytes as in one go; a file that is cut short is made anew; another precision is refused."""
    embed("texts", world, tmp_path / "whole")
    embed("texts", world, tmp_path / "parts", "--part", "1/2")
    assert len(list((tmp_path / "parts/text").glob("*.safetensors"))) == 1
    embed("texts", world, tmp_path / "parts")
    assert all_bytes(tmp_path / "whole") == all_bytes(tmp_path / "parts")
    torn = next((tmp_path / "parts/text").glob("*.safetensors"))
    torn.write_bytes(torn.read_bytes()[:300])
    capsys.readouterr()
    embed("texts", world, tmp_path / "parts")
    assert "over 1 of 2 shards" in capsys.readouterr().out
    assert all_bytes(tmp_path / "whole") == all_bytes(tmp_path / "parts")
    with pytest.raises(DataError, match="stored_as: bf16 there, int8 here"):
        embed("texts", world, tmp_path / "parts", "--store-as", "int8")
    embed("images", world, tmp_path / "views")
    with pytest.raises(DataError, match=r"view: plain there, .*'count': 2"):
        embed("images", world, tmp_path / "views", "--views", "2")


def test_an_ensemble_sees_the_same_crops(world, tmp_path, capsys):
    """Two teachers of different sizes: boxes are drawn for the larger and the same for both."""
    other = "toolkit.playground.towers:scene_clip"
    weights = tmp_path / "other.safetensors"
    weights.write_bytes((TEACHER / "student.safetensors").read_bytes())
    embed("images", world, tmp_path / "out", "--views", "2", "--teacher", f"small={other}:{weights}")
    main, small = (opened(tmp_path / "out" / name) for name in ("image", "small/image"))
    assert all(torch.equal(a.tensors["crops"], b.tensors["crops"]) for a, b in zip(main, small, strict=True))
    capsys.readouterr()
    dispatch(["embed", "verify", str(tmp_path / "out"), "--json"])
    assert len(said(capsys)["stores"]) == 2


def test_two_processes_equal_one(world, tmp_path):
    embed("texts", world, tmp_path / "one", "--precision", "fp32")
    words = ["embed", "texts", str(world / "sentences"), "--teacher", str(TEACHER), "--out", str(tmp_path / "two")]
    run = subprocess.run(
        [sys.executable, "-m", "toolkit.cli", *words, "--processes", "2", "--workers", "0", "--precision", "fp32", "--json"],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert json.loads(run.stdout.splitlines()[-1])["stores"][0]["new"]["shards"] == 2
    assert all_bytes(tmp_path / "one") == all_bytes(tmp_path / "two")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["texts", "s", "--teacher", "ViT-B-32x:openai", "--out", "o"], "no model or checkpoint folder named"),
        (
            ["images", "nowhere", "--teacher", str(TEACHER), "--out", "o"],
            "image shards=nowhere: 1 of 1 shards do not exist",
        ),
        (["images", "s", "--teacher", "a=ViT-B-32:openai", "--out", "o"], "none is the main teacher"),
        (["images", "s", "--teacher", str(TEACHER), "--teacher", str(TEACHER), "--out", "o"], "without a name already"),
        (["images", "s", "--teacher", str(TEACHER), "--out", "o", "--part", "2/2"], "--part 2/2"),
        (["images", "s", "--teacher", str(TEACHER), "--out", "o", "--crop-scale", "1", "0.5"], "--crop-scale 1.0 0.5"),
        (["verify", "nowhere"], "nowhere holds no store of embeddings"),
    ],
)
def test_mistakes(world, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s").symlink_to(world / "sentences")
    with pytest.raises((ConfigError, DataError), match=message):
        dispatch(["embed", *words])


def test_a_recipe_names_its_teachers():
    from toolkit.cli_embed import teachers_of

    found = teachers_of(["recipes/distill_vitb32.py"])
    assert found[""].name == "ViT-L-14-quickgelu" and found[""].pretrained == "openai"
    named = teachers_of(
        ["ViT-L-14-quickgelu:openai", "big=ViT-H-14:laion2b_s32b_b79k", "mine=my.module:tower:weights.safetensors"]
    )
    assert [(t.name, t.pretrained) for t in named.values()] == [
        ("ViT-L-14-quickgelu", "openai"), ("ViT-H-14", "laion2b_s32b_b79k"), ("my.module:tower", "weights.safetensors")
    ]  # fmt: skip


def test_more_parts_than_shards(world, tmp_path, capsys):
    """The part that gets none says so and touches nothing; the others make the store that one run makes."""
    for part in range(3):
        embed("images", world, tmp_path / "parts", "--part", f"{part}/3")
    assert "--part 2/3 of 2 shards is none; nothing to embed" in capsys.readouterr().out
    embed("images", world, tmp_path / "one", "--part", "0/1")
    assert all_bytes(tmp_path / "parts") == all_bytes(tmp_path / "one")
    embed("images", world, tmp_path / "none", "--part", "2/3", "--json")
    assert said(capsys) == {"stores": []} and not (tmp_path / "none").exists()

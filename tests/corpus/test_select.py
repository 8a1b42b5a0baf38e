"""`dime select`: equal to a brute force, the same bytes however it is computed, and mistakes in one line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus.pools import IDENTITY, SMALL, World, all_bytes, brute_force, corpus_of, fill, make_world, unit_rows

from toolkit.cli import dispatch
from toolkit.corpus import Filters, command, select_corpus
from toolkit.corpus.compare import TopK, compare, part_rows
from toolkit.corpus.filters import normalised
from toolkit.corpus.jobs import Progress
from toolkit.corpus.request import Sizes, mix_from
from toolkit.data.shards import count_samples, scan_shard
from toolkit.data.store import EmbeddingStore
from toolkit.data.store_file import write_rows
from toolkit.errors import ConfigError, DataError
from toolkit.models.tokenizers import build_tokenizer


@pytest.fixture
def world(tmp_path: Path) -> World:
    """40 images, 110 sentences in 9 shards; rows that were not embedded, and equal rows (ties)."""
    rng = np.random.default_rng(5)
    images, texts = unit_rows(rng, 40), unit_rows(rng, 110)
    texts[70:80] = texts[20:30]
    texts[33] = texts[32]
    texts[[4, 50]], images[[0, 17]] = np.nan, np.nan
    texts[51] = 0
    return make_world(tmp_path, images, texts)


@pytest.mark.parametrize(("size", "k", "max_k"), [(10, 1, 1), (25, 1, 3), (30, 2, 3), (60, 3, 3), (300, 1, 8)])
@pytest.mark.parametrize("sizes", [SMALL, Sizes(), Sizes(text_rows=5, image_rows=3, part_rows=5)])
def test_grounded_is_the_brute_force(world: World, size: int, k: int, max_k: int, sizes: Sizes) -> None:
    """Blocks and parts of any size, unions that are too small, ties to the first in (shard, row)."""
    found = select_corpus(world.request("out", size, k=k, max_k=max_k, sizes=sizes))
    wanted, used = brute_force(world.images, world.texts, size, k, max_k)
    assert corpus_of(world.folder / "out") == [world.sentences[row] for row in sorted(wanted)]
    assert found["k"] == used and found["chosen"] == len(wanted)
    assert ("k was raised" in " ".join(found["notes"])) == (used > k)
    assert ("were asked for, the pool holds" in " ".join(found["notes"])) == (len(wanted) < size)
    assert found["pool"]["by_filter"] == {"kept": 107, "not_embedded": 3}
    assert found["images"] == {"embedded": 38, "not_embedded": 2}


def test_ranks_scores_and_coverage(world: World) -> None:
    """chosen.npy leads back to the pool; selection.json agrees with the whole matrix."""
    found = select_corpus(world.request("out", 15))
    matrix = np.delete(world.images, [0, 17], 0) @ world.texts.T
    matrix[:, [4, 50, 51]] = -9
    chosen = np.load(world.folder / "out/chosen.npy", allow_pickle=False)
    places = chosen["shard"] * 13 + chosen["row"]
    assert list(places) == sorted(places) and sorted(chosen["rank"]) == list(range(15))
    np.testing.assert_allclose(chosen["score"], matrix.max(0)[places], atol=1e-6)
    by_rank = chosen[np.argsort(chosen["rank"])]
    assert list(by_rank["score"]) == sorted(by_rank["score"], reverse=True)
    firsts = [int(np.flatnonzero(line > line.max() - 1e-6)[0]) for line in matrix]
    share = np.mean([row in set(places) for row in firsts])
    assert found["coverage"]["best_sentence_in_corpus"] == pytest.approx(share, abs=1e-5)
    assert found["coverage"]["similarity_to_corpus"]["mean"] == pytest.approx(matrix[:, places].max(1).mean(), abs=1e-4)
    assert found["coverage"]["similarity_to_pool"]["mean"] == pytest.approx(matrix.max(1).mean(), abs=1e-4)
    assert found["scores"]["chosen"]["q50"] == pytest.approx(np.sort(chosen["score"])[7], abs=1e-4)
    kept = np.delete(matrix.max(0), [4, 50, 51])
    assert found["scores"]["pool"]["q95"] == pytest.approx(np.sort(kept)[int(np.ceil(0.95 * 107)) - 1], abs=1e-4)
    assert sum(found["histograms"]["scores"]["pool"]) == pytest.approx(1, abs=1e-4)


def test_two_workers_a_restart_and_a_second_time_give_the_same_bytes(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The interrupted run is killed in the comparison, then while writing; nothing that was done is done again."""
    out = world.folder / "out"
    options = {"store": world.folder / "chosen", "samples_per_shard": 6}
    select_corpus(world.request("out", **options))
    wanted = all_bytes(out)
    stored = all_bytes(world.folder / "chosen")
    assert {"00000.tar", "00003.tar", "index.json", "chosen.npy", "selection.json", "selection.html"} <= set(wanted)
    assert select_corpus(world.request("out", **options))["chosen"] == 20
    assert "holds this selection already" in capsys.readouterr().out and all_bytes(out) == wanted

    def again(workers: int) -> None:
        request = world.request("out", **options, workers=workers)
        for path in [*out.rglob("*"), *(world.folder / "chosen").iterdir()]:
            if path.is_file():
                path.unlink()
        calls = []

        def dies(part):
            calls.append(part.number)
            if len(calls) == 3:
                raise KeyboardInterrupt
            compare(part)

        if workers == 1:
            monkeypatch.setattr(command, "compare", dies)
            with pytest.raises(KeyboardInterrupt):
                select_corpus(request)
            monkeypatch.setattr(command, "compare", lambda part: (calls.append(part.number), compare(part)))
            monkeypatch.setattr(command, "write_store", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                select_corpus(request)
            assert calls == [0, 1, 2, 2, 3]
            monkeypatch.undo()
        select_corpus(request)
        assert all_bytes(out) == wanted and all_bytes(world.folder / "chosen") == stored
        assert not (out / ".partial").exists()

    again(1)
    again(2)


def test_the_stored_embeddings_are_those_of_the_sentences(world: World) -> None:
    """Readable as training reads them, mixed-in prompts included."""
    prompts = unit_rows(np.random.default_rng(1), 5)
    fill(world.folder / "prompts", world.folder / "store/text", prompts, [f"prompt {k}" for k in range(5)], 3)
    mix = mix_from(f"{world.folder / 'prompts'}:12")
    out, folder = world.folder / "out", world.folder / "chosen"
    found = select_corpus(world.request("out", 20, mix=(mix,), store=folder, samples_per_shard=7))
    assert found["pool"]["sentences"] == 110, "what is mixed in is not part of the pool"
    assert found["mixed"] == [{"shards": str(world.folder / "prompts"), "samples": 12, "of": 5}]
    said = corpus_of(out)
    assert len(said) == 32 and all(said.count(f"prompt {k}") in (2, 3) for k in range(5))
    values = dict(zip([*world.sentences, *(f"prompt {k}" for k in range(5))], [*world.texts, *prompts], strict=True))
    store = EmbeddingStore(folder, IDENTITY)
    store.check_identity()
    paths = sorted(out.glob("*.tar"))
    assert count_samples(paths) == [7, 7, 7, 7, 4]
    for path in paths:
        shard = scan_shard(path)
        for row in range(shard.count):
            text = shard.read(row, "txt").decode()
            assert np.array_equal(store.read(path, shard.keys, row).features.numpy(), values[text])


def test_filters(tmp_path: Path) -> None:
    """Each sentence is counted under the first that holds; of equal ones the first that is embedded stays."""
    sentences = [
        "a dog runs", "A dog, runs!", "two words", "one two three four five six", b"\xff\xfe broken words here", "   ",
        "a  DOG\truns", "... !!! ???", "... !!! ?!?", "a cat sits", "a cat sits", "Straße nach Rom", "STRASSE nach rom",
    ]  # fmt: skip
    texts = unit_rows(np.random.default_rng(0), len(sentences))
    texts[9] = np.nan
    world = make_world(tmp_path, unit_rows(np.random.default_rng(1), 6), texts, sentences, per_shard=4)
    found = select_corpus(world.request("out", 99, max_k=99, filters=Filters(3, 5)))
    assert corpus_of(tmp_path / "out") == ["a dog runs", "... !!! ???", "... !!! ?!?", "a cat sits", "Straße nach Rom"]
    assert found["pool"]["by_filter"] == {
        "kept": 5, "not_embedded": 1, "not_utf8": 1, "empty_text": 1, "too_short": 1, "too_long": 1, "duplicate": 3,
    }  # fmt: skip
    found = select_corpus(world.request("chars", 99, max_k=99, filters=Filters(0, 0, 10, 11)))
    assert found["pool"]["by_filter"]["too_long"] == 4 and found["pool"]["by_filter"]["too_short"] == 1
    found = select_corpus(world.request("tokens", 99, max_k=99, filters=Filters(0, 0, max_tokens=5)))
    tokenize = build_tokenizer("ViT-B-32", 77)
    long = [text for text in sentences if isinstance(text, str) and int((tokenize([text]) != 0).sum()) > 5]
    assert found["pool"]["by_filter"]["too_many_tokens"] == len(long) and 2 <= len(long) <= 6
    assert normalised("It's  A—Test") == "its atest"
    with pytest.raises(DataError, match=r"none of the 13 sentences passes the filters \(.*too_short"):
        select_corpus(world.request("none", 5, filters=Filters(50, 60)))


def test_duplicates_are_found_in_any_number_of_rounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [f"sentence {k % 37}" for k in range(110)]
    for bucket in (2**22, 20):
        monkeypatch.setattr("toolkit.corpus.filters.BUCKET", bucket)
        folder = world.folder / str(bucket)
        other = make_world(folder, world.images, np.nan_to_num(world.texts) + 0.1, said)
        found = select_corpus(other.request("out", 110, max_k=110))
        assert found["pool"]["by_filter"] == {"kept": 37, "duplicate": 73}
        assert corpus_of(folder / "out") == said[:37]


def test_baselines_have_the_size_that_was_asked_for(world: World) -> None:
    """And share one comparison where --work says so."""
    matrix = np.delete(world.images, [0, 17], 0) @ world.texts.T
    matrix[:, [4, 50, 51]] = -9
    best = matrix.max(0)
    work = world.folder / "work"
    found = select_corpus(world.request("top", 12, method="threshold", work=work))
    assert {world.sentences[k] for k in np.argsort(-best)[:12]} == set(corpus_of(world.folder / "top"))
    stamps = {path: path.stat().st_mtime_ns for path in work.rglob("*.npy")}
    assert stamps and found["k"] is None
    least = float(np.sort(best)[-9] - 1e-4)
    found = select_corpus(world.request("least", 12, method="threshold", threshold=least, work=work))
    assert found["chosen"] == 9 and "the pool holds 9 with a best similarity of at least" in found["notes"][0]
    one, other = (set(random_corpus(world, seed, work)) for seed in (0, 1))
    assert one != other and one == set(random_corpus(world, 0, work))
    filled = select_corpus(world.request("filled", 100, max_k=1, fill=True, work=None))
    assert filled["chosen"] == 100 and "fill up by best similarity" in filled["notes"][0]
    fill(world.folder / "classes", world.folder / "store/text", unit_rows(np.random.default_rng(1), 30),
         [f"a cat{'s' * (k % 25)}" for k in range(30)], 8)  # fmt: skip
    options = {"shards": str(world.folder / "classes"), "filters": Filters()}
    found = select_corpus(world.request("prompts", 25, method="prompts", **options))
    assert found["chosen"] == 25 and found["pool"]["by_filter"] == {"kept": 25, "duplicate": 5}
    with pytest.raises(DataError, match="30 too_short"):
        select_corpus(world.request("captions", 25, method="captions", **options))
    options["filters"] = Filters(2)
    assert select_corpus(world.request("captions", 8, method="captions", **options))["chosen"] == 8
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def random_corpus(world: World, seed: int, work: Path) -> list[str]:
    """30 sentences by chance, in a folder of the seed."""
    found = select_corpus(world.request(f"random{seed}", 30, method="random", seed=seed, work=work))
    said = corpus_of(world.folder / f"random{seed}")
    assert found["chosen"] == len(set(said)) == 30
    return said


def test_top_k_takes_the_first_of_equals() -> None:
    """However the sentences come in."""
    torch.manual_seed(0)
    matrix = torch.randint(0, 4, (20, 50)).float()
    wanted = torch.tensor([sorted(range(50), key=lambda k: (-line[k], k))[:4] for line in matrix.tolist()])
    for step in (1, 3, 50):
        top = TopK(20, 4)
        for start in range(0, 50, step):
            top.update(matrix[:, start : start + step], torch.arange(20), torch.arange(start, min(50, start + step)))
        assert torch.equal(top.places, wanted)
        assert torch.equal(top.scores, matrix.gather(1, wanted))


def test_parts_are_bounded() -> None:
    assert part_rows(100_000, 1_000_000, 768, 8192) == 16_384
    assert part_rows(10, 1_000_000_000, 8, 8192) * 256 >= 1_000_000_000
    assert part_rows(10**9, 100, 768, 8192) == 8192


def test_the_page_and_the_summary(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Self-contained, everything of the user's escaped; the terminal shows no control characters."""
    said = [f"<b>word</b> \x1b[31m & number {k}" for k in range(110)]
    world = make_world(world.folder / "other", world.images, world.texts, said)
    found = select_corpus(world.request("out"), as_json=True)
    lines = capsys.readouterr().out.splitlines()
    last = json.loads(lines[-1])
    assert last["page"] == str(world.folder / "out/selection.html") and {**last, **found} == last
    assert json.loads((world.folder / "out/selection.json").read_text()) == found
    assert any("20 of 110 sentences chosen (grounded, k 1) for 38 images" in line for line in lines)
    assert any("% of the images have their best sentence" in line for line in lines)
    assert "\x1b" not in "\n".join(lines[:-1])
    html = (world.folder / "out/selection.html").read_text()
    assert html.count("<svg") == 2 and "<script" not in html and "http" not in html.replace("http-equiv", "")
    assert "&lt;b&gt;word" in html and "<b>word" not in html


def test_progress_says_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    monkeypatch.setattr("toolkit.corpus.jobs.time.monotonic", lambda: now[0])
    progress = Progress("compared", "sentences", 1000, 200)
    for seconds, count in ((5, 100), (20, 100), (1, 100), (1, 500)):
        now[0] += seconds
        progress.add(count)
    assert capsys.readouterr().out.splitlines() == [
        "compared 200 of 1,000 sentences in an earlier run",
        "compared 400 of 1,000 sentences, 8 per second, 75 s left",
        "compared 1,000 of 1,000 sentences, 30 per second",
    ]


def test_the_command_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Every option reaches the request, also behind the launcher's own word."""
    store, out = str(world.folder / "store"), str(world.folder / "out")
    fill(
        world.folder / "prompts", world.folder / "store/text", unit_rows(np.random.default_rng(1), 4), ["a cat"] * 4, 4
    )
    words = [
        "select",
        "--images",
        store,
        "--texts",
        store,
        "--size",
        "30",
        "--out",
        out,
        "--k",
        "2",
        "--max-k",
        "3",
        "--workers",
        "1",
    ]
    words += [
        "--min-words",
        "2",
        "--max-words",
        "9",
        "--max-chars",
        "99",
        "--mix",
        f"{world.folder / 'prompts'}:6",
        "--json",
    ]
    dispatch(["--local_rank=0", *words, "--samples-per-shard", "20"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["asked"]["filters"]["max_chars"] == 99 and found["asked"]["k"] == 2 and found["asked"]["max_k"] == 3
    assert found["out"] == out and found["chosen"] == 30 and len(corpus_of(Path(out))) == 36
    assert count_samples(sorted(Path(out).glob("*.tar"))) == [20, 16]
    for wrong in ("prompts", "prompts:", "prompts:x", ":3", "prompts:0", "prompts::3"):
        with pytest.raises(ConfigError, match="must be SHARDS:COUNT"):
            dispatch([*words, "--mix", wrong])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 0}, ConfigError, r"--size \(0\) must be at least 1"),
        ({"method": "best"}, ConfigError, "--method best is not known; known: grounded"),
        ({"k": 9}, ConfigError, r"--max-k \(8\) must lie between --k \(9\) and 254"),
        ({"threshold": 0.3}, ConfigError, "--threshold is of --method threshold"),
        ({"method": "captions"}, ConfigError, "name them with --shards"),
        ({"method": "random", "fill": True}, ConfigError, "--fill is of --method grounded"),
        ({"filters": Filters(9, 3)}, ConfigError, r"--max-words \(3\) must be 0 \(no limit\) or at least"),
        ({"filters": Filters(max_tokens=5, tokenizer="nothing")}, ConfigError, "no tokenizer named 'nothing'"),
        ({"device": "tpu"}, ConfigError, "--device tpu is not known"),
        ({"shards": "nowhere"}, DataError, "--shards=nowhere: 1 of 1 shards do not exist"),
        ({"mix": (mix_from("nowhere:3"),)}, DataError, "--mix=nowhere: 1 of 1 shards do not exist"),
        ({"images": Path("nowhere")}, DataError, "nowhere is no store of embeddings"),
    ],
)
def test_what_cannot_be(world: World, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        select_corpus(replace(world.request("out"), **options))


def test_stores_that_do_not_fit(world: World, tmp_path: Path) -> None:
    """Two teachers, twice the same store, shards written anew, torn files, an old store, the pool's own store as target."""
    manifest = world.folder / "store/image/manifest.json"
    right = manifest.read_text()
    manifest.write_text(json.dumps({**IDENTITY, "teacher": "other"}))
    with pytest.raises(DataError, match=r"of two teachers \(teacher other / some\)"):
        select_corpus(world.request("out"))
    manifest.write_text(right.replace('"width": 8', '"width": 9'))
    with pytest.raises(DataError, match=r"of two teachers \(width 9 / 8\)"):
        select_corpus(world.request("out"))
    manifest.write_text(right)
    texts = world.folder / "store/text/manifest.json"
    texts.write_text(json.dumps({**IDENTITY, "tokenizer": "ab" * 32}))
    with pytest.raises(ConfigError, match="the text store does not name its tokenizer"):
        select_corpus(world.request("out", filters=Filters(max_tokens=9)))
    texts.write_text(right)
    manifest.write_text("{}")
    with pytest.raises(DataError, match="does not name teacher"):
        select_corpus(world.request("out"))
    manifest.write_text(right)
    text_store = world.folder / "store/text"
    with pytest.raises(DataError, match="are both"):
        select_corpus(replace(world.request("out"), images=text_store))
    with pytest.raises(ConfigError, match="is the store that is chosen from"):
        select_corpus(world.request("out", store=text_store))
    entry = next(path for path in sorted(text_store.glob("00003-*.safetensors")))
    shard = scan_shard(world.folder / "texts/00003.tar")
    whole = torch.from_numpy(world.texts[39:52])[:, None]
    where = entry, shard.path.name, str(shard.path.resolve())
    write_rows(*where, ["other", *shard.keys[1:]], whole, "fp32")
    with pytest.raises(DataError, match="was made from other samples than"):
        select_corpus(world.request("out"))
    write_rows(*where, shard.keys, whole[..., :7], "fp32")
    with pytest.raises(DataError, match=r"has the shape \[13, 7\]"):
        select_corpus(world.request("out"))
    write_rows(entry, shard.path.name, "", shard.keys, whole, "fp32")
    with pytest.raises(DataError, match=r"does not say where the shard 00003.tar lies .* --shards"):
        select_corpus(world.request("out"))
    assert select_corpus(world.request("out", shards=str(world.folder / "texts")))["chosen"] == 20
    entry.unlink()
    with pytest.raises(DataError, match="has no embeddings for 1 of these shards"):
        select_corpus(world.request("out", shards=str(world.folder / "texts")))


def test_a_folder_of_something_else_is_left_alone(world: World) -> None:
    select_corpus(world.request("out"))
    with pytest.raises(DataError, match=r"holds another selection \(size 20 there, 21 here\)"):
        select_corpus(world.request("out", 21))
    (world.folder / "prompts").mkdir()
    (world.folder / "prompts/00000.tar").write_bytes(b"")
    with pytest.raises(DataError, match="holds shards that are no selection"):
        select_corpus(world.request("prompts"))

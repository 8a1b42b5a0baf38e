"""Streams over real shards: the same samples and crops for any ranks, workers and restarts."""

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from toolkit import config
from toolkit.config import Augmentation, Batch, Preprocess
from toolkit.data.build import Streams, build_sources
from toolkit.data.shards import expand_shards
from toolkit.data.streams import Field, ShardStream, SkipLimit, StreamBatch, batches
from toolkit.data.texts import TokenReader
from toolkit.data.views import TrainingViews
from toolkit.errors import DataError

MakeShards = Callable[..., Path]
STUDENT, TEACHER = Preprocess(image_size=8), Preprocess(image_size=16)


def letters(texts: list[str]) -> Tensor:
    """A tokenizer: character codes."""
    return torch.tensor([[ord(character) for character in text.ljust(12)[:12]] for text in texts])


def stream_of(folder: Path, seed: int = 0, limit: float = 0.1, window: int = 2) -> ShardStream:
    """Randomly cropped pictures and tokens of a folder."""
    views = TrainingViews(STUDENT, {"teacher": TEACHER}, Augmentation(), "plain", 10**6)
    fields = [Field(["jpg", "png"], views), Field(["txt"], TokenReader({"tokens": letters}))]
    paths = expand_shards(str(folder), asked_by="data.pairs")
    return ShardStream("data.pairs", paths, fields, seed=seed, window_shards=window, max_skip_fraction=limit)


def take(stream: ShardStream, count: int, **where: int) -> list[StreamBatch]:
    """The next batches of 6 over all ranks."""
    spread = {"rank": 0, "world": 1, "first_step": 0, "workers": 0} | where
    return list(itertools.islice(batches(stream, 6, **spread), count))


def same(a: list[StreamBatch], b: list[StreamBatch]) -> bool:
    """Bit for bit: keys, tensors, and what was skipped."""
    return all(
        x.keys == y.keys
        and x.skipped == y.skipped
        and all(torch.equal(x.tensors[name], y.tensors[name]) for name in x.tensors)
        for x, y in zip(a, b, strict=True)
    )


def test_a_batch_holds_what_its_keys_say(make_shards: MakeShards) -> None:
    """Picture and sentence of a row are those of its key, uint8 at each model's size."""
    stream = stream_of(make_shards("pairs", 12))
    batch = take(stream, 1)[0]
    assert batch.tensors["student_images"].shape == (6, 3, 8, 8)
    assert batch.tensors["teacher_images"].shape == (6, 3, 16, 16)
    assert batch.tensors["student_images"].dtype == torch.uint8 and not batch.skipped
    for row, key in enumerate(batch.keys):
        number = int(key.split(":")[1])
        assert key.split(":")[0] == f"{number // 4:05d}.tar"
        assert torch.equal(batch.tensors["tokens"][row], letters([f"sentence {number}"])[0])


def test_every_sample_once_per_pass(make_shards: MakeShards) -> None:
    """Two passes of 12 in four batches of 6; the second pass in another order."""
    keys = [batch.keys for batch in take(stream_of(make_shards("pairs", 12)), 4)]
    first, second = keys[0] + keys[1], keys[2] + keys[3]
    assert len(set(first)) == len(set(second)) == 12 and set(first) == set(second) and first != second


def test_two_ranks_interleave_to_one(make_shards: MakeShards) -> None:
    """Rows, pixels and crops of the global batch do not depend on how it is spread."""
    stream = stream_of(make_shards("pairs", 12))
    alone = take(stream, 4)
    halves = [take(stream, 4, rank=rank, world=2) for rank in range(2)]
    for whole, left, right in zip(alone, *halves, strict=True):
        assert left.keys + right.keys == whole.keys
        for name, tensor in whole.tensors.items():
            assert torch.equal(torch.cat([left.tensors[name], right.tensors[name]]), tensor)


def test_starting_at_step_3_equals_going_on(make_shards: MakeShards) -> None:
    """Also over the end of a pass; nothing but the step is needed."""
    folder = make_shards("pairs", 12)
    assert same(take(stream_of(folder), 6)[3:], take(stream_of(folder), 3, first_step=3))


def test_workers_change_nothing(make_shards: MakeShards) -> None:
    """Two processes give what none gives, pixels included, and also from a later step."""
    folder = make_shards("pairs", 12, broken={5: {"png": b"no picture"}})
    alone = take(stream_of(folder, limit=1.0), 4, first_step=1)
    assert same(alone, take(stream_of(folder, limit=1.0), 4, first_step=1, workers=2))
    assert sum(batch.skipped.total() for batch in alone) >= 2


@pytest.mark.filterwarnings("ignore:This DataLoader")
def test_two_ranks_of_two_workers_resumed_as_one_of_three(make_shards: MakeShards) -> None:
    """Real processes, over the end of a pass: shards, keys and pixels of one process that never stopped."""
    folder = make_shards("pairs", 24)
    straight = take(stream_of(folder), 7)
    ranks = [take(stream_of(folder), 3, rank=rank, world=2, workers=2) for rank in range(2)]
    before = [left.keys + right.keys for left, right in zip(*ranks, strict=True)]
    after = take(stream_of(folder), 4, first_step=3, workers=3)
    assert before + [batch.keys for batch in after] == [batch.keys for batch in straight] and same(after, straight[3:])
    assert len({key for batch in straight[:4] for key in batch.keys}) == 24


def test_seed_and_pass_change_the_crop(make_shards: MakeShards) -> None:
    """The same sample is cut anew in every pass; asked twice at one position it is not."""
    stream = stream_of(make_shards("pairs", 4), window=1)
    found = {}
    for position in range(12):
        tensors, key, _ = stream[position]
        assert torch.equal(tensors["student_images"], stream[position][0]["student_images"])
        found.setdefault(key, []).append(tensors)
    for views in found.values():
        assert len({view["student_images"].numpy().tobytes() for view in views}) == 3
        assert len({view["teacher_images"].numpy().tobytes() for view in views}) == 1


def test_the_generator_outside_is_left_alone(make_shards: MakeShards) -> None:
    """Without workers the crops must not advance the stream of random numbers that dropout draws from."""
    stream = stream_of(make_shards("pairs", 4))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    stream[0]
    assert torch.equal(torch.rand(2), expected)


BROKEN = {
    "undecodable": {"png": b"no picture"},
    "not_utf8": {"txt": b"\xff\xfe caf\xe9"},
    "empty_text": {"txt": b"  \n"},
    "no_jpg": {"png": None},
    "no_txt": {"txt": None},
}


@pytest.mark.parametrize("reason", BROKEN)
def test_a_bad_sample_is_replaced_and_counted(reason: str, make_shards: MakeShards) -> None:
    """Under its own reason, by another sample of the set; the rest of the pass is untouched."""
    stream = stream_of(make_shards("pairs", 12, broken={5: BROKEN[reason]}), limit=0.5, seed=1)
    found = take(stream, 2)
    keys = [key for batch in found for key in batch.keys]
    assert sum((batch.skipped for batch in found), Counter()) == {reason: 1}
    assert len(keys) == 12 and len(set(keys)) == 11 and not any(key.endswith(":0005") for key in keys)


def test_a_truncated_picture_is_bad(make_shards: MakeShards, png: Callable[..., bytes]) -> None:
    """Half a PNG would otherwise train on grey."""
    stream = stream_of(make_shards("pairs", 8, broken={1: {"png": png(1, side=64)[:900]}}), limit=0.5)
    assert sum((batch.skipped for batch in take(stream, 2)), Counter())["undecodable"] >= 1


def test_a_hundred_bad_samples_in_a_row_stop_the_run(make_shards: MakeShards) -> None:
    """Instead of searching for ever; the message has the count, the place and the reason."""
    everything = dict.fromkeys(range(8), BROKEN["undecodable"])
    stream = stream_of(make_shards("pairs", 8, broken=everything), limit=1.0)
    with pytest.raises(DataError, match=r"data\.pairs: 100 bad samples in a row near .*\.tar \(100 undecodable\)"):
        stream[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_without_the_field_stops_the_run(workers: int, make_shards: MakeShards) -> None:
    """In one message without a traceback, also from a worker process."""
    stream = stream_of(make_shards("texts", 8, fields=["txt"]))
    with pytest.raises(DataError) as caught:
        take(stream, 1, workers=workers)
    said = str(caught.value)
    assert "00000.tar: 4 of 4 samples had no 'jpg' or 'png' (found: txt; limit 10%)" in said.replace("00001", "00000")
    assert "data.image_key" in said and "Traceback" not in said and "worker" not in said


def test_a_shard_that_changed_under_its_index_is_noticed(make_shards: MakeShards) -> None:
    """A plan made for other counts would skip or repeat samples in silence."""
    folder = make_shards("pairs", 8)
    stream = stream_of(folder)
    make_shards("pairs", 6)
    with pytest.raises(DataError, match=r"holds 2 samples, its index says 4"):
        [stream[position] for position in range(8)]


def batch_of(rows: int, bad: int) -> StreamBatch:
    return StreamBatch({}, ["k"] * rows, Counter(undecodable=bad))


def test_the_share_of_bad_samples_is_limited() -> None:
    """10 of 100 pass, 11 do not; short starts are judged as if 100 had been seen."""
    limit = SkipLimit("data.images", 0.1)
    limit.add(batch_of(4, 6))
    limit.add(batch_of(86, 4))
    with pytest.raises(DataError, match=r"data\.images: 11 of 102 samples were bad \(11 undecodable\)"):
        limit.add(batch_of(1, 1))


SPREAD = Batch(
    world_size=1, batch_size_per_gpu=6, text_batch_size_per_gpu=3, global_images=6, global_texts=3, grad_accum_steps=1
)


def sources_of(data: config.Data, seed: int = 0, tokens: bool = True) -> dict[str, object]:
    return build_sources(
        data,
        SPREAD,
        student=STUDENT,
        teachers={"teacher": TEACHER},
        tokenizers={"tokens": letters} if tokens else {},
        seed=seed,
    )


def test_the_two_streams_are_unrelated(make_shards: MakeShards) -> None:
    """Own batch sizes, own orders; both restart at the same step."""
    folder = str(make_shards("pairs", 12))
    data = config.Data(images=folder, texts=folder, augmentation=Augmentation(crop_scale=(0.5, 1.0)))
    streams = Streams(sources_of(data), rank=0, world=1, first_step=0, workers=0)
    steps = [streams.next() for _ in range(4)]
    assert all(len(step["images"].keys) == 6 and len(step["texts"].keys) == 3 for step in steps)
    assert set(steps[0]["images"].tensors) == {"student_images", "teacher_images"}
    assert set(steps[0]["texts"].tensors) == {"tokens"}
    assert [k for s in steps[:2] for k in s["images"].keys] != [k for s in steps for k in s["texts"].keys]
    again = Streams(sources_of(data), rank=0, world=1, first_step=2, workers=0).next()
    assert all(again[name].keys == steps[2][name].keys for name in again)
    other = Streams(sources_of(data, seed=1), rank=0, world=1, first_step=0, workers=0).next()
    assert other["images"].keys not in ([steps[0]["images"].keys], [steps[0]["texts"].keys])


def test_no_tokenizer_no_sentences(make_shards: MakeShards) -> None:
    """A run whose losses read no sentence does not wait for them."""
    folder = str(make_shards("pairs", 12))
    assert set(sources_of(config.Data(images=folder, texts=folder), tokens=False)) == {"images"}
    pairs = sources_of(config.Data(pairs=folder))
    assert set(pairs) == {"pairs"}


def test_fewer_samples_than_a_batch_are_refused(make_shards: MakeShards) -> None:
    """A batch with the same sample twice has a wrong softmax."""
    folder = str(make_shards("few", 5))
    with pytest.raises(DataError, match=r"data\.images=.* holds 5 samples, fewer than one global batch \(6\)"):
        sources_of(config.Data(images=folder))


def test_skips_are_summed_over_sources(make_shards: MakeShards) -> None:
    """What the log shows."""
    images = make_shards("images", 12, fields=["png"], broken={2: BROKEN["undecodable"]})
    texts = make_shards("texts", 12, fields=["txt"], broken={2: BROKEN["not_utf8"]})
    sources = sources_of(config.Data(images=str(images), texts=str(texts), max_skip_fraction=0.9))
    streams = Streams(sources, rank=0, world=1, first_step=0, workers=0)
    for _ in range(4):
        streams.next()
    assert streams.skipped() == {"undecodable": 2, "not_utf8": 1}

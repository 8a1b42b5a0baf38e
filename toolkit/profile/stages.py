"""The steps from a shard to a batch, each timed alone on samples of a run's own stream, and the stream as a whole."""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from toolkit.config import Preprocess
from toolkit.data.decode import BadSample
from toolkit.data.images import EncodedPicture, cropped, draw_crop, is_plain, plain_view
from toolkit.data.streams import Field, ShardStream, StreamBatch, batches, rows_of
from toolkit.data.texts import TokenReader
from toolkit.data.views import TrainingViews, resized
from toolkit.errors import DataError

BATCH = 64
ROUNDS = 5
MOST_BYTES = 256 * 2**20
"""Samples are held in memory while their stages are timed; so much at most."""
Run = Callable[[], object]


@dataclass(frozen=True)
class Timed:
    """Microseconds of CPU time per sample: of each stage, and of the whole stream, which is a little more than their sum."""

    stages: dict[str, float]
    stream: float
    samples: int
    kib: float
    """Mean size of what is read for a sample."""

    @property
    def per_second(self) -> float:
        """Samples that one core gives."""
        return 1e6 / self.stream


def profile_stream(stream: ShardStream, samples: int) -> Timed:
    """Stages in turn with the whole stream, ROUNDS times, medians; on one thread of this process."""
    found = read_some(stream, min(samples, len(stream)))
    count = len(found)
    stages: dict[str, Run] = {"read from the shard": lambda: read_again(stream, count)}
    made: dict[str, list[Tensor]] = {}
    for wanted in stream.fields:
        data = [one[wanted.extensions[0]] for one in found if wanted.extensions[0] in one]
        if isinstance(wanted.read, TrainingViews):
            stages |= picture_stages(wanted.read, data, made)
        elif isinstance(wanted.read, TokenReader):
            stages |= {
                f"tokenise for {name}": partial(tokenise, name, TokenReader({name: one}), data, made)
                for name, one in wanted.read.tokenizers.items()
            }
    if stream.stores:
        stages["read of the store"] = lambda: read_stores(stream, count, made)
    stages["collate"] = lambda: collate(made)
    per_batch = min(BATCH, count)
    iterator = batches(stream, per_batch, rank=0, world=1, first_step=0, workers=0)
    steps = max(1, count // per_batch)
    times: dict[str, list[float]] = {name: [] for name in [*stages, ""]}
    for number in range(ROUNDS + 1):  # the first warms up
        for name, run in [*stages.items(), ("", lambda: take(iterator, steps))]:
            began = time.thread_time()
            run()
            if number:
                times[name].append((time.thread_time() - began) * 1e6 / (count if name else steps * per_batch))
    whole = statistics.median(times.pop(""))
    size = sum(len(value) for one in found for value in one.values()) / count / 1024
    return Timed({name: statistics.median(values) for name, values in times.items()}, whole, count, size)


def read_some(stream: ShardStream, samples: int) -> list[dict[str, bytes]]:
    """The bytes of the first good samples, by the first extension of each field; raises DataError when there is none."""
    found: list[dict[str, bytes]] = []
    held = 0
    for position in range(samples):
        try:
            stream[position]
        except DataError:
            if not found:
                raise
            break
        place = stream.plan.place(position)
        shard = stream._open(place.shard)
        one: dict[str, bytes] = {}
        for wanted in stream.fields:
            if extension := shard.extension_of(place.row, wanted.extensions):
                data = shard.read(place.row, extension)
                if is_good(wanted, data):
                    one[wanted.extensions[0]] = data
        found.append(one)
        held += sum(map(len, one.values()))
        if held > MOST_BYTES:
            break
    return found


def is_good(wanted: Field, data: bytes) -> bool:
    """Can the run use it; what it cannot is replaced there, and left out of the stages here."""
    try:
        wanted.read(data)
    except BadSample:
        return False
    return True


def read_again(stream: ShardStream, count: int) -> None:
    """Place in the order, table of contents, bytes."""
    for position in range(count):
        place = stream.plan.place(position)
        shard = stream._open(place.shard)
        for wanted in stream.fields:
            if extension := shard.extension_of(place.row, wanted.extensions):
                shard.read(place.row, extension)


def read_stores(stream: ShardStream, count: int, made: dict[str, list[Tensor]]) -> None:
    """One embedding per sample and store."""
    for name, store in stream.stores.items():
        rows = []
        for position in range(count):
            place = stream.plan.place(position)
            shard = stream._open(place.shard)
            try:
                rows.append(
                    store.read(shard.path, shard.keys, place.row, (place.epoch + place.row) % store.views).features
                )
            except BadSample:
                continue
        made[name] = rows


def tokenise(name: str, reader: TokenReader, data: Sequence[bytes], made: dict[str, list[Tensor]]) -> None:
    """One tokenizer over all sentences."""
    made[name] = [reader(one)[name] for one in data]


def picture_stages(views: TrainingViews, data: Sequence[bytes], made: dict[str, list[Tensor]]) -> dict[str, Run]:
    """Decoding, as far as the views need it, then each view; the tensors go into `made`."""
    replayed = bool(views.frame)  # recorded crops, for which other ones of the kind stand here
    plain = is_plain(views.augmentation) and not replayed
    same = bool(views.teachers) and (views.teacher_view == "same" or replayed)
    students = max((views.student, *views.teachers.values()), key=lambda p: p.image_size) if same else views.student
    side = students.image_size
    pictures: list[Any] = []

    def decode() -> None:
        pictures.clear()
        for one in data:
            picture = EncodedPicture(one, views.max_pixels)
            whole = picture.whole if plain or (views.teachers and not same) else None
            pictures.append((whole, whole if plain else picture.frame(views.frame or side)))

    def student() -> None:
        made["student_images"] = [
            plain_view(frame, students) if plain else cropped(frame, draw_crop(frame, views.augmentation), side)
            for _, frame in pictures
        ]
        if same:
            made["shared"] = made["student_images"]
            made["student_images"] = [resized(one, views.student.image_size) for one in made["shared"]]

    def teacher(name: str, preprocess: Preprocess) -> None:
        if same:
            made[name] = [resized(one, preprocess.image_size) for one in made["shared"]]
        else:
            made[name] = [plain_view(whole, preprocess) for whole, _ in pictures]

    stages: dict[str, Run] = {"decode": decode, "crop and resize for student_images": student}
    verb = "resize" if same else "crop and resize"
    for name, preprocess in views.teachers.items():
        stages[f"{verb} for {name}_images"] = partial(teacher, f"{name}_images", preprocess)
    return stages


def collate(made: dict[str, list[Tensor]]) -> StreamBatch:
    """Into batches, as a stream does it."""
    found = StreamBatch({}, [])
    for name, tensors in made.items():
        for start in range(0, len(tensors) if name != "shared" else 0, BATCH):
            some = tensors[start : start + BATCH]
            rows = rows_of(len(some), some[0])
            for row, one in enumerate(some):
                rows[row] = one
            found.tensors[name] = rows
    return found


def take(iterator: Any, steps: int) -> None:
    """So many batches."""
    for _ in itertools.islice(iterator, steps):
        pass


def on_one_thread(function: Callable[[], Any]) -> Any:
    """As a data worker runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function()
    finally:
        torch.set_num_threads(before)

"""What is embedded: the pictures or the sentences, as a teacher meets them."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit.config import Augmentation, Run, shards_of
from toolkit.data.images import BadSample
from toolkit.data.shards import Shard
from toolkit.data.store import VERSION
from toolkit.data.streams import Field
from toolkit.data.texts import TokenReader
from toolkit.data.views import PlainViews, RecordedViews
from toolkit.errors import DataError
from toolkit.models import Teacher

ROWS = 256
"""Samples per forward of the teacher."""


@dataclass(frozen=True)
class Reader:
    """bytes of a sample -> what the teacher takes; picklable, for data workers."""

    field: Field
    views: RecordedViews | None = None
    """Crops to draw, instead of the plain view."""

    def __call__(self, data: bytes, key: str, crops: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(inputs [v, ...], crops [v, 5] or None) of a sample; `crops` are seen again instead of new ones. Raises BadSample."""
        if self.views is not None:
            return self.views(data, key, crops)
        (tensor,) = self.field.read(data).values()
        return tensor[None], None

    def of(self, shard: Shard, row: int, crops: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The same for a sample of a shard."""
        extension = shard.extension_of(row, self.field.extensions)
        if extension is None:
            raise BadSample(f"no_{self.field.extensions[0]}")
        return self(shard.read(row, extension), shard.keys[row], crops)


@dataclass(frozen=True)
class Pool:
    """The pictures or the sentences of a run, as its teacher meets them."""

    pattern: str
    asked_by: str
    """Config path of the shards, for messages."""
    tensor: str
    """What the reader's field calls the tensor that `encode` takes."""
    reader: Reader
    encode: Callable[[Tensor], Tensor]
    how: dict[str, Any]
    """View, and preprocessing or tokenizer: what an embedding depends on beside the weights."""


def pools(run: Run, teacher: Teacher, reads_text: bool, views: RecordedViews | None = None) -> dict[str, Pool]:
    """`{"image": ..., "text": ...}`, no text where the run reads none; pictures are seen plain unless `views` says how."""
    data = run.data
    key = "data.pairs" if data.pairs else "data.images"
    found = {
        "image": image_pool(
            teacher, data.pairs or shards_of(data, "images"), key, data.image_key, data.max_image_pixels, views
        )
    }
    if reads_text:
        key = "data.pairs" if data.pairs else "data.texts"
        found["text"] = text_pool(teacher, data.pairs or shards_of(data, "texts"), key, data.text_key)
    return found


def image_pool(
    teacher: Teacher, pattern: str, asked_by: str, image_key: str, max_pixels: int, views: RecordedViews | None = None
) -> Pool:
    """Pictures in a teacher's own preprocessing, plain or through crops."""
    field = Field(image_key.split(";"), PlainViews({"teacher": teacher.preprocess}, max_pixels), random=False)
    view = views.identity() if views else "plain"
    how = {"view": view, "preprocess": plain(asdict(teacher.preprocess))}
    return Pool(pattern, asked_by, "teacher_images", Reader(field, views), teacher.encode_image, how)


def text_pool(teacher: Teacher, pattern: str, asked_by: str, text_key: str) -> Pool:
    """Sentences through a teacher's own tokenizer."""
    field = Field(text_key.split(";"), TokenReader({"tokens": teacher.tokenizer()}), random=False)
    how = {"tokenizer": tokenizer_identity(teacher), "context_length": teacher.context_length}
    return Pool(pattern, asked_by, "tokens", Reader(field), teacher.encode_text, how)


def views_of(view: Any, teacher: Teacher, max_pixels: int, where: str) -> RecordedViews | None:
    """The crops that a manifest describes, to be seen again; None for plain pictures. Raises DataError with `where`."""
    if not isinstance(view, dict):
        return None
    try:
        scale, ratio = (tuple(float(v) for v in view[key]) for key in ("crop_scale", "crop_ratio"))
        rules = Augmentation((scale[0], scale[1]), (ratio[0], ratio[1]), float(view["flip_fraction"]))
        frame, count, seed = (int(view[key]) for key in ("frame", "count", "seed"))
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(f"{where}: its `view` does not describe crops ({error!r}); embed the pictures again") from error
    if not (0 < frame < 10_000 and 0 < count < 10_000):
        raise DataError(f"{where}: its `view` has the frame {frame} and {count} crops; embed the pictures again")
    return RecordedViews(teacher.preprocess, frame, rules, count, seed, max_pixels)


def identity_of(teacher: Teacher, pool: Pool, weights: str) -> dict[str, Any]:
    """What must agree between a store and those who use it."""
    return {
        "version": VERSION, "teacher": teacher.name, "weights_sha256": weights, "width": teacher.embed_dim, **pool.how
    }  # fmt: skip


def weight_hash(teacher: Teacher) -> str:
    """Hash of every weight of both towers, rounded to bf16: the same whichever type the teacher is used in."""
    state = sorted(teacher.module.state_dict().items())
    return state_hash((name, value.to(torch.bfloat16) if value.is_floating_point() else value) for name, value in state)


def state_hash(named: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 over names and bytes of tensors, in the order given, one in memory at a time."""
    digest = hashlib.sha256()
    for name, value in named:
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_identity(teacher: Teacher) -> str:
    """Name of an open_clip tokenizer, hash of a vocabulary file."""
    name = teacher.tokenizer_name or ""
    return hashlib.sha256(Path(name).read_bytes()).hexdigest() if name.endswith(".model") else name


def plain(how: dict[str, Any]) -> dict[str, Any]:
    """As JSON would give it back: tuples become lists."""
    return {k: plain(v) if isinstance(v, dict) else list(v) if isinstance(v, tuple) else v for k, v in how.items()}

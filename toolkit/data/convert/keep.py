"""Fields that are kept beside a picture (`--keep txt,json`): its caption, what is known of it, its class."""

import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from toolkit.data.convert.check_shard import RUNS_CODE, Member, wrong_content
from toolkit.data.convert.outcome import LeftOut
from toolkit.data.convert.pictures import EXTENSIONS, PictureOptions
from toolkit.data.decode import MAX_BYTES
from toolkit.errors import ConfigError

CAPTION_FIELDS = ("txt", "text", "caption")
"""Where samples of other tools have the sentence that is `txt` here."""
_FIELD = re.compile("[a-z0-9_]{1,20}")
_NO_PICTURE = PictureOptions()


class Kept(NamedTuple):
    """A field of the shards, and the field or column that it is taken from where the user has named one."""

    field: str
    source: str = ""

    @property
    def places(self) -> tuple[str, ...]:
        """Fields of a sample, or extensions of files, that may hold it, in order of preference."""
        if self.source:
            return (self.source.lower(),)
        return CAPTION_FIELDS if self.field == "txt" else (self.field,)


@lru_cache(maxsize=8)
def kept_fields(words: tuple[str, ...]) -> tuple[Kept, ...]:
    """`("txt=alt", "json")` as fields; raises ConfigError for what cannot be one."""
    found = []
    for word in words:
        field, equals, source = word.partition("=")
        if not _FIELD.fullmatch(field) or (equals and not source):
            raise ConfigError(f"--keep {word}: give fields as txt,json or as txt=the_column_it_is_taken_from")
        if field in EXTENSIONS:
            raise ConfigError(f"--keep {word}: a sample has one picture, which is always kept; leave {field} out")
        if field in RUNS_CODE:
            raise ConfigError(f"--keep {word}: other loaders run code from {field}; keep it under another name")
        found.append(Kept(field, source))
    fields = [kept.field for kept in found]
    for field in fields:
        if fields.count(field) > 1:
            raise ConfigError(f"--keep names {field} twice; name it once")
    return tuple(found)


def first_of(kept: Kept, there: Iterable[str]) -> str:
    """Which of the fields that are there it is taken from; raises LeftOut when none is."""
    have = set(there)
    found = next((place for place in kept.places if place in have), None)
    if found is None:
        raise LeftOut(f"{kept.field}_missing")
    return found


def checked(field: str, data: bytes) -> bytes:
    """The bytes themselves; raises LeftOut for what a run could not read: empty, no UTF-8, no JSON, no class number."""
    if not data:
        raise LeftOut(f"{field}_empty")
    if len(data) > MAX_BYTES:
        raise LeftOut(f"{field}_too_many_bytes")
    if reason := wrong_content(Member("", field, 0, len(data), True), data, _NO_PICTURE):
        raise LeftOut(f"{field}_{'empty' if reason == 'empty_text' else reason}")
    return data


def read_beside(folder: str, name: str, wanted: Sequence[Kept]) -> list[tuple[str, bytes]]:
    """Fields that lie in files of the picture's base name beside it: `a/7.txt` for `a/7.jpg`."""
    stem = os.path.join(folder, name.rpartition(".")[0])
    found = []
    for kept in wanted:
        there = [place for place in kept.places if os.path.isfile(f"{stem}.{place}")]
        try:
            with open(f"{stem}.{first_of(kept, there)}", "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise LeftOut(f"{kept.field}_unreadable") from error
        found.append((kept.field, checked(kept.field, data)))
    return found


def encoded(field: str, value: Any) -> bytes:
    """A value of a table as the bytes of a field: words as they are, of several captions the first, the rest as JSON."""
    if field == "txt" and isinstance(value, list):
        value = next((entry for entry in value if entry is not None), None)
    if value is None:
        raise LeftOut(f"{field}_missing")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return json.dumps(plain(value), ensure_ascii=False).encode("utf-8", "surrogateescape")


def plain(value: Any) -> Any:
    """What JSON can say: dates and the like in words, bytes and numbers that are none as null."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, bytes) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)

"""Any source of sentences -> (name, row, sentence), cleaned, with what is left out and why."""

import re
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from toolkit.data.convert import tsv
from toolkit.data.convert.captions import captions_of
from toolkit.data.convert.duplicates import hash_bytes
from toolkit.data.convert.outcome import LeftOut, Skip
from toolkit.data.convert.prompts import class_sets, prompts
from toolkit.data.convert.sources import Source
from toolkit.data.convert.tables import READERS
from toolkit.errors import ConfigError, DataError

MAX_BYTES = 1 << 16
_NO_WORD = re.compile(r"[^\w\s]|_")


class Sentence(NamedTuple):
    """Where it stands in its source, and the words or the reason why there are none."""

    name: str
    row: int
    text: str
    reason: str = ""


@dataclass(frozen=True)
class SentenceOptions:
    """What `dime shards texts` was asked for."""

    column: str = ""
    captions: str = "all"
    """all or first of a TSV row that has several."""
    dedupe: str = "exact"
    """exact (same characters but for white space), near (case and punctuation do not count either) or none."""
    min_words: int = 3
    max_words: int = 0
    samples_per_shard: int = 10_000

    def check(self) -> None:
        """Raise ConfigError for what cannot be meant."""
        if self.samples_per_shard < 1:
            raise ConfigError("--samples-per-shard must be at least 1")
        if 0 < self.max_words < self.min_words:
            raise ConfigError(f"--max-words ({self.max_words}) is below --min-words ({self.min_words}); raise it")


def sentences_of(source: Source, options: SentenceOptions) -> Iterator[Sentence]:
    """Everything in the source, in its order, filtered; class prompts are never too short or too long."""
    if source.kind == "classes":
        for set_name, names, templates in class_sets(source.path, source.column):
            for name, text in prompts(names, templates):
                yield cleaned(Sentence(f"{set_name}: {name}", -1, text), SentenceOptions(min_words=0))
        return
    if source.kind == "tsv":
        found = _tsv(source.path, options.captions)
    elif source.kind == "webdataset":
        found = _members(source.path)
    else:
        found = _table(source)
    for sentence in found:
        yield sentence if sentence.reason else cleaned(sentence, options)


def cleaned(sentence: Sentence, options: SentenceOptions) -> Sentence:
    """White space around it gone; left out when empty, not UTF-8, too short or too long."""
    text = sentence.text.strip()
    reason = ""
    if not text:
        reason = "empty_text"
    elif any("\ud800" <= letter <= "\udfff" for letter in text) if not text.isascii() else False:
        reason = "not_utf8"
    elif len(text) > MAX_BYTES:
        reason = "too_many_bytes"
    else:
        words = len(text.split())
        if words < options.min_words:
            reason = "too_few_words"
        elif options.max_words and words > options.max_words:
            reason = "too_many_words"
    return sentence._replace(text=text, reason=reason)


def hash_text(text: str, dedupe: str) -> int:
    """Equal for sentences that count as the same."""
    if dedupe == "none":
        return 0
    plain = " ".join(text.split())
    if not plain.isascii():
        plain = unicodedata.normalize("NFC", plain)
    if dedupe == "near":
        bare = " ".join(_NO_WORD.sub(" ", unicodedata.normalize("NFKC", plain).casefold()).split())
        plain = bare or plain
    return hash_bytes(plain.encode())


def _tsv(path: str, captions: str) -> Iterator[Sentence]:
    offsets = tsv.offsets_of(Path(path))
    for row in tsv.visible_rows(Path(path), len(offsets) - 1).tolist():
        try:
            key, column = tsv.read_row(path, int(offsets[row]), int(offsets[row + 1] - offsets[row]))
        except LeftOut as error:
            yield Sentence(f"row {row}", row, "", error.reason)
            continue
        try:
            found = captions_of(column.decode("utf-8", "surrogateescape"), key)
        except LeftOut as error:
            yield Sentence(key, row, "", error.reason)
            continue
        for number, text in enumerate(found):
            reason = "other_caption" if number and captions == "first" else ""
            yield Sentence(key, row, text, reason)


def _members(path: str) -> Iterator[Sentence]:
    """The txt field of each sample of a WebDataset shard."""
    from toolkit.data.convert.listing import plain_members

    with open(path, "rb") as file:
        for member in plain_members(path):
            if isinstance(member, Skip):
                yield Sentence(member.name, -1, "", member.reason)
            elif member.name.lower().endswith((".txt", ".text", ".caption")):
                file.seek(member.offset)
                text = file.read(min(member.size, 4 * MAX_BYTES + 1)).decode("utf-8", "surrogateescape")
                yield Sentence(member.name.rpartition(".")[0], -1, text)


def _table(source: Source) -> Iterator[Sentence]:
    try:
        for name, found in READERS[source.kind](source.path, source.column):
            if isinstance(found, LeftOut):
                yield Sentence(name, -1, "", found.reason)
            else:
                yield Sentence(name, -1, str(found))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{source.path} cannot be read to its end ({error}); copy it again or leave it out") from error

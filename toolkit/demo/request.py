"""What the page asks for, checked: a picture's bytes, labels and a prompt."""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

MEBIBYTE = 1 << 20
MAX_PICTURE_BYTES = 20 * MEBIBYTE
MAX_BODY_BYTES = MAX_PICTURE_BYTES * 4 // 3 + MEBIBYTE
"""base64 makes four letters of three bytes; the rest is for labels."""
MAX_LABELS = 256
MAX_LABEL_LETTERS = 200
MAX_PROMPT_LETTERS = 300
PROMPT = "a photo of a {}."


class Refused(Exception):
    """A request that is not answered: HTTP status and a sentence for the page."""

    def __init__(self, status: int, message: str) -> None:
        """`message` says what was found and what to do."""
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True)
class Question:
    """One picture and the labels to choose from."""

    picture: bytes
    labels: tuple[str, ...]
    """Each once, in the order given."""
    prompt: str
    """Has a `{}`."""
    notes: tuple[str, ...] = ()
    """What was left out."""

    @property
    def sentences(self) -> list[str]:
        """The prompt with each label in it."""
        return [self.prompt.replace("{}", label) for label in self.labels]


def read_question(body: bytes) -> Question:
    """From the JSON `{"picture": base64, "labels": [...], "prompt": "a photo of a {}."}`; raises Refused."""
    try:
        asked: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "The request is not JSON.") from error
    if not isinstance(asked, dict):
        raise Refused(400, "The request is not a JSON object with picture, labels and prompt.")
    labels, notes = read_labels(asked.get("labels"))
    prompt = read_sentence(asked.get("prompt", PROMPT), "The prompt", MAX_PROMPT_LETTERS)
    if "{}" not in prompt:
        raise Refused(400, f"The prompt has no {{}}, where the label goes; for example: {PROMPT}")
    return Question(read_picture(asked.get("picture")), labels, prompt, notes)


def read_labels(given: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Labels without the empty and the repeated ones, and a note where some were repeated."""
    if not isinstance(given, list):
        raise Refused(400, "Type at least one label.")
    if len(given) > 4 * MAX_LABELS:  # before each is looked at
        raise Refused(400, f"{len(given)} labels are too many: {MAX_LABELS} at most.")
    labels = [label for one in given if (label := read_sentence(one, "A label", MAX_LABEL_LETTERS))]
    different = tuple(dict.fromkeys(labels))
    if not different:
        raise Refused(400, "Type at least one label.")
    if len(different) > MAX_LABELS:
        raise Refused(400, f"{len(different)} labels are too many: {MAX_LABELS} at most.")
    repeated = len(labels) - len(different)
    note = f"{repeated} repeated label{'s are' if repeated > 1 else ' is'} counted once."
    return different, (note,) if repeated else ()


def read_sentence(given: Any, what: str, most: int) -> str:
    """Stripped; a lone surrogate, which JSON can hold, is no text."""
    if not isinstance(given, str):
        raise Refused(400, f"{what} is not text.")
    if len(given) > most:
        raise Refused(400, f"{what} has {len(given)} letters: {most} at most.")
    try:
        given.encode()
    except UnicodeEncodeError as error:
        raise Refused(400, f"{what} holds something that is no text.") from error
    return " ".join(given.replace("\0", " ").split())


def read_picture(given: Any) -> bytes:
    """The bytes behind the base64."""
    if not isinstance(given, str) or not given:
        raise Refused(400, "Give a picture first: drop one, choose a file, or paste.")
    try:
        data = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, "The picture did not arrive whole (it is no base64); give it again.") from error
    if len(data) > MAX_PICTURE_BYTES:
        raise Refused(413, too_large(len(data)))
    return data


def too_large(size: int) -> str:
    """For a picture of `size` bytes."""
    most = MAX_PICTURE_BYTES // MEBIBYTE
    return f"The picture has {size / MEBIBYTE:.1f} MiB: {most} MiB at most. Save it smaller; the models see a few hundred pixels."

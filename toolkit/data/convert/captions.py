"""The second column of a DIME-FM text row: JSON or plain words, by the rules of its loader and without their traps."""

import hashlib
import json
from typing import Any

from toolkit.data.convert.outcome import LeftOut
from toolkit.data.convert.prompts import shipped

PERSON = "[unused0]"
"""CC12M's placeholder."""


def captions_of(column: str, key: str) -> list[str]:
    """Every sentence the row stands for; raises LeftOut("empty_list") or LeftOut("no_caption").

    A list stands for its first element. Of an object `captions` goes before `caption` before `tags` before the
    `class_name` of a classification row. Where the loader would die (a number, true, or a JSON string that contains the
    word "caption") the words themselves are the sentence. Tags and class names are put into a template each, drawn from the
    81 of the loader by the row's key, so that the same file always gives the same sentences.
    """
    try:
        value = json.loads(column)
    except ValueError:
        value = column
    if isinstance(value, list):
        if not value:
            raise LeftOut("empty_list")
        value = value[0]
    if isinstance(value, dict):
        sentences = _of_object(value, key)
    elif isinstance(value, str):
        sentences = [value]
    elif value is None:
        raise LeftOut("no_caption")
    else:
        sentences = [column if not isinstance(value, list) else json.dumps(value)]
    return [sentence.replace(PERSON, "person") for sentence in sentences]


def _of_object(value: dict[str, Any], key: str) -> list[str]:
    for name in ("captions", "caption"):
        if name in value:
            found = _strings(value[name])
            break
    else:
        names = value.get("tags", value.get("class_name") if value.get("task") == "classification" else None)
        found = [_prompt(name, key) for name in _strings(names)]
    if not found:
        raise LeftOut("no_caption")
    return found


def _strings(value: Any) -> list[str]:
    return [
        str(entry) for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, str | int | float)
    ]


def _prompt(class_name: str, key: str) -> str:
    """As the loader cleans a class name: commas go, + is a space."""
    templates = [*shipped()["sets"]["ImageNet"]["templates"], "{}."]
    drawn = int.from_bytes(
        hashlib.blake2b(f"{key}\t{class_name}".encode("utf-8", "replace"), digest_size=8).digest(), "big"
    )
    return str(templates[drawn % len(templates)]).replace("{}", class_name.replace(",", "").replace("+", " "))

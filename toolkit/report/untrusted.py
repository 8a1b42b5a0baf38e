"""Values of a file that others may have written, each with where it stands, so that a mistake is named exactly."""

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import DataError
from toolkit.report.run_files import Prediction, Sample, png_size
from toolkit.report.wording import is_number


@dataclass(frozen=True)
class Found:
    """One value. The readers below raise DataError with `where` in it; null is the same as absent."""

    where: str
    value: Any

    def get(self, key: str) -> "Found | None":
        """None where the key is absent or null."""
        value = self.mapping().get(key)
        return None if value is None else Found(f"{self.where}.{key}", value)

    def need(self, key: str) -> "Found":
        """Refuses an absent key."""
        found = self.get(key)
        if found is None:
            raise DataError(f"{self.where} has no {key}")
        return found

    def mapping(self) -> dict[str, Any]:
        """The value, checked."""
        if not isinstance(self.value, dict):
            raise self._not("a mapping")
        return self.value

    def items(self, key: str) -> "Iterator[tuple[str, Found]]":
        """Name and value of the mapping at `key`; none where it is absent. Null values are left out."""
        inside = self.get(key)
        for name, value in inside.mapping().items() if inside else ():
            if value is not None:
                yield str(name), Found(f"{self.where}.{key}.{name}", value)

    def each(self, key: str) -> "Iterator[Found]":
        """Entries of the list at `key`; none where it is absent."""
        inside = self.get(key)
        if inside is None:
            return
        if not isinstance(inside.value, list):
            raise inside._not("a list")
        for number, value in enumerate(inside.value):
            yield Found(f"{inside.where}[{number}]", value)

    def number(self) -> float:
        """Finite."""
        if not is_number(self.value):
            raise self._not("a number")
        return float(self.value)

    def optional(self, key: str) -> float | None:
        """The number at `key`, None where it is absent, null or was NaN."""
        found = self.get(key)
        return None if found is None else found.number()

    def text(self, key: str, default: str = "") -> str:
        """A string or a number as a string; `default` where it is absent."""
        found = self.get(key)
        if found is None:
            return default
        if not isinstance(found.value, str) and not is_number(found.value):
            raise found._not("a text")
        return str(found.value)

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        found = list(self.each(key))
        for one in found:
            if not isinstance(one.value, str):
                raise one._not("a text")
        return [one.value for one in found]

    def pairs(self, key: str) -> list[Prediction]:
        """A list of [text, number]."""
        found = []
        for one in self.each(key):
            pair = one.value
            if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and is_number(pair[1])):
                raise one._not("a [name, number] pair")
            found.append((pair[0], float(pair[1])))
        return found

    def picture(self, model: str) -> Sample:
        """What stands under png (checked to be one), truth, `model` and teacher."""
        text = self.text("png")
        try:
            png = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise DataError(f"{self.where}.png is not base64 ({error})") from error
        width, height = png_size(png, f"{self.where}.png")
        truth = self.get("truth")
        return Sample(
            png=base64.b64encode(png).decode("ascii"),
            width=width,
            height=height,
            truth=None if truth is None else str(truth.value),
            teacher=self.pairs("teacher") if model != "teacher" else [],
            student=self.pairs(model),
        )

    def _not(self, what: str) -> DataError:
        return DataError(f"{self.where} should be {what}, found {self.value!r:.60}")


def read_json(path: Path) -> Found:
    """The whole file; NaN and infinities become null. Raises DataError where it is no JSON or too deep."""
    try:
        return Found(path.name, json.loads(path.read_bytes(), parse_constant=lambda _: None))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name} is not readable JSON ({error})") from error

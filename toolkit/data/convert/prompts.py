"""Class names x prompt templates: sentences that name what a task asks for."""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from toolkit.errors import ConfigError, DataError

SHIPPED = Path(__file__).with_name("prompts") / "clip.json"
WHOLE = {"clip": "the 27 sets of CLIP", "elevater": "the 20 sets of ELEVATER"}
PLAIN = "a photo of a {}."


@lru_cache(maxsize=1)
def shipped() -> dict[str, Any]:
    """`sets` by name with classnames and templates, and ELEVATER's names for them; `licence` says whose they are."""
    return dict(json.loads(SHIPPED.read_text()))


def shipped_names(word: str) -> list[str]:
    """Sets that a word names: one of CLIP's by its own or ELEVATER's name, `clip` or `elevater` for all; else none."""
    known = shipped()
    if word in WHOLE:
        return list(known["sets"]) if word == "clip" else list(known["elevater"].values())
    plain = {simple(name): name for name in known["sets"]}
    plain |= {simple(name): own for table in ("elevater", "aliases") for name, own in known[table].items()}
    return [plain[simple(word)]] if simple(word) in plain else []


def simple(name: str) -> str:
    """`food-101`, `Food101` and `food_101` are one name."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def class_sets(classnames: str, templates: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """(name of the set, class names, templates) of the `--classnames` and `--templates` words; ConfigError when unknown."""
    own = template_list(templates) if templates else []
    for name in shipped_names(classnames):
        entry = shipped()["sets"][name]
        yield name, names_of(entry["classnames"]), own or list(entry["templates"])
    if shipped_names(classnames):
        return
    if not Path(classnames).is_file():
        raise ConfigError(
            f"--classnames {classnames} is neither a file nor a set; known: {', '.join([*WHOLE, *shipped()['sets']])}"
        )
    names, found = read_class_file(Path(classnames))
    if not (own or found):
        raise ConfigError(
            f"--classnames {classnames} holds no templates; give --templates, a file or a set such as cifar10"
        )
    yield Path(classnames).name, names, own or found


def template_list(word: str) -> list[str]:
    """Templates of a shipped set (all of several, each once), or lines or `templates` of a file."""
    found = [template for name in shipped_names(word) for template in shipped()["sets"][name]["templates"]]
    if not found:
        if not Path(word).is_file():
            raise ConfigError(
                f"--templates {word} is neither a file nor a set; known: {', '.join([*WHOLE, *shipped()['sets']])}"
            )
        found = list_of(Path(word), "templates")
    wrong = [template for template in found if template.count("{}") != 1]
    if wrong or not found:
        raise ConfigError(
            f"--templates {word}: each must hold one {{}} for the class name, found {wrong[:1] or 'none'}"
        )
    return list(dict.fromkeys(found))


def read_class_file(path: Path) -> tuple[list[str], list[str]]:
    """Class names and templates (perhaps none) of a classes file, a JSON list, or a text file with a name per line."""
    templates = []
    if path.suffix == ".json" and isinstance(content := _json(path), dict) and "templates" in content:
        templates = [str(template) for template in content["templates"]]
        wrong = [template for template in templates if template.count("{}") != 1]
        if wrong:
            raise DataError(
                f"{path}: each template must hold one {{}} for the class name, found {wrong[0]!r}; correct it"
            )
    return list_of(path, "classnames"), templates


def list_of(path: Path, key: str) -> list[str]:
    """A JSON list, the list under `key` of a JSON object, or the lines of any other file."""
    if path.suffix == ".json":
        content = _json(path)
        found = content.get(key) if isinstance(content, dict) else content
        if not isinstance(found, list):
            raise DataError(f"{path}: found no list of {key}; it is a JSON list or an object with {key!r}")
        return names_of(found)
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error


def names_of(entries: list[Any]) -> list[str]:
    """Flat: FER-2013 has several names per class."""
    return [str(name) for entry in entries for name in (entry if isinstance(entry, list) else [entry])]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); correct it") from error


def prompts(classnames: list[str], templates: list[str]) -> Iterator[tuple[str, str]]:
    """(class and template, sentence), class by class."""
    for name in classnames:
        for template in templates:
            yield f"{name} | {template}", template.replace("{}", name)

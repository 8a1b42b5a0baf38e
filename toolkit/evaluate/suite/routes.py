"""Which words of --sets are labelled sets, which are pictures with captions, and which are captions with hard negatives."""

from dataclasses import dataclass, field
from pathlib import Path

from toolkit.data.pairs.find import pair_rows
from toolkit.data.pairs.known import KNOWN, known_of
from toolkit.data.pairs.own import holds_captions
from toolkit.errors import ConfigError
from toolkit.evaluate.suite.request import Request
from toolkit.evaluate.suite.sets import WORDS, entry_named

ALL_PAIRS = {"all", "yours"}


@dataclass
class Routes:
    """Words by kind of task."""

    labelled: list[str] = field(default_factory=list)
    retrieval: list[str] = field(default_factory=list)
    compositionality: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """Of those that only `all` would have named: how to get them."""


def routed(request: Request) -> Routes:
    """Every word goes to each task that asks for sets of its kind; ConfigError for one that no task asks for.

    Without words, all that is there: for pictures with captions found in the folder of data.
    """
    routes = Routes()
    asked = {"labelled": bool(request.on_sets())} | {
        task: task in request.tasks for task in ("retrieval", "compositionality")
    }
    for word in request.sets or ("all",):
        kinds = kinds_of(word, request.data)
        if word in WORDS:
            if asked["labelled"]:
                routes.labelled.append(word)
            continue
        wanted = [kind for kind in kinds if asked[kind]]
        if not wanted:
            needed = " or ".join("zero_shot" if kind == "labelled" else kind for kind in kinds)
            raise ConfigError(f"--sets {word} is for --tasks {needed}; found --tasks {','.join(request.tasks)}")
        for kind in wanted:
            getattr(routes, kind).append(word)
    if set(request.sets or ("all",)) & ALL_PAIRS and (asked["retrieval"] or asked["compositionality"]):
        add_found(request, routes, asked)
    for kind, wanted_ in asked.items():
        if wanted_ and not getattr(routes, kind) and request.sets:
            task = request.on_sets()[0] if kind == "labelled" else kind
            raise ConfigError(
                f"--sets {','.join(request.sets)} names nothing for --tasks {task}; add a set, or leave the task out"
            )
    return routes


def kinds_of(word: str, data: Path) -> list[str]:
    """`labelled`, `retrieval`, `compositionality`: what the word can be; ConfigError where it is nothing."""
    known = known_of(word)
    if known is not None:
        return [known.task]
    if word in WORDS:
        return ["labelled"]
    if word.endswith(".tar") or "::" in word or holds_captions(data / word):
        return ["retrieval"]
    entry_named(word, data)
    return ["labelled"]


def add_found(request: Request, routes: Routes, asked: dict[str, bool]) -> None:
    """Every set of captions in the folder of data; how to get the known ones that are not."""
    for row in pair_rows(request.data):
        known = KNOWN.get(row.name)
        kind = known.task if known else "retrieval"
        if not asked[kind] or row.name in getattr(routes, kind):
            continue
        if row.state == "missing":
            routes.missing[row.name] = row.get
        else:
            getattr(routes, kind).append(row.name)

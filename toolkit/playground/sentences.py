"""What people might say about a scene: more or less of it, in varying words."""

import numpy as np

from toolkit.playground.scenes import RELATIONS, Scene, Thing

CLASS_TEMPLATES = (
    "a picture of a {}.",
    "a drawing of a {}.",
    "an image of a {}.",
    "there is a {} here.",
    "a {}.",
    "a small {}.",
    "a big {}.",
    "this is a {}.",
)
"""Prompts for zero-shot naming; `{}` stands for a class name such as 'red circle'."""

_OPENINGS = ("", "", "", "a picture of ", "a drawing of ", "an image of ", "there is ", "this is ", "we see ")
_SIZE_WORDS = {"small": ("small", "tiny", "little"), "big": ("big", "large", "huge")}
_RELATION_WORDS = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_PLACES = (" on a {} background", " against {}", " on {}")


def sentence(scene: Scene, rng: np.random.Generator, full: bool = False) -> str:
    """One true sentence about `scene`; size, relation and background are each left out at times, never if `full`."""
    first, *rest = scene.things
    relation = scene.relation
    if rest and relation and rng.random() < 0.5:
        first, rest, relation = rest[0], [first], RELATIONS[relation]
    words = _noun_phrase(first, rng, full)
    if rest and relation:
        told = full or rng.random() < 0.75
        link = _choose(rng, _RELATION_WORDS[relation]) if told else "and"
        words = f"{words} {link} {_noun_phrase(rest[0], rng, full)}"
    place = _choose(rng, _PLACES).format(scene.background) if full or rng.random() < 0.4 else ""
    stop = "." if rng.random() < 0.7 else ""
    return f"{_choose(rng, _OPENINGS)}{words}{place}{stop}"


def _noun_phrase(thing: Thing, rng: np.random.Generator, full: bool) -> str:
    size = _choose(rng, _SIZE_WORDS[thing.size]) if full or rng.random() < 0.4 else ""
    if rng.random() < 0.15:
        return f"{with_article(f'{size} {thing.shape}'.strip())} in {thing.colour}"
    return with_article(f"{size} {thing.colour} {thing.shape}".strip())


def with_article(words: str) -> str:
    """'a red star', 'an orange star'."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _choose(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options))]

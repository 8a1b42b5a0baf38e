"""Scenes of one or two coloured shapes on a muted background, and how they are drawn.

A class is a colour and a shape. One class in six is UNSEEN: no training image and no training sentence ever
contains it, so that naming it later takes composing a colour and a shape learned apart.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image, ImageDraw

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 40),
    "orange": (245, 130, 20),
    "yellow": (250, 225, 45),
    "lime": (140, 235, 40),
    "green": (20, 120, 50),
    "cyan": (40, 215, 225),
    "blue": (35, 70, 215),
    "purple": (120, 35, 155),
    "pink": (250, 115, 190),
    "brown": (115, 70, 35),
    "black": (20, 20, 20),
    "white": (252, 252, 252),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "crescent", "diamond", "arrow")
SIZES: dict[str, tuple[float, float]] = {"small": (0.16, 0.19), "big": (0.21, 0.25)}
"""Range of the radius, as a fraction of the side of the picture."""
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "grey": (140, 140, 140),
    "sand": (195, 175, 135),
    "mint": (165, 200, 175),
    "sky": (160, 185, 210),
    "lavender": (180, 165, 200),
}
RELATIONS = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
"""What the first thing is to the second, and what the second then is to the first."""

Combo = tuple[str, str]
COMBOS: tuple[Combo, ...] = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
CLASSNAMES = tuple(f"{colour} {shape}" for colour, shape in COMBOS)


def _is_unseen(combo: Combo) -> bool:
    """Two colours of each shape, six apart on the list; 5 and 12 are coprime, so they spread over all colours."""
    colour, shape = list(COLOURS).index(combo[0]), SHAPES.index(combo[1])
    return (colour - 5 * shape) % 6 == 3


UNSEEN: tuple[Combo, ...] = tuple(combo for combo in COMBOS if _is_unseen(combo))
SEEN: tuple[Combo, ...] = tuple(combo for combo in COMBOS if not _is_unseen(combo))

SUPERSAMPLING = 4
COLOUR_JITTER = 8.0
PIXEL_NOISE = 6.0
MAX_TILT_DEGREES = 12.0


@dataclass(frozen=True)
class Thing:
    """One coloured shape; `x`, `y` (its centre, from the top left) and `radius` are fractions of the picture's side."""

    colour: str
    shape: str
    size: str
    x: float
    y: float
    radius: float

    @property
    def combo(self) -> Combo:
        return self.colour, self.shape


@dataclass(frozen=True)
class Scene:
    """One or two things; `relation` says what the first is to the second and is None for a thing alone."""

    things: tuple[Thing, ...]
    background: str
    relation: str | None = None


def sample_scene(rng: np.random.Generator, combos: tuple[Combo, ...] = SEEN, objects: int | None = None) -> Scene:
    """A scene of `objects` things (None: one or two, evenly) whose colours and shapes are all in `combos`."""
    count = objects or int(rng.integers(1, 3))
    if count not in (1, 2):
        raise ValueError(f"a scene has 1 or 2 objects, not {objects}")
    picks = rng.choice(len(combos), size=count, replace=False)
    relation = str(rng.choice(list(RELATIONS))) if count == 2 else None
    things = tuple(_sample_thing(rng, combos[pick], relation, index == 0) for index, pick in enumerate(picks))
    return Scene(things, _choose(rng, BACKGROUNDS), relation)


def _sample_thing(rng: np.random.Generator, combo: Combo, relation: str | None, is_first: bool) -> Thing:
    size = _choose(rng, SIZES)
    radius = float(rng.uniform(*SIZES[size]))
    x, y = rng.uniform(radius, 1 - radius, size=2)
    if relation is not None:  # each keeps to its half, so that neither hides the other
        half = 0.0 if (relation in ("left of", "above")) == is_first else 0.5
        along = rng.uniform(half + radius, half + 0.5 - radius)
        across = rng.uniform(0.35, 0.65)
        x, y = (along, across) if relation in ("left of", "right of") else (across, along)
    return Thing(*combo, size, float(x), float(y), radius)


def _choose(rng: np.random.Generator, names: dict[str, tuple]) -> str:
    return list(names)[rng.integers(len(names))]


def render(scene: Scene, rng: np.random.Generator, size: int = 32) -> UInt8[np.ndarray, "h w 3"]:
    """Draws the scene with smooth edges; tilt, shades and pixel noise come from `rng`, so no two pictures agree."""
    wide = size * SUPERSAMPLING
    canvas = Image.new("RGB", (wide, wide), _shade(BACKGROUNDS[scene.background], rng))
    draw = ImageDraw.Draw(canvas)
    for thing in scene.things:
        tilt = math.radians(rng.uniform(-MAX_TILT_DEGREES, MAX_TILT_DEGREES))
        cos, sin = math.cos(tilt) * thing.radius * wide, math.sin(tilt) * thing.radius * wide
        points = outline(thing.shape) @ np.array([[cos, sin], [-sin, cos]]) + np.array([thing.x, thing.y]) * wide
        draw.polygon(points.ravel().tolist(), fill=_shade(COLOURS[thing.colour], rng))
    pixels = np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float32)
    pixels = pixels + rng.standard_normal(pixels.shape, dtype=np.float32) * PIXEL_NOISE
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _shade(colour: tuple[int, int, int], rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = np.clip(np.array(colour) + rng.normal(0, COLOUR_JITTER, size=3), 0, 255).astype(int)
    return int(red), int(green), int(blue)


@cache
def outline(shape: str) -> Float64[np.ndarray, "points 2"]:
    """The shape as one closed polygon about a unit circle, y pointing down."""
    turn = np.linspace(0, 2 * np.pi, 33)
    circle = np.stack([np.sin(turn), -np.cos(turn)], axis=1)
    if shape == "circle":
        return circle
    if shape == "ring":  # out along the rim and back along the hole: an even-odd seam, invisible once filled
        return np.concatenate([circle, 0.55 * circle[::-1]])
    if shape == "star":
        spikes = np.arange(10) * np.pi / 5
        reach = np.where(np.arange(10) % 2, 0.38, 1.0)
        return np.stack([np.sin(spikes) * reach, -np.cos(spikes) * reach], axis=1)
    if shape == "heart":
        x = 16 * np.sin(turn) ** 3
        y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
        return np.stack([x, -y - 2], axis=1) / 16.5
    if shape == "crescent":
        rim = np.linspace(0.2 * np.pi, 1.8 * np.pi, 25)
        edge = np.stack([np.cos(rim), np.sin(rim)], axis=1)
        bite = edge[::-1] * np.array([0.5, 1.0]) + np.array([0.405, 0.0])
        return np.concatenate([edge, bite])
    return np.array(_CORNERS[shape], dtype=np.float64)


_CORNERS: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.83, -0.83), (0.83, -0.83), (0.83, 0.83), (-0.83, 0.83)],
    "triangle": [(0, -1), (0.87, 0.6), (-0.87, 0.6)],
    "diamond": [(0, -1), (0.62, 0), (0, 1), (-0.62, 0)],
    "cross": [
        *[(-0.25, -1), (0.25, -1), (0.25, -0.25), (1, -0.25), (1, 0.25), (0.25, 0.25)],
        *[(0.25, 1), (-0.25, 1), (-0.25, 0.25), (-1, 0.25), (-1, -0.25), (-0.25, -0.25)],
    ],
    "arrow": [(-1, -0.28), (0.1, -0.28), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.28), (-1, 0.28)],
}
